"""Skip features and weights of U-Nets with latent-diffusion's names, as in ComfyUI and single-file checkpoints.

Their `input_blocks` and `output_blocks` are flat lists of what diffusers groups by level. The first input block is
`conv_in`; then come each level's residual blocks and its down-sampling. Each output block takes one skip.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from selfcascade.base_models.protocols import Network


def is_ldm(unet: object) -> bool:
    """Whether the network uses latent-diffusion's names."""
    return hasattr(unet, "input_blocks") and hasattr(unet, "output_blocks")


def ldm_levels(unet: Network) -> list[list[int]]:
    """Indices of the input blocks whose skips each level takes, deepest level first, in the order they are computed.

    Each output block takes the last remaining skip, so a level's skips are taken from its end.
    """
    counts = [0]
    for block in unet.input_blocks[1:]:
        if _is_residual(block[0]):
            counts[-1] += 1
        else:
            counts.append(0)
    left, levels = list(range(len(unet.input_blocks))), list[list[int]]()
    for count in reversed(counts):
        levels.append(left[-count - 1 :])
        left = left[: -count - 1]
    return levels


def ldm_skip_channels(unet: Network) -> list[list[int]]:
    """Channels of each level's skips, as `skip_channels` lists them."""
    return [[int(unet.input_blocks[number][0].out_channels) for number in level] for level in ldm_levels(unet)]


def ldm_first_weights(unet: Network) -> Sequence[Tensor]:
    """Weights of the first convolution of each level's first residual block, highest resolution first."""
    blocks = [block[0] for block in unet.input_blocks]
    firsts = [block for before, block in itertools.pairwise(blocks) if _is_residual(block) > _is_residual(before)]
    return [block.in_layers[2].weight for block in firsts]


def _is_residual(module: object) -> bool:
    return hasattr(module, "in_layers") and not getattr(module, "updown", False)
