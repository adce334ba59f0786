"""Feature upsamplers for the bundled model: trained, saved, loaded, and compared with the tuning-free cascade.

python examples/train_adapter.py [--tiny]    minutes on a CPU; with --tiny two steps, to see that all is in place
"""

import sys

import torch

import selfcascade
from selfcascade.training import TrainingConfig, run_training

TINY = "--tiny" in sys.argv
PROMPT = "a small green tree in the desert"
SETTINGS = {"num_inference_steps": 2} if TINY else {}

config = TrainingConfig(
    method="upsamplers",
    preset="micro",  # a few thousand weights beside the frozen U-Net
    model="bundled",  # a folder in diffusers' format, or a Hub id
    train_data="scenes",  # a folder of pictures with captions, or .tar shards
    resolution=128,
    train_batch_size=1 if TINY else 4,
    max_train_steps=2 if TINY else 200,
    output_dir="runs/micro",
)
trainer = run_training(config, print)
print(f"{trainer.step} steps on {trainer.stream.report}")

# The folder holds config.json, one safetensors file and a model card: all there is to share.
pipe = selfcascade.load_bundled()
upsamplers = selfcascade.FeatureUpsamplers.from_pretrained("runs/micro")
cascade = selfcascade.SelfCascade(pipe, upsamplers=upsamplers)
for strength in (0.0, 1.0):  # 0 is the tuning-free version, bit for bit
    out = cascade(
        PROMPT,
        scale=2,
        upsampler_scale=strength,
        generator=torch.Generator().manual_seed(0),
        **SETTINGS,
    )
    out.images[0].save(f"strength-{strength:g}.png")
