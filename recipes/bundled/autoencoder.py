"""Step 2: trains the AutoencoderKL on pictures of every size.

A share of each batch is decoded from *resized* latents and compared with the resized picture, so that up-sampling in
latent space (the paper's phi) stays on the decoder's manifold (the equivariance of EQ-VAE, Kouzelis et al. 2025).
"""

from __future__ import annotations

import time

import torch
from diffusers import AutoencoderKL
from torch.nn.functional import interpolate, l1_loss, mse_loss

from common import CONFIG, DEVICE, RUNS, as_images, load_pictures, load_state, log_row, rate, save_state

SETTINGS = CONFIG["autoencoder"]


def build() -> AutoencoderKL:
    """The autoencoder with fresh weights."""
    return AutoencoderKL.from_config(SETTINGS["model"]).to(DEVICE, memory_format=torch.channels_last)


def losses(model: AutoencoderKL, images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(reconstruction, kl) of a batch: pictures as they are, and some through halved or doubled latents."""
    resized = round(len(images) * SETTINGS["resized_share"])
    plain, shrunk, grown = images.split([len(images) - resized, resized // 2, resized - resized // 2])
    halved = interpolate(grown, scale_factor=0.5, mode="area")
    reconstruction, kl = torch.zeros((), device=DEVICE), torch.zeros((), device=DEVICE)
    for part, factor, target in (
        (plain, None, plain),
        (shrunk, 0.5, interpolate(shrunk, scale_factor=0.5, mode="area")),
        (halved, 2.0, interpolate(halved, scale_factor=2.0, mode="bicubic").clamp(-1, 1)),
    ):
        posterior = model.encode(part).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        z = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator).to(DEVICE)
        if factor is not None:
            z = interpolate(z, scale_factor=factor, mode="bilinear")
        decoded = model.decode(z).sample.float()
        share = len(part) / len(images)
        reconstruction = reconstruction + share * (mse_loss(decoded, target) + 0.05 * l1_loss(decoded, target))
        kl = kl + share * 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    return reconstruction, kl


def main() -> None:
    """Trains, or goes on where it was cut."""
    torch.manual_seed(SETTINGS["seed"])
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=SETTINGS["learning_rate"], betas=(0.9, 0.99), weight_decay=0)
    pictures = load_pictures(range(4))
    path = RUNS / "autoencoder/state.safetensors"
    step, began = load_state(path, {"model": model}, optimizer), time.time()
    while step < SETTINGS["steps"]:
        generator = torch.Generator().manual_seed(SETTINGS["seed"] * 1_000_003 + step)
        rows = torch.randint(len(pictures), (SETTINGS["batch_size"],), generator=generator).numpy()
        for group in optimizer.param_groups:
            group["lr"] = SETTINGS["learning_rate"] * rate(step, SETTINGS["steps"], SETTINGS["warmup"])
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            reconstruction, kl = losses(model, as_images(pictures[rows]).to(DEVICE), generator)
        optimizer.zero_grad()
        (reconstruction + SETTINGS["kl_weight"] * kl).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            log_row(
                RUNS / "autoencoder/curve.csv",
                step=step,
                seconds=time.time() - began,
                reconstruction=reconstruction.item(),
                kl=kl.item(),
            )
        if step % 200 == 0 or step == SETTINGS["steps"]:
            save_state(path, step, {"model": model}, optimizer)


if __name__ == "__main__":
    main()
