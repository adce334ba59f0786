"""SDXL at 2048 x 2048: look at cheap base samples, choose one, and enlarge exactly that one.

python examples/sdxl_to_2k.py [--tiny]    with --tiny the bundled model instead, which needs no download and no GPU
"""

import sys

import torch

import selfcascade

TINY = "--tiny" in sys.argv
MODEL = "bundled" if TINY else "stabilityai/stable-diffusion-xl-base-1.0"
PROMPT = "a large red house on the left at night" if TINY else "a lighthouse in a storm, oil painting"
SEEDS = (0, 1) if TINY else (0, 1, 2, 3)
CHOSEN = 1  # the place of the sample to enlarge, once you have looked at them
SETTINGS = {"num_inference_steps": 2} if TINY else {}

pipe = selfcascade.load_model(MODEL)  # float16 on a GPU; or a pipeline of your own
cascade = selfcascade.SelfCascade(pipe)

# 1. Base samples at the size the model was trained at.
generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
samples = []
for seed, generator in zip(SEEDS, generators, strict=True):
    base = cascade(PROMPT, scale=1, generator=generator, **SETTINGS)
    base.images[0].save(f"base-{seed}.png")
    samples.append(base.stages[0].latents)

# 2. What the large picture is going to take: a stage a line.
for stage in cascade.plan(scale=2, **SETTINGS):
    print(stage)

# 3. The chosen sample at twice its sides, 4x the pixels: what a single call with its generator would have given.
out = cascade(PROMPT, scale=2, generator=generators[CHOSEN], pivot=samples[CHOSEN], **SETTINGS)
out.images[0].save("large.png")
