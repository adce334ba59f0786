"""Self-attention within windows of the native size, for stages above the base: their cost is linear in pixels.

The pivot carries the composition, so a stage above the base needs attention mainly for texture. A self-attention module
runs unchanged, with its projections, rotary positions, adapters and processor. Only its call of
`scaled_dot_product_attention`, which processors of U-Nets and transformers have in common, is answered by
`windows.attend`. An instance attribute `forward`, which compiled blocks watch, activates a `TorchFunctionMode` for that
one call and thread.

Windows move by a quarter of their size from step to step, so that no border stays in place. No step follows the last
one to smooth its borders, so its windows are seamless, at twice the cost (docs/attention.md).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from selfcascade.base_models.borrowing import hooks_in_place
from selfcascade.base_models.windows import Grid, attend

Place = tuple[Grid, Grid, int]  # grid, window, tokens in front
Find = Callable[[int], Place | None]  # by the number of tokens

QUARTERS = 4
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
    kinds = {kind.__name__ for kind in type(_inner(network)).__mro__}
    if not (_is_unet(network) or kinds & (LINEAR | PICTURE_FIRST | PICTURE_LAST)):
        return (
            f"attention 'local' does not know where {type(_inner(network)).__name__} has the tokens of its picture; "
            f"use attention 'full'"
        )
    for name, module in self_attention(network).items():
        processor = getattr(module, "processor", None)
        kind, backend = type(processor).__name__, getattr(processor, "_attention_backend", None)
        if kind in UNFUSED:
            return _refusal(f"{kind} of {name}")
        if kind == "SD3IPAdapterJointAttnProcessor2_0":  # whose keys are the picture's and the adapter's tokens
            return f"attention 'local' does not reach the IP-Adapter in {name}; unload it, or use attention 'full'"
        if backend is not None and "native" not in str(getattr(backend, "value", backend)):
            return _refusal(f"the attention backend {getattr(backend, 'value', backend)!r}")
    return None


def self_attention(network: nn.Module) -> dict[str, nn.Module]:
    """Modules, by name, in which a picture's tokens attend to each other; attention along frames is left out."""
    inner = _inner(network)
    if {kind.__name__ for kind in type(inner).__mro__} & LINEAR:
        return {}
    modules = cast("Iterable[tuple[str, nn.Module]]", inner.named_modules())
    return {name: module for name, module in modules if _is_own(inner, name, module)}


