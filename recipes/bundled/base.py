"""Step 4: trains the text encoder and the U-Net on the autoencoder's latents.

Warm-up, a constant rate, a linear decay at the end: a run can be lengthened or cut while it goes.
Half of each batch is drawn from the top quarter of the timesteps, most of it near the very top: there layout is learnt,
and which object is where. Several processes (`torchrun --nproc-per-node 2 recipes/bundled/base.py`) share each batch
and average their gradients.

While it trains, a linear head reads the left object's attributes off the text encoder's last padding token and the
right object's off the one before; the head is thrown away. So the encoder learns which colour belongs to which object
long before the U-Net could have taught it, and the U-Net finds each object at a token of its own.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta

import numpy as np
import tokenizers
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from tokenizers import pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from autoencoder import build as build_autoencoder
from common import (
    CONFIG,
    DEVICE,
    RUNS,
    as_images,
    average_gradients,
    load_captions,
    load_pictures,
    load_state,
    log_row,
    moving_average,
    plateau,
    save_state,
    shard_count,
    write_array,
)
from muon import Muon
from selfcascade.data.scenes import BACKGROUNDS, COLOURS, KINDS, PLACES, SIZES, caption, sample_scene

SETTINGS = CONFIG["base"]
PHRASINGS = 4
LABELS = {
    "count": ["1", "2"],
    "background": list(BACKGROUNDS),
    "place": list(PLACES),
    **{f"{item}_kind": list(KINDS) for item in ("first", "last")},
    **{f"{item}_colour": list(COLOURS) for item in ("first", "last")},
    **{f"{item}_size": list(SIZES) for item in ("first", "last")},
}


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer in which each of the world's words is one token; bytes spell all others."""
    corpus = [caption(sample_scene(k), k, crop=k % 9 == 0) + " , . a picture photo of" for k in range(4000)]
    trained = tokenizers.Tokenizer(BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=2000, end_of_word_suffix="</w>", initial_alphabet=bytes_, show_progress=False)
    trained.train_from_iterator([line.replace(",", " ,") for line in corpus], trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    words = list(dict.fromkeys([*bytes_, *(f"{byte}</w>" for byte in bytes_), *("".join(pair) for pair in merges)]))
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    length = CONFIG["text_encoder"]["max_position_embeddings"]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder with fresh weights."""
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = CLIPTextConfig(vocab_size=len(tokenizer), **special, **CONFIG["text_encoder"])
    if DEVICE.type == "cpu":
        config._attn_implementation = "eager"  # its backward pass in bfloat16 is far slower fused, on CPUs
    return CLIPTextModel(config)


def build_scheduler(settings: dict = CONFIG["scheduler"]) -> DDIMScheduler:
    """DDIM over a cosine schedule with its signal-to-noise ratio multiplied, for latents of few pixels."""
    steps = settings["num_train_timesteps"]
    cosine = torch.cos(torch.arange(1, steps + 1, dtype=torch.float64) / (steps + 1) * torch.pi / 2) ** 2
    snr = settings["snr_shift"] * cosine / (1 - cosine)
    alphas = torch.cat([torch.ones(1, dtype=torch.float64), snr / (1 + snr)])
    betas = (1 - alphas[1:] / alphas[:-1]).clamp(max=0.999)
    return DDIMScheduler(
        num_train_timesteps=steps,
        trained_betas=[round(float(beta), 9) for beta in betas],
        prediction_type=settings["prediction_type"],
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=True,
    )


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, rank: int, world: int) -> torch.Tensor:
    """Latents of all training pictures, (N, 16, 16, 16) float16; encoded once, by all processes, and kept."""
    paths = [RUNS / f"latents/{shard:04d}.npy" for shard in range(shard_count())]
    for shard, path in enumerate(paths):
        if not path.exists() and shard % world == rank:
            images, rows = as_images(load_pictures([shard])), []
            with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
                for start in range(0, len(images), 200):
                    batch = images[start : start + 200].to(DEVICE, memory_format=torch.channels_last)
                    rows.append(vae.encode(batch).latent_dist.mode().half().cpu())
            write_array(path, torch.cat(rows).numpy())
            print(f"latents: shard {shard + 1} of {shard_count()}", flush=True)
    if world > 1:
        dist.barrier()
    return torch.cat([torch.from_numpy(np.load(path, allow_pickle=False)) for path in paths])


def tokenise(tokenizer: CLIPTokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of every picture in several phrasings, (N, phrasings, length) int16, and its odds in a batch, (N,)."""
    rows, kinds = [], []
    for index, words in enumerate(load_captions(range(shard_count()))):
        window = words.startswith("close up")
        scene = sample_scene(index)
        rows += [words if window else caption(scene, index + 1_000_000 * k) for k in range(PHRASINGS)]
        kinds.append("window" if window else "pair" if len(scene.items) == 2 else "single")
    ids = tokenizer(rows, padding="max_length", truncation=True, return_tensors="pt").input_ids
    odds = {kind: share / kinds.count(kind) for kind, share in SETTINGS["shares"].items()}
    return ids.to(torch.int16).reshape(-1, PHRASINGS, ids.shape[1]), torch.tensor([odds[kind] for kind in kinds])


def attributes() -> torch.Tensor:
    """What each picture's caption says, (N, attributes) int64, as numbers of LABELS; -100 where it does not say."""
    rows = torch.full((shard_count() * CONFIG["pictures"]["shard"], len(LABELS)), -100)
    for index, words in enumerate(load_captions(range(shard_count()))):
        if not words.startswith("close up"):
            truth = sample_scene(index).truth
            for column, (name, values) in enumerate(LABELS.items()):
                if name in truth:
                    rows[index, column] = values.index(str(truth[name]))
    return rows


class Base(nn.Module):
    """Text encoder and U-Net, trained together, and the head that goes along."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(tokenizer)
        self.unet = UNet2DConditionModel.from_config(CONFIG["unet"])
        self.head = nn.Linear(CONFIG["text_encoder"]["hidden_size"], sum(map(len, LABELS.values())))

    def forward(
        self, z_t: torch.Tensor, timestep: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """V of noisy latents (B, C, 16, 16), timesteps (B,) and token ids (B, length); logits of each attribute."""
        states = self.text_encoder(ids)[0]
        right, left = (
            self.head(states[:, slot]).split([len(values) for values in LABELS.values()], 1) for slot in (-2, -1)
        )
        logits = [right[k] if name.startswith("last") else left[k] for k, name in enumerate(LABELS)]
        return self.unet(z_t, timestep, states).sample, tuple(logits)


def loss_of(
    base: Base,
    scheduler: DDIMScheduler,
    z_0: torch.Tensor,
    ids: torch.Tensor,
    said: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The v-prediction loss of clean latents (B, C, 16, 16) and token ids (B, length), and the head's loss."""
    steps, count = scheduler.config.num_train_timesteps, len(z_0)
    timestep = torch.randint(steps, (count,), generator=generator)
    high = int(count * SETTINGS["high_noise_share"])
    skewed = torch.rand(high, generator=generator) ** 2
    timestep[:high] = (steps - 1 - steps / 4 * skewed).long()
    noise = torch.randn(z_0.shape, generator=generator).to(z_0)
    timestep = timestep.to(z_0.device)
    z_t = scheduler.add_noise(z_0, noise, timestep)
    prediction, logits = base(z_t, timestep, ids)
    heard = torch.stack(
        [cross_entropy(rows.float(), said[:, column], reduction="none") for column, rows in enumerate(logits)]
    )
    return mse_loss(prediction.float(), scheduler.get_velocity(z_0, noise, timestep)), heard.mean()


@torch.no_grad()
def sample_sheet(pipe: StableDiffusionPipeline, path: str) -> None:
    """Twelve held-out prompts at native size, for the eye."""
    prompts = [caption(sample_scene(30_000_000 + k, held_out=True), k) for k in range(12)]
    generator = [torch.Generator().manual_seed(k) for k in range(12)]
    settings = {"num_inference_steps": 25, "guidance_scale": 3.0, "height": 64, "width": 64}
    out = pipe(prompts, generator=generator, output_type="np", **settings)
    rows = [np.concatenate(list(out.images[k : k + 6]), 1) for k in (0, 6)]
    sheet = Image.fromarray((np.concatenate(rows) * 255).astype(np.uint8))
    sheet.resize((1152, 384), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Trains, or goes on where it was cut."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("nccl" if DEVICE.type == "cuda" else "gloo", timeout=timedelta(hours=2))
    torch.manual_seed(SETTINGS["seed"])
    vae = build_autoencoder().eval()
    autoencoder = RUNS / "autoencoder/state.safetensors"
    done = load_state(autoencoder, {"model": vae}, torch.optim.SGD(vae.parameters()))
    if done < CONFIG["autoencoder"]["steps"]:
        raise SystemExit(
            f"{autoencoder} has {done} steps of {CONFIG['autoencoder']['steps']}; run autoencoder.py first"
        )
    latents = encode_pictures(vae, rank, world)
    vae.register_to_config(scaling_factor=round(1.0 / float(latents[:4000].float().std()), 4))
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    (ids, odds), said = tokenise(tokenizer), attributes()
    base = Base(tokenizer).to(DEVICE)
    if DEVICE.type == "cpu":
        base.unet.set_attn_processor(AttnProcessor())  # for the same reason as in the text encoder
    optimizer = Muon(
        base.named_parameters(),
        SETTINGS["learning_rate"],
        SETTINGS["adam_learning_rate"],
        ("embedding.weight", "conv_in", "conv_out", "head"),
        SETTINGS["weight_decay"],
    )
    averaged = Base(tokenizer).to(DEVICE).requires_grad_(False)
    averaged.load_state_dict(base.state_dict())
    pipe = StableDiffusionPipeline(
        vae, averaged.text_encoder, tokenizer, averaged.unet, scheduler, None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    path = RUNS / "base/state.safetensors"
    step = load_state(path, {"base": base, "averaged": averaged}, optimizer)
    average = moving_average(averaged, SETTINGS["ema_decay"], step)
    empty = tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]
    print(f"{sum(p.numel() for p in base.parameters()) / 1e6:.2f}M parameters, {len(tokenizer)} tokens", flush=True)
    began, total, first = time.time(), torch.zeros(2), step
    while step < SETTINGS["steps"]:
        generator = torch.Generator().manual_seed((SETTINGS["seed"] * 1_000_003 + step) * 64 + rank)
        rows = torch.multinomial(odds, SETTINGS["batch_size"] // world, replacement=True, generator=generator)
        words = ids[rows, torch.randint(PHRASINGS, rows.shape, generator=generator)].long()
        dropped = torch.rand(len(rows), generator=generator) < SETTINGS["prompt_dropout"]
        words[dropped] = empty
        heard = said[rows].masked_fill(dropped[:, None], -100)
        z_0 = latents[rows].to(DEVICE).float() * vae.config.scaling_factor
        optimizer.scale_rates(plateau(step, SETTINGS))
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            loss, hearing = loss_of(base, scheduler, z_0, words.to(DEVICE), heard.to(DEVICE), generator)
        optimizer.zero_grad()
        (loss + SETTINGS["hearing_weight"] * hearing).backward()
        if world > 1:
            average_gradients(base)
        nn.utils.clip_grad_norm_(base.parameters(), 1.0)
        optimizer.step()
        average.step(base.parameters())
        total += torch.tensor([loss.item(), hearing.item()])
        step += 1
        if rank:
            continue
        if step % 100 == 0:
            speed = (step - first) * SETTINGS["batch_size"] / (time.time() - began)
            loss, hearing = (total / 100).tolist()
            values = {"step": step, "loss": loss, "hearing": hearing, "samples_per_second": speed}
            log_row(RUNS / "base/curve.csv", **values, rate=plateau(step, SETTINGS))
            total = torch.zeros(2)
        if step % 250 == 0 or step == SETTINGS["steps"]:
            average.copy_to(averaged.parameters())
            save_state(path, step, {"base": base, "averaged": averaged}, optimizer)
        if step % 500 == 0 or step == SETTINGS["steps"]:
            sample_sheet(pipe, str(RUNS / f"base/samples-{step:06d}.png"))
    if rank == 0:
        pipe.to("cpu", torch.float16).save_pretrained(RUNS / "model", safe_serialization=True)


if __name__ == "__main__":
    main()
