"""Step 9: trains the motion adapter, and the text encoder on its words, that make a video model of the image model.

The image U-Net and the autoencoder stay as they are. The motion words are added to the tokenizer as tokens of their
own. As in `base.py`, a linear head reads where each object goes off the token at which the U-Net finds that object;
others read off the deep motion modules how far it is gone at each frame. All are thrown away.

Clips come in pairs with the same noise in which everything goes opposite ways, and the loss of the difference counts
more than that of the mean, where all is what cannot be predicted. Most steps are near pure noise, where it is decided
where things go. The first ones see two frames of a clip at their own places in time, later ones four or all 16.
Several processes (`torchrun --nproc-per-node 2 video.py`) share each batch and average their gradients.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AnimateDiffPipeline, MotionAdapter, UNetMotionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from PIL import Image
from safetensors import safe_open
from tokenizers import AddedToken
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm
from transformers import CLIPTextModel, CLIPTokenizer

import selfcascade
from common import (
    CONFIG,
    DEVICE,
    NATIVE,
    RUNS,
    average_gradients,
    load_state,
    log_row,
    moving_average,
    plateau,
    save_state,
    ship,
)
from muon import Muon
from selfcascade.data.scenes.motion import DIRECTIONS, sample_moving_scene
from selfcascade.data.scenes.motion_words import MOTION_WORDS, moving_caption
from selfcascade.data.scenes.poses import HEADINGS
from video_batches import FRAMES, Clips, draw_clips

SETTINGS = CONFIG["video"]
FOLDER = RUNS / "video"
LIMIT = 10.0
LOSSES = ("mean", "difference", "hearing", "shift")
DEEP = ("down_blocks.2", "down_blocks.3", "mid_block", "up_blocks.0", "up_blocks.1")


def build_tokenizer(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    """The image model's, with a token for each word of motion."""
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in MOTION_WORDS])
    return tokenizer


