"""What feature upsamplers need to know of their U-Net: the channels of its skips, and a few weights to recognise it."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from selfcascade.base_models.protocols import Network
from selfcascade.upsamplers.ldm import is_ldm, ldm_first_weights, ldm_skip_channels


def skip_channels(unet: Network) -> list[list[int]]:
    """Channels of the skip features that each level's up block takes, deepest level first.

    Raises:
        ValueError: The network is not a conditional U-Net of diffusers or with latent-diffusion's names.
    """
    if is_ldm(unet):
        return ldm_skip_channels(unet)
    if not hasattr(unet, "up_blocks") or not hasattr(unet, "down_blocks") or not hasattr(unet, "time_embedding"):
        raise ValueError(f"{type(unet).__name__} has no skip features; upsamplers need a U-Net")
    channels: list[int] = [getattr(unet.conv_in, "base_layer", unet.conv_in).out_channels]
    for block in unet.down_blocks:
        channels += [resnet.out_channels for resnet in block.resnets]
        channels += [block.resnets[-1].out_channels] if block.downsamplers is not None else []
    levels: list[list[int]] = []
    for block in unet.up_blocks:
        count = len(block.resnets)
        levels.append(channels[-count:])
        channels = channels[:-count]
    return levels


def fingerprint(unet: Network) -> list[float] | None:
    """A few weights of the encoder, which identify a model in any floating-point precision.

    Weights inside an adapter (LoRA) are found too; None if the weights are quantised or missing.
    """
    found: list[float] = []
    for weight in ldm_first_weights(unet) if is_ldm(unet) else _first_weights(unet):
        if weight.is_meta or not weight.is_floating_point() or weight.dtype.itemsize < 2:
            return None
        first: Any = weight.detach().flatten()[:6].float()
        found += [round(value, 6) for value in cast("list[float]", first.tolist())]
    return found


def _first_weights(unet: Network) -> list[Tensor]:
    convolutions = [block.resnets[0].conv1 for block in unet.down_blocks]
    return [getattr(convolution, "base_layer", convolution).weight for convolution in convolutions]
