"""Files of what can be added to a tiny Stable Diffusion pipeline, as users have them."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# diffusers re-exports lazily, and annotates a class where its subclasses are meant.

from pathlib import Path
from typing import Any

import numpy as np
from diffusers import ControlNetModel, StableDiffusionPipeline
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

from . import TinyPipeline
from .plugins import add_tiny_ip_adapter, add_tiny_lora, ip_adapter_state, tiny_controlnet


def save_plugins(model: TinyPipeline, folder: Path, lora: Path) -> None:
    """Writes a LoRA, style.safetensors, into `lora`; a ControlNet, an IP-Adapter and a picture into `folder`."""
    pipe: Any = add_tiny_lora(model.build())
    layers: dict[str, Any] = get_peft_model_state_dict(pipe.unet)
    StableDiffusionPipeline.save_lora_weights(lora, layers)
    (lora / "pytorch_lora_weights.safetensors").rename(lora / "style.safetensors")
    pipe = model.build()
    controlnet: ControlNetModel = tiny_controlnet(pipe).controlnet
    controlnet.save_pretrained(folder / "controlnet")
    state = ip_adapter_state(pipe)
    tensors = {f"{part}.{name}": value for part, values in state.items() for name, value in values.items()}
    save_file(tensors, folder / "ip.safetensors")
    add_tiny_ip_adapter(pipe)
    pipe.image_encoder.save_pretrained(folder / "image_encoder")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "shown.png")