class Steps:
    """Counts steps by the timesteps that networks are called with; all passes of one step share a timestep.

    Args:
        count: Returns the number of steps, called at each; None if it is unknown.

    Attributes:
        quarters: Quarters of a window by which windows are moved at this step.
        last: Whether this is the last step.
    """

    def __init__(self, count: Callable[[], int] | None = None) -> None:
        self.quarters, self.last = 0, False
        self._count, self._seen, self._timestep = count, 0, math.nan

    def see(self, names: Sequence[str], network: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Forward pre-hook; `names` are the names of the network's arguments."""
        arguments = dict(zip(names, given, strict=False)) | named
        timestep = torch.as_tensor(arguments["t" if "t" in arguments else "timestep"])
        if timestep.is_meta:  # a cost estimate on shapes, the same at every step but the last
            return
        if float(timestep.max()) != self._timestep:
            self.quarters, self._timestep = self._seen % QUARTERS, float(timestep.max())
            self._seen += 1
            self.last = self._count is not None and self._seen == self._count()


@contextlib.contextmanager
def local_attention(network: nn.Module, grid: Grid, native: Grid, steps: Steps | None = None) -> Generator[None]:
    """Within this context the picture's tokens attend to a window of the native size, and to text as before.

    If no axis of the grid is longer than the native one, nothing changes. Weights, processors and hooks are never
    changed; the modules are restored afterwards, also after an exception.

    Args:
        network: A conditional U-Net, a diffusion transformer, or a ControlNet of either.
        grid: The stage's tokens: latent pixels for a U-Net, which halves them from level to level, and patches for a
            transformer. A U-Net attends to frames one by one, so its grid has 1 frame.
        native: The base stage's tokens, likewise.
        steps: Counter of the stage's steps, shared by all its networks; None counts the network's own, without a last.

    Raises:
        ValueError: The network is not supported (`check_local`), or a module that runs does not attend to the grid.
    """
    check_local(network)
    if all(native[axis] >= grid[axis] for axis in range(3)):
        yield
        return
    steps = steps or Steps()
    names = [*inspect.signature(_inner(network).forward).parameters]
    find = _levels(network, grid, native).get if _is_unet(network) else _sequence(network, grid, native)
    modules = self_attention(network)
    before = {module: vars(module).get("forward") for module in modules.values()}
    try:
        for name, module in modules.items():
            module.forward = _localised(module.forward, _Windows(find, steps), name, module)
        with hooks_in_place([network.register_forward_pre_hook(functools.partial(steps.see, names), with_kwargs=True)]):
            yield
    finally:
        for module, own in before.items():
            if own is not None:
                module.forward = own
            elif "forward" in vars(module):
                del module.forward


def attend_at_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    place: Place,
    quarters: int,
    last: bool,
    mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """`windows.attend` with the windows of a step; those of the last step are seamless.

    Args:
        query, key, value, mask, options: See `windows.attend`.
        place: Grid of the picture's tokens, their window, and the tokens in front of them.
        quarters, last: See `Steps`.
    """
    grid, window, before = place
    moved = ((wide, long, wide * quarters // QUARTERS) for wide, long in zip(window, grid, strict=True))
    shift = Grid(*(0 if wide == long else by for wide, long, by in moved))
    return attend(query, key, value, grid, window, shift, before, mask, seamless=last, **options)


class _Windows(TorchFunctionMode):
    """Computes self-attention of tokens in a grid; `met` tells whether there was any."""

    def __init__(self, find: Find, steps: Steps) -> None:
        super().__init__()
        self.find, self.steps, self.met = find, steps, False

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attention(*args, **(kwargs or {}))

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *given: Any, **options: Any
    ) -> Tensor:
        options |= dict(zip(("dropout_p", "is_causal", "scale", "enable_gqa"), given, strict=False))
        place = self.find(query.shape[-2]) if query.ndim == 4 and query.shape[-2] == key.shape[-2] else None
        if place is None or options.get("is_causal"):
            return scaled_dot_product_attention(query, key, value, attn_mask, **options)
        self.met = True
        return attend_at_step(query, key, value, place, self.steps.quarters, self.steps.last, attn_mask, **options)


def _localised(inner: Callable[..., Any], mode: _Windows, name: str, module: nn.Module) -> Callable[..., Any]:
    @functools.wraps(inner)
    def forward(*given: object, **named: object) -> object:
        with mode:
            made = inner(*given, **named)
        if not mode.met:
            raise ValueError(_refusal(f"{type(getattr(module, 'processor', module)).__name__} of {name}"))
        return made

    return forward


def _refusal(what: str) -> str:
    return (
        f"attention 'local' works on self-attention by torch's scaled_dot_product_attention over all tokens of a "
        f"stage, and {what} has none; use AttnProcessor2_0 or set_attention_backend('native'), or attention 'full'"
    )


def places_of_levels(levels: int, grid: Grid, native: Grid) -> dict[int, Place]:
    """The grids and windows of a U-Net's levels, by their number of tokens; each level halves the one above.

    Args:
        levels: Number of levels.
        grid: The first level's grid, in latent pixels; frames are attended to one by one.
        native: The first level's window, in latent pixels.
    """
    places: dict[int, Place] = {}
    for _ in range(levels):
        frame = Grid(1, grid.height, grid.width)
        places[frame.tokens] = (frame, _within(frame, native), 0)
        grid, native = (Grid(1, math.ceil(each.height / 2), math.ceil(each.width / 2)) for each in (grid, native))
    return places


def _levels(unet: nn.Module, grid: Grid, native: Grid) -> dict[int, Place]:
    return places_of_levels(len(cast("nn.ModuleList", _inner(unet).down_blocks)), grid, native)


def _sequence(transformer: nn.Module, grid: Grid, native: Grid) -> Find:
    first = bool({kind.__name__ for kind in type(_inner(transformer)).__mro__} & PICTURE_FIRST)
    window = _within(grid, native)

    def find(tokens: int) -> Place | None:
        others = tokens - grid.tokens
        return None if others < 0 else (grid, window, 0 if first else others)

    return find


def _within(grid: Grid, native: Grid) -> Grid:
    return Grid(*(min(sides) for sides in zip(grid, native, strict=True)))


def _is_unet(network: nn.Module) -> bool:
    return hasattr(network, "down_blocks") and hasattr(network, "mid_block")  # a ControlNet has no up blocks


def _is_own(network: nn.Module, name: str, module: nn.Module) -> bool:
    path = name.split(".")
    if not hasattr(module, "processor"):
        return False
    if _is_unet(network):
        return path[-1] == "attn1" and not TEMPORAL & set(path) and not getattr(module, "is_cross_attention", False)
    return len(path) == 3 and path[0] in BLOCKS and path[2] in _names(network)


def _names(transformer: nn.Module) -> Sequence[str]:
    # In Stable Diffusion 3.5 a block's second attention is within the picture; elsewhere it is to text.
    return ("attn", "attn2") if type(transformer).__name__.startswith("SD3") else ("attn", "attn1", "attention")


def _inner(network: nn.Module) -> nn.Module:
    """The network itself, if it was compiled as a whole."""
    return getattr(network, "_orig_mod", network)
