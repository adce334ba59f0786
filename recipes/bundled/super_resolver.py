"""Step 8: trains the super-resolver, a StableDiffusionUpscalePipeline, on crops of scenes; puts it into the package.

It enlarges 4x a side: from a crop at a quarter of its size, with noise of a random level, and from the whole scene's
caption, the U-Net predicts v of the crop's latents. Autoencoder and text encoder are the bundled model's.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss

import selfcascade
from common import CONFIG, DEVICE, NATIVE, RUNS, as_images, ship, training_of, write_array
from latents import encode
from loop import Draw
from pictures import load, load_said
from schedules import build_scheduler
from selfcascade.models import upscaler_autoencoder
from worlds import WORLDS

SETTINGS = CONFIG["super_resolver"]
FACTOR = 4
FOLDER = RUNS / "super_resolver"
LIMIT = 4  # megabytes


class Crops(NamedTuple):
    """The training data.

    Attributes:
        latents: Latents of the crops, (N, C, h, w) float16.
        small: The crops at a quarter of their size, (N, 3, h, w) uint8.
        ids: Token ids of the whole pictures' captions, (N, length).
    """

    latents: Tensor
    small: Tensor
    ids: Tensor


def load_crops(pipe: StableDiffusionPipeline) -> Crops:
    """Crops of the large pictures of all worlds, encoded once and cached."""
    parts = []
    for world in WORLDS:
        said = load_said(SETTINGS["group"], world)
        for shard, pictures in enumerate(load("pictures", SETTINGS["group"], world)):
            paths = [FOLDER / f"crops/{world}-{shard:04d}-{name}.npy" for name in ("latents", "small")]
            if not all(path.exists() for path in paths):
                crops = cut(pictures, shard)
                small = interpolate(as_images(crops), scale_factor=1 / FACTOR, mode="area")
                write_array(paths[0], encode(pipe.vae, crops))
                write_array(paths[1], small.add(1).mul(127.5).round().byte().numpy())
            first = shard * CONFIG["pictures"]["shard"]
            words = [said[first + index]["captions"][0] for index in range(len(pictures))]
            ids = pipe.tokenizer(words, padding="max_length", truncation=True, return_tensors="pt").input_ids
            arrays = [torch.from_numpy(np.load(path, allow_pickle=False)) for path in paths]
            parts.append((*arrays, ids.repeat_interleave(SETTINGS["crops_per_picture"], 0)))
    return Crops(*(torch.cat(column) for column in zip(*parts, strict=True)))


def cut(pictures: np.ndarray, seed: int) -> np.ndarray:
    """Crops (N * crops_per_picture, crop, crop, 3) at random places of pictures (N, H, W, 3)."""
    crop, each = SETTINGS["crop"], SETTINGS["crops_per_picture"]
    generator = torch.Generator().manual_seed(SETTINGS["seed"] * 1_000_003 + seed)
    corners = torch.randint(pictures.shape[1] - crop + 1, (len(pictures), each, 2), generator=generator).tolist()
    return np.stack(
        [
            picture[top : top + crop, left : left + crop]
            for picture, places in zip(pictures, corners, strict=True)
            for top, left in places
        ]
    )


def denoising_loss(
    unet: nn.Module,
    scheduler: DDIMScheduler,
    low_res_scheduler: DDPMScheduler,
    z_0: Tensor,
    small: Tensor,
    states: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The v-prediction loss; small (B, 3, h, w) in [-1, 1]; text states (B, length, C)."""
    count = len(z_0)
    timestep = torch.randint(scheduler.config.num_train_timesteps, (count,), generator=generator)
    # Squared: most pictures to enlarge have little noise.
    level = (SETTINGS["unet"]["num_class_embeds"] * torch.rand(count, generator=generator) ** 2).long()
    noise, blur = (torch.randn(part.shape, generator=generator).to(part) for part in (z_0, small))
    timestep, level = timestep.to(z_0.device), level.to(z_0.device)
    given = [scheduler.add_noise(z_0, noise, timestep), low_res_scheduler.add_noise(small, blur, level)]
    prediction = unet(torch.cat(given, 1), timestep, states, class_labels=level).sample
    return mse_loss(prediction.float(), scheduler.get_velocity(z_0, noise, timestep))


