"""Step 4: encodes the base model's training pictures, shard by shard, so that training only reads latents.

Their folder is named after the autoencoder's weights, so those of another autoencoder are never used by mistake.

Usage: latents.py [part parts]   several processes share the shards
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import torch
from diffusers import AutoencoderKL

from common import BUNDLED, CONFIG, DEVICE, RUNS, as_images, write_array
from pictures import load, path_of, shards
from selfcascade.base_models.precision import has_bfloat16
from selfcascade.media.images import file_sha256

GROUPS = list(CONFIG["base"]["shares"]["groups"])
MODEL = BUNDLED / "image/vae" if CONFIG["base"]["from_bundled"] else RUNS / "autoencoder/model"
BATCH_PIXELS = 200 * 64**2


@cache
def kind() -> str:
    """Folder of the latents, inside that of the runs."""
    return f"latents/{file_sha256(MODEL / 'diffusion_pytorch_model.safetensors')[:12]}"


def load_autoencoder() -> AutoencoderKL:
    """Loads the trained autoencoder.

    Raises:
        SystemExit: The autoencoder is not trained yet.
    """
    if not MODEL.exists():
        raise SystemExit(f"{MODEL} is missing; run autoencoder.py to its end first")
    return AutoencoderKL.from_pretrained(MODEL, local_files_only=True).eval()


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """Latents (N, C, h, w) float16, of unit variance, of pictures (N, H, W, 3) uint8."""
    rows, count = [], max(1, BATCH_PIXELS // pictures[0, ..., 0].size)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=has_bfloat16(str(DEVICE))):
        for start in range(0, len(pictures), count):
            batch = as_images(pictures[start : start + count]).to(DEVICE)
            mode = vae.encode(batch).latent_dist.mode().float()
            rows.append((mode * vae.config["scaling_factor"]).half().cpu())
    return torch.cat(rows).numpy()


def main(part: int = 0, parts: int = 1) -> None:
    """Encodes the missing shards."""
    vae = load_autoencoder().to(DEVICE)
    for group, world, shard in shards(GROUPS)[part::parts]:
        path = path_of(kind(), group, world, shard, "npy")
        if not path.exists():
            write_array(path, encode(vae, load("pictures", group, world)[shard]))
            print(f"latents: {group} of {world}, shard {shard + 1}", flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
