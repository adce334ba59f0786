"""Which modules of a network attend among the tokens of its picture, and whether their attention can be local."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from torch import nn

TEMPORAL = frozenset({"motion_modules", "temp_attentions", "transformer_in"})  # their tokens are frames
LINEAR = frozenset({"SanaTransformer2DModel"})  # their attention is linear in pixels anyway
# Whether the sequence starts with the picture's tokens or with text, if there is any.
PICTURE_FIRST = frozenset(
    {
        *("SD3Transformer2DModel", "SD3ControlNetModel", "ZImageTransformer2DModel"),
        "HunyuanVideoTransformer3DModel",
    }
)
PICTURE_LAST = frozenset(
    {
        *("FluxTransformer2DModel", "FluxControlNetModel", "ChromaTransformer2DModel", "Flux2Transformer2DModel"),
        *("QwenImageTransformer2DModel", "QwenImageControlNetModel", "AuraFlowTransformer2DModel"),
        *("CogView4Transformer2DModel", "CogVideoXTransformer3DModel", "PixArtTransformer2DModel"),
        *("HunyuanDiT2DModel", "WanTransformer3DModel", "LTXVideoTransformer3DModel"),
    }
)
# The transformers' lists of blocks that the picture goes through; blocks for text alone are in others.
BLOCKS = frozenset(
    {
        *("transformer_blocks", "single_transformer_blocks", "joint_transformer_blocks"),
        *("blocks", "layers", "noise_refiner"),
    }
)
# Processors that do not compute attention by `scaled_dot_product_attention`.
UNFUSED = frozenset(
    {
        *("AttnProcessor", "AttnAddedKVProcessor", "SlicedAttnProcessor", "SlicedAttnAddedKVProcessor"),
        *("XFormersAttnProcessor", "XFormersAttnAddedKVProcessor", "CustomDiffusionXFormersAttnProcessor"),
    }
)


def check_local(network: Any) -> None:
    """Raises ValueError if `local_attention` does not support this U-Net, transformer or ControlNet."""
    reason = why_not_local(network)
    if reason is not None:
        raise ValueError(reason)


def why_not_local(network: Any) -> str | None:
    """Why `local_attention` does not support this U-Net, transformer or ControlNet; None if it does."""
    kinds = {kind.__name__ for kind in type(inner_network(network)).__mro__}
    if not (is_unet(network) or kinds & (LINEAR | PICTURE_FIRST | PICTURE_LAST)):
        return (
            f"attention 'local' does not know where {type(inner_network(network)).__name__} has the tokens of its "
            f"picture; use attention 'full'"
        )
    for name, module in self_attention(network).items():
        processor = getattr(module, "processor", None)
        kind, backend = type(processor).__name__, getattr(processor, "_attention_backend", None)
        if kind in UNFUSED:
            return refusal(f"{kind} of {name}")
        if kind == "SD3IPAdapterJointAttnProcessor2_0":  # whose keys are the picture's and the adapter's tokens
            return f"attention 'local' does not reach the IP-Adapter in {name}; unload it, or use attention 'full'"
        if backend is not None and "native" not in str(getattr(backend, "value", backend)):
            return refusal(f"the attention backend {getattr(backend, 'value', backend)!r}")
    return None


def self_attention(network: nn.Module) -> dict[str, nn.Module]:
    """Modules, by name, in which a picture's tokens attend to each other; attention along frames is left out."""
    inner = inner_network(network)
    if {kind.__name__ for kind in type(inner).__mro__} & LINEAR:
        return {}
    modules = cast("Iterable[tuple[str, nn.Module]]", inner.named_modules())
    return {name: module for name, module in modules if _is_own(inner, name, module)}


def refusal(what: str) -> str:
    """The sentence that refuses what has no attention that could be local."""
    return (
        f"attention 'local' works on self-attention by torch's scaled_dot_product_attention over all tokens of a "
        f"stage, and {what} has none; use AttnProcessor2_0 or set_attention_backend('native'), or attention 'full'"
    )


def is_unet(network: nn.Module) -> bool:
    """Whether this is a U-Net, or the ControlNet of one, whose levels halve the grid."""
    return hasattr(network, "down_blocks") and hasattr(network, "mid_block")  # a ControlNet has no up blocks


def _is_own(network: nn.Module, name: str, module: nn.Module) -> bool:
    path = name.split(".")
    if not hasattr(module, "processor"):
        return False
    if is_unet(network):
        return path[-1] == "attn1" and not TEMPORAL & set(path) and not getattr(module, "is_cross_attention", False)
    return len(path) == 3 and path[0] in BLOCKS and path[2] in _names(network)


def _names(transformer: nn.Module) -> Sequence[str]:
    # In Stable Diffusion 3.5 a block's second attention is within the picture; elsewhere it is to text.
    return ("attn", "attn2") if type(transformer).__name__.startswith("SD3") else ("attn", "attn1", "attention")


def inner_network(network: nn.Module) -> nn.Module:
    """The network itself, if it was compiled as a whole."""
    return getattr(network, "_orig_mod", network)
