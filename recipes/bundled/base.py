"""Step 5: trains the text encoder and the U-Net on the autoencoder's latents, of all worlds.

During training, a linear head reads the first object's attributes from the text encoder's last padding token, and the
last object's from the one before; the head is discarded. So the encoder learns which colour belongs to which object
long before the U-Net could teach it, and the U-Net finds each object at its own token.

Usage: base.py            train, or resume; `torchrun --nproc-per-node N base.py` shares each batch
       base.py average W  write the model of the weights' average of width W, 0.01 to 0.25 (`averages.py`)
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTokenizer

from averages import TRACKED, averaged_weights
from base_batches import Batch, Batches, draw_timesteps, loss_weights
from common import BUNDLED, CONFIG, DEVICE, NATIVE, RUNS, training_of
from latents import load_autoencoder
from loop import Draw
from schedules import build_scheduler
from selfcascade.base_models.precision import has_bfloat16
from texts import NOT_SAID, build_text_encoder, build_tokenizer, with_world
from worlds import WORLDS, labels

SETTINGS = CONFIG["base"]
FOLDER = RUNS / "base"
SHEET_EVERY = 2000


class Base(nn.Module):
    """Text encoder and U-Net, trained together, and the auxiliary head."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(tokenizer)
        self.unet = UNet2DConditionModel.from_config(CONFIG["unet"])
        if DEVICE.type == "cpu" and has_bfloat16("cpu"):
            self.unet.set_attn_processor(AttnProcessor())  # for the same reason as in the text encoder
        self.sizes = {name: len(words) for name, words in labels().items()}
        self.head = nn.Linear(CONFIG["text_encoder"]["hidden_size"], sum(self.sizes.values()))

    def forward(self, z_t: Tensor, timestep: Tensor, ids: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """V of noisy latents (B, C, h, w), timesteps (B,) and token ids (B, length); logits of each attribute."""
        states, logits = self.hear(ids)
        z_t = z_t.contiguous(memory_format=torch.channels_last)  # faster on CPUs
        return self.unet(z_t, timestep, states).sample, logits

    def hear(self, ids: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """States of token ids (B, length), and logits of each attribute."""
        states = self.text_encoder(ids)[0]
        last, first = (self.head(states[:, slot]).split(list(self.sizes.values()), 1) for slot in (-2, -1))
        return states, tuple(last[k] if name.startswith("last") else first[k] for k, name in enumerate(self.sizes))


class Listener(nn.Module):
    """The text encoder and the auxiliary head of a base, which it shares."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        self.text_encoder, self.head, self.hear = base.text_encoder, base.head, base.hear

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        """Logits of each attribute."""
        return self.hear(ids)[1]


@torch.no_grad()
def start_from_bundled(base: Base, tokenizer: CLIPTokenizer) -> None:
    """Gives a base the bundled one's weights; words that the bundled one does not know keep fresh embeddings."""
    bundled = StableDiffusionPipeline.from_pretrained(BUNDLED / "image", dtype=torch.float32, local_files_only=True)
    base.unet.load_state_dict(bundled.unet.state_dict())
    weights, name = bundled.text_encoder.state_dict(), "embeddings.token_embedding.weight"
    name = next(own for own in weights if own.endswith(name))
    table = base.text_encoder.state_dict()[name].clone()
    known = bundled.tokenizer.get_vocab()
    for word, index in tokenizer.get_vocab().items():
        if word in known:
            table[index] = weights[name][known[word]]
    base.text_encoder.load_state_dict({**weights, name: table})


def hearing_loss(logits: tuple[Tensor, ...], told: Tensor) -> Tensor:
    """The head's cross-entropy, the mean over attributes that occur in a caption of the batch (B, attributes)."""
    losses = [
        cross_entropy(rows.float(), told[:, column], ignore_index=NOT_SAID)
        for column, rows in enumerate(logits)
        if bool((told[:, column] != NOT_SAID).any())
    ]
    return torch.stack(losses).mean() if losses else sum(rows.sum() for rows in logits) * 0.0


def losses_of(
    module: nn.Module, scheduler: DDIMScheduler, batch: Batch, generator: torch.Generator
) -> dict[str, Tensor]:
    """The weighted v-prediction loss of a batch, and the head's."""
    device = next(module.parameters()).device
    z_0 = batch.latents.to(device)
    timestep = draw_timesteps(len(z_0), scheduler.config["num_train_timesteps"], generator).to(device)
    noise = torch.randn(z_0.shape, generator=generator).to(device)
    z_t = scheduler.add_noise(z_0, noise, timestep)
    prediction, logits = module(z_t, timestep, batch.ids.to(device))
    error = (prediction.float() - scheduler.get_velocity(z_0, noise, timestep)).square().mean((1, 2, 3))
    weights = loss_weights(scheduler.alphas_cumprod, timestep).to(device)
    denoising, hearing = (error * weights).mean(), hearing_loss(logits, batch.told.to(device))
    return {"loss": denoising + SETTINGS["hearing_weight"] * hearing, "denoising": denoising, "hearing": hearing}


def learn_words(base: Base, batches: Batches) -> bool:
    """Trains the text encoder alone to tell what captions say, so that the U-Net meets words that mean something.

    Returns:
        Whether the training is finished.
    """

    def loss_of(module: nn.Module, draw: Draw) -> dict[str, Tensor]:
        ids, told = batches.captions(draw)
        return {"loss": hearing_loss(module(ids.to(DEVICE)), told.to(DEVICE))}

    return training_of("words", Listener(base), ("embedding.weight", "head"), loss_of).run()


def build_pipeline(base: Base, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The pipeline that ships; it shares the networks rather than copying them."""
    pipe = StableDiffusionPipeline(
        load_autoencoder().to(DEVICE), base.text_encoder, tokenizer, base.unet, build_scheduler(CONFIG["scheduler"]),
        None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def sample_sheet(pipe: StableDiffusionPipeline, path: str, columns: int = 6) -> None:
    """A sheet of held-out prompts at native size, one row for each world, to look at."""
    rows = []
    for world in WORLDS.values():
        numbers = range(30_000_000, 30_000_000 + columns)
        prompts = [world.caption(world.held_out(k), k, False) for k in numbers]
        if SETTINGS["world_named"]:
            prompts = [with_world(world, prompt) for prompt in prompts]
        generator = [torch.Generator().manual_seed(k) for k in numbers]
        size = {"height": NATIVE, "width": NATIVE}
        out = pipe(prompts, generator=generator, output_type="np", num_inference_steps=25, guidance_scale=3.0, **size)
        rows.append(np.concatenate(list(out.images), 1))
    sheet = Image.fromarray((np.concatenate(rows) * 255).astype(np.uint8))
    sheet.resize((3 * sheet.width, 3 * sheet.height), Image.Resampling.NEAREST).save(path)


def save_model(base: Base, weights: dict[str, Tensor], tokenizer: CLIPTokenizer) -> None:
    """Writes the pipeline with these weights, in half precision."""
    for name, parameter in base.named_parameters():
        parameter.data.copy_(weights[name])
    build_pipeline(base, tokenizer).to("cpu", torch.float16).save_pretrained(RUNS / "model", safe_serialization=True)


def main(what: str = "train", width: str = str(TRACKED[0])) -> None:
    """Trains, or resumes; or writes a model of another average."""
    torch.manual_seed(SETTINGS["seed"])
    tokenizer = build_tokenizer()
    base = Base(tokenizer)
    if what == "average":
        save_model(base, averaged_weights(FOLDER / "averages", float(width)), tokenizer)
        return
    if SETTINGS["from_bundled"]:
        start_from_bundled(base, tokenizer)
    batches, scheduler = Batches(tokenizer), build_scheduler(CONFIG["scheduler"])
    if SETTINGS["from_bundled"] and not learn_words(base, batches):
        return

    def loss_of(module: nn.Module, draw: Draw) -> dict[str, Tensor]:
        return losses_of(module, scheduler, batches.draw(draw), draw.generator)

    def write_sheet(module: nn.Module, path: str) -> None:
        sample_sheet(build_pipeline(module, tokenizer), path)  # type: ignore[arg-type]

    others = "embedding.weight", "conv_in", "conv_out", "head"
    training = training_of("base", base, others, loss_of, write_sheet, SHEET_EVERY)
    print(f"{sum(p.numel() for p in base.parameters()) / 1e6:.2f}M parameters, {len(tokenizer)} tokens", flush=True)
    if training.run() and training.accelerator.is_main_process:
        save_model(base, training.averaged(), tokenizer)


if __name__ == "__main__":
    main(*sys.argv[1:])
