"""Your own photograph, larger, with new detail in the same composition.

python examples/own_photograph.py PHOTO [--tiny]    with --tiny the bundled model, which needs no download and no GPU
"""

import sys
from pathlib import Path

import torch
from PIL import Image, ImageOps

import selfcascade

TINY = "--tiny" in sys.argv
PHOTO = Path(sys.argv[1])
MODEL = "bundled" if TINY else "stabilityai/stable-diffusion-xl-base-1.0"
PROMPT = "a small green tree in the desert" if TINY else "a small green tree in the desert, photograph"
SETTINGS = {"num_inference_steps": 4} if TINY else {}

cascade = selfcascade.SelfCascade(selfcascade.load_model(MODEL))
photo = ImageOps.exif_transpose(Image.open(PHOTO)).convert("RGB")  # phones store pictures lying on their side

# K says how much may change: lower stays closer to the photograph, higher repaints more.
for pivot_step in (300, 500):
    out = cascade.upscale(
        photo,
        PROMPT,
        scale=2,
        pivot_step=pivot_step,
        generator=torch.Generator().manual_seed(0),
        **SETTINGS,
    )
    larger = out.images[0]
    larger.save(f"{PHOTO.stem}-{larger.width}x{larger.height}-K{pivot_step}.png")
