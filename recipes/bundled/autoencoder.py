"""Step 2: trains the AutoencoderKL on pictures of every size, and on enlarged latents.

A share of each batch is decoded from *enlarged* latents and compared with the picture enlarged alike, so that
up-sampling in latent space (the paper's phi) stays on the decoder's manifold (the equivariance of EQ-VAE, Kouzelis et
al. 2025). Axis letters: B pictures, C channels, h, w latent pixels.

Usage: autoencoder.py [train [FOLDER]]   FOLDER: an AutoencoderKL to start from instead of fresh weights
       autoencoder.py measure FOLDER     its figures on held-out renders of every world, as JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.functional import interpolate, l1_loss

from common import CONFIG, RUNS, as_images
from loop import Draw, Schedule, Training
from optimizers import make_optimizers
from pictures import load
from worlds import WORLDS

SETTINGS = CONFIG["autoencoder"]
FOLDER = RUNS / "autoencoder"
CROP = 64
FACTORS = (2.0, 2.0, 2.0, 1.5, 3.0, 4.0)  # of enlargement; most stages of a cascade enlarge by 2
HELD_OUT = {64: 64, 128: 24, 256: 8}  # number of measured pictures of each side
HELD_OUT_FIRST = 33_000_000
MEASURED_PIXELS = 64 * CROP**2  # of held-out pictures, at each size
UNUSED_DEVIATION = 0.3  # channels whose posterior is wider tell the decoder nothing


class Autoencoder(nn.Module):
    """The autoencoder with its loss."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor, windows: Tensor) -> dict[str, Tensor]:
        """Losses of images (B, 3, H, W) in [-1, 1].

        Args:
            images: Square images.
            noise: Noise of the posterior, (B, C, h, w).
            windows: For each of the last pictures, which are decoded enlarged: the factor, and the place of a window of
                the latents' own size as fractions, (enlarged, 3).
        """
        posterior = self.vae.encode(images).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        z = mean + torch.exp(0.5 * logvar) * noise
        plain = len(images) - len(windows)
        parts, targets = [z[:plain]], [images[:plain]]
        for row, (factor, top, left) in enumerate(windows.tolist(), plain):
            part, target = enlarged_window(z[row : row + 1], images[row : row + 1], factor, top, left)
            parts.append(part)
            targets.append(target)
        decoded, target = self.vae.decode(torch.cat(parts)).sample.float(), torch.cat(targets)
        error = (decoded - target).square().mean((1, 2, 3))
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        loss = error.mean() + SETTINGS["l1_weight"] * l1_loss(decoded, target) + SETTINGS["kl_weight"] * kl
        return {"loss": loss, "plain": error[:plain].mean(), "enlarged": error[plain:].mean(), "kl": kl}


def enlarged_window(z: Tensor, image: Tensor, factor: float, top: float, left: float) -> tuple[Tensor, Tensor]:
    """A window of enlarged latents (1, C, h, w), and the same window of the enlarged picture (1, 3, H, W)."""
    size, scale = z.shape[-1], image.shape[-1] // z.shape[-1]
    side = round(size * factor)
    row, column = (int(place * (side - size + 1)) for place in (top, left))
    large = interpolate(z, size=(side, side), mode="bilinear")
    shown = interpolate(image, size=(scale * side, scale * side), mode="bicubic").clamp(-1, 1)
    return (
        large[..., row : row + size, column : column + size],
        shown[..., scale * row : scale * (row + size), scale * column : scale * (column + size)],
    )


