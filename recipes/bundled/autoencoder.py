"""Step 2: trains the AutoencoderKL on pictures of every size.

One batch in five is decoded from *resized* latents and compared with the resized picture, so that up-sampling in
latent space (the paper's phi) stays on the decoder's manifold (the equivariance of EQ-VAE, Kouzelis et al. 2025).
"""

from __future__ import annotations

import shutil
import time

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import interpolate, l1_loss, mse_loss

from common import CONFIG, DEVICE, RUNS, as_images, load_pictures, load_state, log_row, plateau, save_state, shard_count
from muon import Muon

SETTINGS = CONFIG["autoencoder"]


def build() -> AutoencoderKL:
    """The autoencoder with fresh weights."""
    return AutoencoderKL.from_config(SETTINGS["model"]).to(DEVICE, memory_format=torch.channels_last)


def losses(
    model: AutoencoderKL, images: torch.Tensor, factor: float | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(reconstruction, kl) of a batch, through latents as they are or resized by `factor`."""
    target = images
    if factor == 0.5:
        target = interpolate(images, scale_factor=0.5, mode="area")
    elif factor == 2:
        images = interpolate(images, scale_factor=0.5, mode="area")
        target = interpolate(images, scale_factor=2.0, mode="bicubic").clamp(-1, 1)
    posterior = model.encode(images).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    z = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator).to(DEVICE)
    if factor is not None:
        z = interpolate(z, scale_factor=factor, mode="bilinear")
    decoded = model.decode(z).sample.float()
    reconstruction = mse_loss(decoded, target) + 0.05 * l1_loss(decoded, target)
    return reconstruction, 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()


@torch.no_grad()
def psnr(model: AutoencoderKL, pictures: np.ndarray) -> float:
    """Mean PSNR of the round trip in dB, pictures (N, 64, 64, 3) uint8."""
    images = as_images(pictures).to(DEVICE)
    decoded = model.decode(model.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return float((-10 * ((images - decoded) / 2).square().mean((1, 2, 3)).log10()).mean())


def main() -> None:
    """Trains, or goes on where it was cut."""
    torch.manual_seed(SETTINGS["seed"])
    model = build()
    optimizer = Muon(
        model.named_parameters(),
        SETTINGS["learning_rate"],
        SETTINGS["adam_learning_rate"],
        ("encoder.conv_in", "decoder.conv_out"),
    )
    pictures, kept_back = load_pictures(range(shard_count() - 1)), load_pictures([shard_count() - 1])[:200]
    path = RUNS / "autoencoder/state.safetensors"
    step, began, total = load_state(path, {"model": model}, optimizer), time.time(), 0.0
    if step < SETTINGS["steps"]:
        shutil.rmtree(RUNS / "latents", ignore_errors=True)  # of an autoencoder that is about to change
    while step < SETTINGS["steps"]:
        generator = torch.Generator().manual_seed(SETTINGS["seed"] * 1_000_003 + step)
        rows = torch.randint(len(pictures), (SETTINGS["batch_size"],), generator=generator).numpy()
        factor = {4: 0.5, 9: 2.0}.get(step % SETTINGS["resized_every"])
        optimizer.scale_rates(plateau(step, SETTINGS))
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            reconstruction, kl = losses(model, as_images(pictures[rows]).to(DEVICE), factor, generator)
        optimizer.zero_grad()
        (reconstruction + SETTINGS["kl_weight"] * kl).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        total += reconstruction.item()
        if step % 200 == 0 or step == SETTINGS["steps"]:
            save_state(path, step, {"model": model}, optimizer)
            log_row(
                RUNS / "autoencoder/curve.csv",
                step=step,
                seconds=time.time() - began,
                reconstruction=total / 200,
                kl=kl.item(),
                psnr=psnr(model, kept_back),
            )
            total = 0.0


if __name__ == "__main__":
    main()