def build_pipeline() -> AnimateDiffPipeline:
    """The image model with motion modules that change nothing yet."""
    image = selfcascade.load_bundled()
    tokenizer = build_tokenizer(image.tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(SETTINGS["seed"])
        image.text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        adapter = MotionAdapter(block_out_channels=image.unet.config.block_out_channels, **SETTINGS["adapter"])
    unet = UNetMotionModel.from_unet2d(image.unet, adapter)
    pipe = AnimateDiffPipeline(image.vae, image.text_encoder, tokenizer, unet, adapter, image.scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(DEVICE)


class Motion(nn.Module):
    """What is trained: the U-Net's motion modules, the text encoder, and the head that goes along."""

    def __init__(self, unet: UNetMotionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        unet.requires_grad_(False)
        modules = {name: module for name, module in unet.named_modules() if name.endswith("motion_modules")}
        self.modules_of_unet = nn.ModuleDict({name.replace(".", "_"): module for name, module in modules.items()})
        self.text_encoder = text_encoder
        self.head = nn.Linear(text_encoder.config.hidden_size, 2 * len(DIRECTIONS))
        deep = {name: module for name, module in modules.items() if name.startswith(DEEP)}
        self.shift_heads = nn.ModuleDict(
            {name.replace(".", "_"): nn.Linear(module[-1].proj_out.out_features, 4) for name, module in deep.items()}
        )
        self.seen: dict[str, Tensor] = {}
        for name, module in deep.items():
            module[-1].register_forward_hook(lambda _, __, out, name=name: self.seen.update({name: out}))
        self.requires_grad_(True)

    def forward(self, ids: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """States (B, length, D) of token ids, and logits of where the first and the last object go."""
        states = self.text_encoder(ids)[0]
        first, _ = self.head(states[:, -1]).chunk(2, 1)
        _, last = self.head(states[:, -2]).chunk(2, 1)
        return states, (first, last)

    def shift_loss(self, said: Tensor, places: Tensor) -> Tensor:
        """How far off the U-Net's last pass is in where the first and the last object are gone at each frame."""
        known = said >= 0
        headings = torch.tensor([HEADINGS[direction] for direction in DIRECTIONS]).to(places.device)
        way = (places - (FRAMES - 1) / 2) / (FRAMES / 2)
        target = headings[said.clamp(min=0)][:, None] * way[None, :, None, None]  # (B, F, 2, 2)
        losses = []
        for name, out in self.seen.items():
            pooled = layer_norm(out.float().mean((2, 3)), out.shape[1:2])
            told = self.shift_heads[name.replace(".", "_")](pooled).float().reshape(target.shape)
            losses.append((told - target).square().mean((1, 3))[known].sum() / known.sum().clamp(min=1))
        return torch.stack(losses).mean()


@contextmanager
def at_places(unet: UNetMotionModel, places: Tensor) -> Iterator[None]:
    """Within it the frames that the U-Net sees stand at these places of a clip, not at 0, 1, 2, ..."""
    embeddings = [module for module in unet.modules() if isinstance(module, SinusoidalPositionalEmbedding)]
    whole = [embedding.pe for embedding in embeddings]
    for embedding in embeddings:
        embedding.pe = embedding.pe[:, places]
    try:
        yield
    finally:
        for embedding, pe in zip(embeddings, whole, strict=True):
            embedding.pe = pe


def loss_of(
    motion: Motion, pipe: AnimateDiffPipeline, batch: Clips, high_noise_share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The v-prediction loss of the mean and of half the difference of each pair; the heads' on text and U-Net."""
    scheduler, z_0 = pipe.scheduler, batch.latents * pipe.vae.config.scaling_factor
    steps, scenes = scheduler.config.num_train_timesteps, len(z_0) // 2
    timestep = torch.randint(steps, (scenes,), generator=generator)
    high = torch.rand(scenes, generator=generator) < high_noise_share
    skewed = (steps - 1 - steps / 4 * torch.rand(scenes, generator=generator) ** 2).long()
    timestep = torch.where(high, skewed, timestep)
    noise = torch.randn((scenes, *z_0.shape[1:]), generator=generator)
    timestep, noise = (value.to(z_0.device).repeat_interleave(2, 0) for value in (timestep, noise))
    z_t = scheduler.add_noise(z_0, noise, timestep)
    states, logits = motion(batch.ids)
    with at_places(pipe.unet, batch.places):
        states = states.repeat_interleave(z_0.shape[1], 0)
        prediction = pipe.unet(z_t.transpose(1, 2), timestep, states).sample.transpose(1, 2)
    error = prediction.float() - scheduler.get_velocity(z_0, noise, timestep)
    mean, half = (error[::2] + error[1::2]) / 2, (error[::2] - error[1::2]) / 2
    heard = [
        cross_entropy(rows.float(), batch.said[:, column], ignore_index=-100, reduction="sum")
        for column, rows in enumerate(logits)
    ]
    hearing = torch.stack(heard).sum() / (batch.said >= 0).sum().clamp(min=1)
    return mean.square().mean(), half.square().mean(), hearing, motion.shift_loss(batch.said, batch.places)


@torch.no_grad()
def sample_sheet(pipe: AnimateDiffPipeline, path: str, count: int = 4) -> None:
    """Held-out prompts at native size, every second frame, for the eye."""
    rows = []
    for index in range(count):
        words = moving_caption(sample_moving_scene(51_000_000 + index, held_out=True), index)
        generator = torch.Generator().manual_seed(index)
        size = {"height": NATIVE, "width": NATIVE, "num_frames": FRAMES}
        out = pipe(words, **size, num_inference_steps=25, guidance_scale=3.0, generator=generator, output_type="np")
        rows.append(np.concatenate(list(out.frames[0][::2]), 1))
        print(f"video: {path} row {index + 1}: {words}", flush=True)
    sheet = Image.fromarray((np.concatenate(rows) * 255).astype(np.uint8))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(path)


class Parts:
    """What the video pipeline has of its own, as one thing that `ship` saves."""

    def __init__(self, pipe: AnimateDiffPipeline) -> None:
        self.pipe = pipe.to("cpu", torch.float16)

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        """Writes a folder for each."""
        self.pipe.unet.save_motion_modules(folder / "motion_adapter")  # as float32, whatever the U-Net is
        adapter = MotionAdapter.from_pretrained(folder / "motion_adapter").half()
        adapter.save_pretrained(folder / "motion_adapter", safe_serialization=safe_serialization)
        self.pipe.text_encoder.save_pretrained(folder / "text_encoder")
        self.pipe.tokenizer.save_pretrained(folder / "tokenizer")


def export() -> None:
    """Ships the averaged weights of the last checkpoint."""
    pipe = build_pipeline()
    averaged = Motion(pipe.unet, pipe.text_encoder)
    with safe_open(FOLDER / "state.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.startswith("averaged/")]  # noqa: SIM118
        averaged.load_state_dict({name.removeprefix("averaged/"): file.get_tensor(name) for name in names})
    ship("video", Parts(pipe), LIMIT)


def main() -> None:
    """Trains, or goes on where it was cut; exports at the end."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("nccl" if DEVICE.type == "cuda" else "gloo", timeout=timedelta(hours=2))
    torch.manual_seed(SETTINGS["seed"])
    FOLDER.mkdir(parents=True, exist_ok=True)
    pipe, averaged_pipe = build_pipeline(), build_pipeline()
    motion, averaged = (Motion(one.unet, one.text_encoder).to(DEVICE) for one in (pipe, averaged_pipe))
    averaged.load_state_dict(motion.state_dict())
    averaged.requires_grad_(False)
    if DEVICE.type == "cpu":
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.unet.set_attn_processor(AttnProcessor())  # its backward pass in bfloat16 is far slower fused, on CPUs
    optimizer = Muon(
        motion.named_parameters(), SETTINGS["learning_rate"], SETTINGS["adam_learning_rate"],
        ("text_encoder", "head", "pos_embed"), SETTINGS["weight_decay"],
    )  # fmt: skip
    state = FOLDER / "state.safetensors"
    step = load_state(state, {"motion": motion, "averaged": averaged}, optimizer)
    average = moving_average(averaged, SETTINGS["ema_decay"], step)
    print(f"{sum(p.numel() for p in motion.modules_of_unet.parameters()) / 1e6:.2f}M parameters", flush=True)
    began, total = time.time(), torch.zeros(4)
    weights = torch.tensor([SETTINGS[f"{name}_weight"] for name in LOSSES], device=DEVICE)
    while step < SETTINGS["steps"]:
        generator = torch.Generator().manual_seed((SETTINGS["seed"] * 1_000_003 + step) * 64 + rank)
        early, late = SETTINGS["early"], SETTINGS["late"]
        turn = early if step < SETTINGS["early_steps"] else late[step % len(late)]
        count, frames = turn["scenes"] // world, turn["frames"]
        number = 1000 * step + count * rank
        batch = draw_clips(pipe, count, number, frames, SETTINGS["prompt_dropout"], generator)
        optimizer.scale_rates(plateau(step, SETTINGS, 0.02))
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            losses = torch.stack(loss_of(motion, pipe, batch, turn["high_noise_share"], generator))
        optimizer.zero_grad()
        (losses * weights).sum().backward()
        if world > 1:
            average_gradients(motion)
        nn.utils.clip_grad_norm_(motion.parameters(), 1.0)
        optimizer.step()
        average.step(motion.parameters())
        total += losses.detach().cpu()
        step += 1
        if rank:
            continue
        if step % 50 == 0:
            means = {name: value / 50 for name, value in zip(LOSSES, total.tolist(), strict=True)}
            speed = 50 * world * count / (time.time() - began)
            row = {"step": step, **means, "pairs_per_second": speed, "rate": plateau(step, SETTINGS, 0.02)}
            log_row(FOLDER / "curve.csv", **row)
            total, began = torch.zeros(4), time.time()
        if step % 100 == 0 or step == SETTINGS["steps"]:
            average.copy_to(averaged.parameters())
            save_state(state, step, {"motion": motion, "averaged": averaged}, optimizer)
        if step % 500 == 0 or step == SETTINGS["steps"]:
            sample_sheet(averaged_pipe, str(FOLDER / f"samples-{step:06d}.png"))
    if rank == 0:
        export()


if __name__ == "__main__":
    export() if sys.argv[1:] == ["export"] else main()