@torch.no_grad()
def wake_unused_channels(vae: AutoencoderKL, images: Tensor, generator: torch.Generator) -> list[int]:
    """Gives fresh weights to latent channels that the KL term has made unused, and returns the channels.

    The encoder's weights are random, and the decoder's are almost zero at first.
    """
    posterior, channels = vae.encode(images).latent_dist, vae.config["latent_channels"]
    wide = posterior.logvar.mul(0.5).exp().mean((0, 2, 3)) > UNUSED_DEVIATION
    unused = wide.nonzero().flatten().tolist()
    encoder, quant, post, decoder = vae.encoder.conv_out, vae.quant_conv, vae.post_quant_conv, vae.decoder.conv_in
    for channel in unused:
        look = torch.randn(encoder.weight[channel].shape, generator=generator)
        encoder.weight[channel] = look / look.norm()
        encoder.bias[channel] = 0.0
        for row, bias in ((channel, 0.0), (channels + channel, -6.0)):
            quant.weight[row], quant.bias[row] = 0.0, bias
        quant.weight[channel, channel] = 1.0
        post.weight[:, channel] = 0.0
        post.weight[channel, channel] = 1.0
        seen = torch.randn(decoder.weight[:, channel].shape, generator=generator)
        decoder.weight[:, channel] = 0.1 * decoder.weight.std() * seen
    if unused:
        mean = vae.encode(images).latent_dist.mean
        used = [channel for channel in range(channels) if channel not in unused]
        wanted = mean[:, used].std()
        for channel in unused:
            factor = wanted / mean[:, channel].std()
            encoder.weight[channel] *= factor
            encoder.bias[channel] -= mean[:, channel].mean() * factor
    return unused


@cache
def pools(held_out: bool) -> list[list[list[np.ndarray]]]:
    """Pictures of each world and size, in shards; the last shard is held out of training."""
    part = slice(-1, None) if held_out else slice(None, -1)
    return [[load("pictures", group, world)[part] for group in SETTINGS["groups"]] for world in WORLDS]


def draw_crops(count: int, generator: torch.Generator) -> np.ndarray:
    """Crops (count, 64, 64, 3) uint8 of pictures of all worlds and sizes, mirrored or not."""
    crops, worlds = [], pools(False)
    for _ in range(count):
        groups = worlds[int(torch.randint(len(worlds), (), generator=generator))]
        shards = groups[int(torch.randint(len(groups), (), generator=generator))]
        shard = shards[int(torch.randint(len(shards), (), generator=generator))]
        whole = shard[int(torch.randint(len(shard), (), generator=generator))]
        top, left = torch.randint(len(whole) - CROP + 1, (2,), generator=generator).tolist()
        crop = whole[top : top + CROP, left : left + CROP]
        crops.append(crop[:, ::-1] if torch.rand((), generator=generator) < 0.5 else crop)
    return np.stack(crops)


def loss_of(module: nn.Module, draw: Draw) -> Mapping[str, Tensor]:
    """The losses of a batch of crops."""
    images = as_images(draw_crops(draw.count, draw.generator))
    size = CROP // 2 ** (len(SETTINGS["model"]["block_out_channels"]) - 1)
    noise = torch.randn((draw.count, SETTINGS["model"]["latent_channels"], size, size), generator=draw.generator)
    windows = torch.rand((round(draw.count * SETTINGS["enlarged_share"]), 3), generator=draw.generator)
    windows[:, 0] = torch.tensor(FACTORS)[(windows[:, 0] * len(FACTORS)).long()]
    device = next(module.parameters()).device
    return module(images.to(device), noise.to(device), windows)


def decibels(error: Tensor) -> float:
    """PSNR in dB of squared errors of values in [-1, 1]: of their mean, so that bad pictures count."""
    return float(-10 * (error.mean() / 4).log10())


