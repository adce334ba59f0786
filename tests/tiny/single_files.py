"""A tiny Stable Diffusion as one file, with the names that the first releases and most shared checkpoints have."""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def save_single_file(pipe: Any, path: Path) -> Path:
    """Writes the U-Net, the VAE and the text encoder of a Stable Diffusion pipeline into one .safetensors file."""
    tensors: dict[str, Any] = {}
    layers, levels = pipe.unet.config.layers_per_block, len(pipe.vae.config.block_out_channels)
    for name, weight in pipe.unet.state_dict().items():
        tensors[f"model.diffusion_model.{_unet_name(name, layers)}"] = weight
    for name, weight in pipe.vae.state_dict().items():
        tensors[f"first_stage_model.{_vae_name(name, levels)}"] = weight
    for name, weight in pipe.text_encoder.state_dict().items():
        inner = name.removeprefix("text_model.")
        tensors[f"cond_stage_model.transformer.text_model.{inner}"] = weight
    save_file({name: weight.contiguous() for name, weight in tensors.items()}, path)
    return path


def _unet_name(name: str, layers: int) -> str:
    for ours, theirs in UNET.items():
        name = re.sub(rf"^{re.escape(ours)}\b", theirs, name)
    match = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.", name)
    if match is not None:
        block, kind, place = int(match[2]), match[3], int(match[4])
        each, rest = layers + 1, name[match.end() :]
        if kind == "downsamplers":
            name = f"input_blocks.{each * (block + 1)}.0.op.{rest.removeprefix('conv.')}"
        elif kind == "upsamplers":
            name = f"output_blocks.{each * block + layers}.{1 if block == 0 else 2}.{rest}"
        else:
            index = each * block + place + (1 if match[1] == "down" else 0)
            side = "input" if match[1] == "down" else "output"
            name = f"{side}_blocks.{index}.{0 if kind == 'resnets' else 1}.{rest}"
    for ours, theirs in RESNET.items():
        name = re.sub(rf"^((?:input|output)_blocks\.\d+\.0|middle_block\.\d)\.{ours}\.", rf"\1.{theirs}.", name)
    return name


def _vae_name(name: str, levels: int) -> str:
    name = re.sub(r"encoder\.down_blocks\.(\d+)", r"encoder.down.\1", name)
    name = re.sub(r"decoder\.up_blocks\.(\d+)", lambda match: f"decoder.up.{levels - 1 - int(match[1])}", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
    name = re.sub(r"\.resnets\.(\d+)", r".block.\1", name)
    name = name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    if "mid_block.attentions.0" in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for ours, theirs in ATTENTION.items():
            name = name.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
    return name
