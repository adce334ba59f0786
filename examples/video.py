"""A clip at twice the sides its model was trained at; then that clip, like one of your own, larger once more.

python examples/video.py [--tiny]    with --tiny the bundled video model, which needs no download and no GPU
"""

import sys

import torch

import selfcascade

TINY = "--tiny" in sys.argv
MODEL = "bundled-video" if TINY else "ali-vilab/text-to-video-ms-1.7b"
PROMPT = "a red fish swims to the left"
FRAMES, FPS = (2, 8) if TINY else (16, 8)
SETTINGS = {"num_inference_steps": 2} if TINY else {}

cascade = selfcascade.SelfCascade(selfcascade.load_model(MODEL))


def save(frames: list, name: str) -> None:
    """Animated WebP, every pixel kept; `selfcascade generate --output clip.mp4` writes MP4 too."""
    frames[0].save(name, save_all=True, append_images=frames[1:], duration=1000 // FPS, lossless=True)


# All frames pass through a stage together, so the model's own temporal layers keep them consistent.
generator = torch.Generator().manual_seed(0)
clip = cascade(PROMPT, scale=2, num_frames=FRAMES, generator=generator, **SETTINGS).frames[0]
save(clip, "clip.webp")

# A clip of your own would do as well: a list of PIL images.
if not TINY:
    larger = cascade.upscale(clip, PROMPT, scale=2, generator=generator, **SETTINGS).frames[0]
    save(larger, "larger.webp")
