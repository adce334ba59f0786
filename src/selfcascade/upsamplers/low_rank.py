"""Low-rank weights for the decoder of a stage's passes, trained together with feature upsamplers.

A layer's result becomes W x + scale U D x, with the layer's own W frozen and U zero at the start (Hu et al. 2021; for a
convolution, D has its kernel and U is 1 x 1). Only layers after the skip connections have them. So the base stage and
the pivot's encoder run as they were trained, and gradients still end where the skip features enter.

They act through an instance attribute `forward`, which compiled blocks watch; hooks that are added later they ignore.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from selfcascade.base_models.borrowing import replacing_attributes
from selfcascade.base_models.protocols import Network
from selfcascade.options.checks import is_whole, shown

# Attention, feed-forward and in/out projections of the decoder, convolutions of its residual blocks, and the last one.
# Layers along the frames of clips are left out.
LINEAR = r"to_[qkv]|to_out\.0|ff\.net\.0\.proj|ff\.net\.2|proj_in|proj_out"
TARGETS = re.compile(rf"up_blocks\.\d+\.(attentions|resnets)\.(.*\.)?({LINEAR}|conv1|conv2|conv_shortcut)|conv_out")


class Layer(NamedTuple):
    """A layer that has low-rank weights.

    Attributes:
        name: Its name in the U-Net.
        inputs, outputs: Channels.
        kernel: Side of a convolution's kernel; 0 for a linear layer.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int


def layer_of(given: object) -> Layer:
    """A layer as a configuration lists it.

    Raises:
        ValueError: It is not [name, inputs, outputs, kernel].
    """
    text, parts = shown(given), cast("Sequence[object]", given) if isinstance(given, (list, tuple)) else ()
    if len(parts) == 4:
        name, inputs, outputs, kernel = parts
        if isinstance(name, str) and is_whole(inputs) and is_whole(outputs) and is_whole(kernel, 0):
            return Layer(name, inputs, outputs, kernel)
    raise ValueError(f"decoder_layers must be lists of a name, inputs, outputs and kernel, not {text}")


class LowRank(nn.Module):
    """U D x for one layer, zero at the start."""

    def __init__(self, layer: Layer, rank: int) -> None:
        super().__init__()
        self.kernel = side = layer.kernel
        window, one = ((side, side), (1, 1)) if side else ((), ())
        self.down = nn.Parameter(torch.randn(rank, layer.inputs, *window) / (rank * max(side, 1)))
        self.up = nn.Parameter(torch.zeros(layer.outputs, rank, *one))

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the layer's result for its input x: (..., inputs), or (B, inputs, H, W)."""
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        if not self.kernel:
            return linear(linear(x, down), up)
        return conv2d(conv2d(x, down, padding=self.kernel // 2), up)


def decoder_layers(unet: Network) -> list[Layer]:
    """The layers of a U-Net of diffusers that low-rank weights are for."""
    found: list[Layer] = []
    for name, module in _modules(unet):
        layer = getattr(module, "base_layer", module)  # inside an adapter
        if not TARGETS.fullmatch(name):
            continue
        if isinstance(layer, nn.Linear):
            found.append(Layer(name, layer.in_features, layer.out_features, 0))
        elif isinstance(layer, nn.Conv2d) and _keeps_size(layer):
            found.append(Layer(name, layer.in_channels, layer.out_channels, layer.kernel_size[0]))
    return found


def _modules(network: Network) -> Iterable[tuple[str, nn.Module]]:
    return cast("Iterable[tuple[str, nn.Module]]", network.named_modules())


def _keeps_size(layer: nn.Conv2d) -> bool:
    side = layer.kernel_size[0]
    kept = layer.kernel_size == (side, side) and layer.padding == (side // 2, side // 2) and side % 2 == 1
    return kept and layer.stride == layer.dilation == (1, 1) and layer.groups == 1


def check_decoder(unet: Network, layers: Sequence[Sequence[Any]]) -> None:
    """Raises ValueError if the U-Net lacks one of the layers, or has fused them into others."""
    if not layers:  # in training this is asked at every step
        return
    own = {layer.name: layer for layer in decoder_layers(unet)}
    for layer in map(layer_of, layers):
        if own.get(layer.name) != layer:
            raise ValueError(
                f"these upsamplers have low-rank weights for {layer.name}, {layer.inputs} to {layer.outputs} channels, "
                f"which this {type(unet).__name__} does not have"
            )
    # `fused_projections` of a module stays true after they are unfused.
    kinds = ((name, type(vars(module).get("processor")).__name__) for name, module in _modules(unet))
    fused = next((name for name, kind in kinds if name.startswith("up_blocks") and kind.startswith("Fused")), None)
    if fused is not None:
        raise ValueError(
            f"these upsamplers have low-rank weights for projections that are fused in {fused}; "
            "call unfuse_qkv_projections() first"
        )


@contextlib.contextmanager
def adding_low_rank(
    unet: nn.Module, layers: Sequence[Sequence[Any]], weights: Sequence[nn.Module], scale: float = 1.0
) -> Generator[None]:
    """Within this context each layer adds scale U D x to its result.

    Args:
        unet: The U-Net; nothing of it is replaced for good.
        layers: The layers, as `decoder_layers` lists them.
        weights: A `LowRank` for each.
        scale: Strength.
    """
    with contextlib.ExitStack() as held:
        for layer, own in zip(layers, weights, strict=True):
            module = unet.get_submodule(layer_of(layer).name)
            held.enter_context(replacing_attributes(module, {"forward": _corrected(module.forward, own, scale)}))
        yield


def _corrected(inner: Callable[..., Tensor], weights: nn.Module, scale: float) -> Callable[..., Tensor]:
    @functools.wraps(inner)
    def forward(x: Tensor, *given: object, **named: object) -> Tensor:
        result = inner(x, *given, **named)
        return result + (scale * weights(x)).to(result.dtype)

    return forward