@torch.no_grad()
def measure(vae: AutoencoderKL, pictures: np.ndarray, enlarge: bool = True) -> dict[str, float]:
    """PSNR in dB of pictures (N, H, W, 3) uint8, uncropped.

    Returns:
        `round_trip`; and of latents enlarged twice a side, decoded, to the picture enlarged twice: `enlarged`.
    """
    plain, twice = [], []
    for part in np.array_split(pictures, -(-len(pictures) // 8)):
        image = as_images(part).to(vae.device)
        z = vae.encode(image).latent_dist.mode()
        plain.append((vae.decode(z).sample.clamp(-1, 1) - image).square().mean((1, 2, 3)))
        if enlarge:
            large = vae.decode(interpolate(z, scale_factor=2, mode="bilinear")).sample.clamp(-1, 1)
            target = interpolate(image, scale_factor=2, mode="bicubic").clamp(-1, 1)
            twice.append((large - target).square().mean((1, 2, 3)))
    figures = {"round_trip": decibels(torch.cat(plain))}
    return figures | ({"enlarged": decibels(torch.cat(twice))} if enlarge else {})


def validate(step: int, module: nn.Module) -> dict[str, float]:
    """Both figures on held-out pictures of every world and size."""
    figures = {}
    for world, groups in zip(WORLDS, pools(True), strict=True):
        for group, (shard,) in zip(SETTINGS["groups"], groups, strict=True):
            side = CONFIG["pictures"]["groups"][group]["side"]
            found = measure(module.vae, shard[: MEASURED_PIXELS // side**2])  # type: ignore[arg-type]
            figures |= {f"{world}_{side}_{name}": value for name, value in found.items()}
    return figures


def build(folder: str | None = None) -> AutoencoderKL:
    """The autoencoder with fresh weights, or that of a folder with all its channels awake."""
    if folder is None:
        return AutoencoderKL.from_config(SETTINGS["model"])
    vae = AutoencoderKL.from_pretrained(folder, local_files_only=True, torch_dtype=torch.float32)
    generator = torch.Generator().manual_seed(SETTINGS["seed"])
    woken = wake_unused_channels(vae, as_images(draw_crops(16, generator)), generator)
    print(f"channels that were unused: {woken}", flush=True)
    return vae


@torch.no_grad()
def scaling_factor(vae: AutoencoderKL, pictures: np.ndarray) -> float:
    """The factor that gives latents of pictures (N, H, W, 3) unit variance about 0."""
    squares = [
        vae.encode(as_images(part).to(vae.device)).latent_dist.mode().square().mean((1, 2, 3))
        for part in np.array_split(pictures, -(-len(pictures) // 50))
    ]
    return round(float(torch.cat(squares).mean() ** -0.5), 4)


def measure_held_out(folder: str) -> dict[str, dict[str, float]]:
    """Figures of an AutoencoderKL on held-out renders, by world and side; 256 pixels are not enlarged further."""
    vae = AutoencoderKL.from_pretrained(folder, local_files_only=True, torch_dtype=torch.float32)
    found: dict[str, dict[str, float]] = {}
    for name, world in WORLDS.items():
        for side, count in HELD_OUT.items():
            drawn = (world.render(world.held_out(HELD_OUT_FIRST + k), side, side, None) for k in range(count))
            pictures = np.stack([(picture * 255).round().astype(np.uint8) for picture in drawn])
            figures = measure(vae, pictures, enlarge=side < max(HELD_OUT))
            found[f"{name} {side}"] = {key: round(value, 2) for key, value in figures.items()}
            print(name, side, found[f"{name} {side}"], file=sys.stderr, flush=True)
    return found


def train(folder: str | None = None) -> None:
    """Trains, or resumes; then writes the averaged weights and their scaling factor."""
    torch.manual_seed(SETTINGS["seed"])
    rates = SETTINGS["learning_rate"], SETTINGS["adam_learning_rate"]
    training = Training(
        FOLDER,
        Autoencoder(build(folder)),
        lambda module: make_optimizers(module, *rates, ("encoder.conv_in", "decoder.conv_out")),
        Schedule.of(SETTINGS),
        loss_of,
        validate,
    )
    if training.run() and training.accelerator.is_main_process:
        vae = training.module.vae
        for name, value in training.averaged().items():
            vae.get_parameter(name.removeprefix("vae.")).data.copy_(value)
        vae.half().float()
        natives = np.concatenate([load("pictures", SETTINGS["groups"][0], world)[0][:1000] for world in WORLDS])
        vae.register_to_config(scaling_factor=scaling_factor(vae, natives))
        vae.cpu().save_pretrained(FOLDER / "model")


def main(what: str = "train", *folder: str) -> None:
    """Trains or measures."""
    if what == "measure":
        print(json.dumps(measure_held_out(*folder), indent=1))
    else:
        train(*folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