@torch.no_grad()
def sample_sheet(pipe: StableDiffusionUpscalePipeline, path: str) -> None:
    """A sheet of four held-out scenes to look at: enlarged without a model, by the model, and the real render."""
    rows, world = [], WORLDS["scene"]
    for number in range(31_000_000, 31_000_004):
        scene = world.held_out(number)
        pictures = (world.render(scene, side, side, None) for side in (NATIVE, FACTOR * NATIVE))
        small, large = (Image.fromarray((picture * 255).astype(np.uint8)) for picture in pictures)
        words, generator = world.caption(scene, number, False), torch.Generator().manual_seed(number)
        made = pipe(words, small, num_inference_steps=25, guidance_scale=3.0, generator=generator).images[0]
        rows.append(np.concatenate([np.asarray(p) for p in (small.resize(large.size), made, large)], 0))
    Image.fromarray(np.concatenate(rows, 1)).save(path)


def build_pipeline(bundled: StableDiffusionPipeline, unet: UNet2DConditionModel) -> StableDiffusionUpscalePipeline:
    """The pipeline that ships, with the trained U-Net."""
    pipe = StableDiffusionUpscalePipeline(
        upscaler_autoencoder(bundled.vae),
        bundled.text_encoder,
        bundled.tokenizer,
        unet,
        DDPMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="scaled_linear"),
        build_scheduler(SETTINGS["scheduler"]),
        max_noise_level=SETTINGS["unet"]["num_class_embeds"] - 1,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Parts:
    """The super-resolver's own parts, as one object that `ship` saves."""

    def __init__(self, pipe: StableDiffusionUpscalePipeline) -> None:
        self.pipe = pipe.to("cpu", torch.float16)

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        """Writes one folder for each part."""
        self.pipe.unet.save_pretrained(folder / "unet", safe_serialization=safe_serialization)
        self.pipe.scheduler.save_pretrained(folder / "scheduler")
        self.pipe.low_res_scheduler.save_pretrained(folder / "low_res_scheduler")


def main() -> None:
    """Trains, or resumes; exports at the end."""
    torch.manual_seed(SETTINGS["seed"])
    bundled = selfcascade.load_bundled().to(DEVICE)
    crops, unet = load_crops(bundled), UNet2DConditionModel.from_config(SETTINGS["unet"])
    pipe = build_pipeline(bundled, unet)
    empty = bundled.tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]

    def loss_of(module: nn.Module, draw: Draw) -> dict[str, Tensor]:
        rows = torch.randint(len(crops.latents), (draw.count,), generator=draw.generator)
        words = crops.ids[rows]
        words[torch.rand(len(rows), generator=draw.generator) < SETTINGS["prompt_dropout"]] = empty
        with torch.no_grad():
            states = bundled.text_encoder(words.to(DEVICE))[0]
        z_0, seen = crops.latents[rows].to(DEVICE).float(), crops.small[rows].to(DEVICE).float() / 127.5 - 1
        loss = denoising_loss(module, pipe.scheduler, pipe.low_res_scheduler, z_0, seen, states, draw.generator)
        return {"loss": loss}

    others = "class_embedding", "conv_in", "conv_out"
    training = training_of("super_resolver", unet, others, loss_of, lambda _, path: sample_sheet(pipe, path))
    print(f"{sum(p.numel() for p in unet.parameters()) / 1e6:.2f}M parameters", flush=True)
    if training.run() and training.accelerator.is_main_process:
        for name, weight in unet.named_parameters():
            weight.data.copy_(training.averaged()[name])
        ship("super_resolver", Parts(pipe), LIMIT)


if __name__ == "__main__":
    main()
