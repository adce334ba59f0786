"""SDXL with a ControlNet at 2048 x 2048: the edges of a picture guide every stage.

python examples/controlnet.py EDGES [--tiny]    with --tiny the bundled model and an untrained ControlNet
"""

import sys

import torch
from diffusers import ControlNetModel, DiffusionPipeline, StableDiffusionControlNetPipeline
from diffusers import StableDiffusionXLControlNetPipeline as SDXLControlNet
from PIL import Image

import selfcascade

EDGES = Image.open(sys.argv[1]).convert("RGB")  # white lines on black, as a Canny filter draws them
PROMPT = "a large red house on the left at night"


def sdxl() -> DiffusionPipeline:
    """SDXL and a ControlNet for edges, from the Hub."""
    control = ControlNetModel.from_pretrained("diffusers/controlnet-canny-sdxl-1.0", dtype=torch.float16)
    base = "stabilityai/stable-diffusion-xl-base-1.0"
    return SDXLControlNet.from_pretrained(base, controlnet=control, dtype=torch.float16).to("cuda")


def tiny() -> DiffusionPipeline:
    """The bundled model and a ControlNet made from its U-Net, which has learnt nothing and changes nothing yet."""
    pipe = selfcascade.load_bundled()
    control = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32, 96))
    return StableDiffusionControlNetPipeline(**pipe.components, controlnet=control)


settings = {"num_inference_steps": 2} if "--tiny" in sys.argv else {}
pipe = tiny() if "--tiny" in sys.argv else sdxl()
out = selfcascade.SelfCascade(pipe)(
    PROMPT,
    scale=2,
    image=EDGES,  # the pipeline's own arguments go to every stage; each resizes the edges to its size
    controlnet_conditioning_scale=0.6,
    generator=torch.Generator().manual_seed(0),
    **settings,
)
out.images[0].save("controlled.png")
