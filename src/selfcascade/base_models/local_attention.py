"""Self-attention within windows of the native size, for stages above the base: their cost is linear in pixels.

The pivot carries the composition, so a stage above the base needs attention mainly for texture. A self-attention module
runs as it is, with its projections, rotary positions, adapters and processor; only the call at its heart, of
`scaled_dot_product_attention`, is answered by `windows.attend`. Processors of U-Nets and of transformers have
that call in common. It is reached by an attribute `forward` of the module's instance, which compiled blocks watch, and
by a `TorchFunctionMode` that is active within that one call and in that one thread.

Windows move by a quarter of their size from step to step, so that no border stays where it is; and since no step comes
after the last one to smooth what it parts, that one has seamless windows, at twice the cost (docs/attention.md).
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
from selfcascade.base_models.windows import Grid, attend, attend_seamlessly

Place = tuple[Grid, Grid, int]  # grid, window, tokens in front
Find = Callable[[int], Place | None]  # by the number of tokens

QUARTERS = 4
TEMPORAL = frozenset({"motion_modules", "temp_attentions", "transformer_in"})  # their tokens are frames
LINEAR = frozenset({"SanaTransformer2DModel"})  # as they are
# The order of tokens: the picture's, then text; or text, where there is any among them, then the picture's.
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
# Of transformers, the lists of blocks that the picture goes through; those of text alone are elsewhere.
BLOCKS = frozenset(
    {
        *("transformer_blocks", "single_transformer_blocks", "joint_transformer_blocks"),
        *("blocks", "layers", "noise_refiner"),
    }
)
# Processors that make attention in another way than by `scaled_dot_product_attention`.
UNFUSED = frozenset(
    {
        *("AttnProcessor", "AttnAddedKVProcessor", "SlicedAttnProcessor", "SlicedAttnAddedKVProcessor"),
        *("XFormersAttnProcessor", "XFormersAttnAddedKVProcessor", "CustomDiffusionXFormersAttnProcessor"),
    }
)


def check_local(network: Any) -> None:
    """Raises ValueError, in a sentence, where `local_attention` cannot serve this U-Net, transformer or ControlNet."""
    reason = why_not_local(network)
    if reason is not None:
        raise ValueError(reason)


def why_not_local(network: Any) -> str | None:
    """Why `local_attention` cannot serve this U-Net, transformer or ControlNet, in a sentence; None where it can."""
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
        if backend is not None and "native" not in str(getattr(backend, "value", backend)):
            return _refusal(f"the attention backend {getattr(backend, 'value', backend)!r}")
    return None


def self_attention(network: nn.Module) -> dict[str, nn.Module]:
    """The modules in which tokens of a picture attend to each other, by name; attention along frames is left out."""
    inner = _inner(network)
    if {kind.__name__ for kind in type(inner).__mro__} & LINEAR:
        return {}
    modules = cast("Iterable[tuple[str, nn.Module]]", inner.named_modules())
    return {name: module for name, module in modules if _is_own(inner, name, module)}


class Steps:
    """Counts the timesteps that networks are given; the passes of one step, with guidance, are at the same.

    Args:
        count: How many there will be, asked at each; None: that is not known.

    Attributes:
        quarters: By which windows are moved at this step.
        last: Whether it is the last one.
    """

    def __init__(self, count: Callable[[], int] | None = None) -> None:
        self.quarters, self.last = 0, False
        self._count, self._seen, self._timestep = count, 0, math.nan

    def see(self, names: Sequence[str], network: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """What `register_forward_pre_hook` calls; the names are those of the network's arguments."""
        arguments = dict(zip(names, given, strict=False)) | named
        timestep = torch.as_tensor(arguments["t" if "t" in arguments else "timestep"])
        if timestep.is_meta:  # shapes alone, whose cost is the same at every step but the last
            return
        if float(timestep.max()) != self._timestep:
            self.quarters, self._timestep = self._seen % QUARTERS, float(timestep.max())
            self._seen += 1
            self.last = self._count is not None and self._seen == self._count()


@contextlib.contextmanager
def local_attention(network: nn.Module, grid: Grid, native: Grid, steps: Steps | None = None) -> Generator[None]:
    """With it the picture's tokens attend to a window of the native size, and to text as before.

    Where the grid is no larger than the native one along each axis nothing is changed, and attention is exact. Weights,
    processors and hooks stay as they are; afterwards, also after an exception, so do the modules.

    Args:
        network: A conditional U-Net, a diffusion transformer, or a ControlNet of either.
        grid: The stage's tokens: latent pixels of a U-Net, which halves them from level to level, and patches of a
            transformer. Frames are 1 for a U-Net, which attends to them one by one.
        native: The same of the base stage.
        steps: Counts the stage's, for all networks that work on it; None: the network's own, of which none is the last.

    Raises:
        ValueError: The network is not supported (`check_local`); while it runs, a module does not attend to that grid.
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
    """`windows.attend` with the windows where a step has them; the last step's are seamless.

    Args:
        query, key, value, mask, options: As in `windows.attend`.
        place: Grid of the picture's tokens, their window, and the tokens in front of them.
        quarters, last: As in `Steps`.
    """
    grid, window, before = place
    moved = ((wide, long, wide * quarters // QUARTERS) for wide, long in zip(window, grid, strict=True))
    shift = Grid(*(0 if wide == long else by for wide, long, by in moved))
    function = attend_seamlessly if last else attend
    return function(query, key, value, grid, window, shift, before, mask, **options)


class _Windows(TorchFunctionMode):
    """Answers self-attention of tokens in a grid; `met` says whether there was any."""

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
        f"attention 'local' works on self-attention by torch's scaled_dot_product_attention, over all tokens of a "
        f"stage, and {what} has none; use AttnProcessor2_0 or set_attention_backend('native'), or attention 'full'"
    )


def places_of_levels(levels: int, grid: Grid, native: Grid) -> dict[int, Place]:
    """By the number of tokens: the places of a U-Net's levels, each half of the one above, rounded up.

    Args:
        levels: How many there are.
        grid: Of the first one, latent pixels; its frames are attended to one by one.
        native: Of its window.
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
    # Stable Diffusion 3.5's second attention is of the picture alone; elsewhere a second one is to text.
    return ("attn", "attn2") if type(transformer).__name__.startswith("SD3") else ("attn", "attn1", "attention")


def _inner(network: nn.Module) -> nn.Module:
    """The network itself, where it is compiled whole."""
    return getattr(network, "_orig_mod", network)
