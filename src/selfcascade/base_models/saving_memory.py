"""Makes a call fit into less memory, at the cost of time: smaller tiles, and work done in parts.

Guidance and feed-forward layers compute the same in parts as at once, so results differ only by rounding. Tiles of the
VAE are blended where they overlap. Each measure lasts for a call or a stage and is undone afterwards.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from selfcascade.base_models.autoencoders import tiling
from selfcascade.base_models.borrowing import replacing_attributes
from selfcascade.base_models.family import Family
from selfcascade.base_models.protocols import Network, Pipeline
from selfcascade.base_models.stage_attention import networks
from selfcascade.cascade import Stage

REPEATED = frozenset({"encoder_hidden_states", "added_cond_kwargs"})  # by some pipelines, for each frame of a clip
OFFLOAD_ATTRIBUTES = frozenset({"forward", "_all_hooks", "_offload_gpu_id", "_offload_device"})
TILE_ATTRIBUTES = ("tile_latent_min_size", "tile_sample_min_size")


@dataclass(frozen=True)
class Saving:
    """What a call does to take less memory; by default nothing.

    Attributes:
        tile: Side in latent pixels of the tiles in which the VAE decodes and encodes; 0: its own; None: as the call
            says.
        branches: Whether the branches of guidance go through the network one after the other.
        pieces: Number of pieces in which tokens go through feed-forward layers.
        offload: Whether one model of the pipeline at a time is on the device, and the others in the CPU's memory.
    """

    tile: int | None = None
    branches: bool = False
    pieces: int = 1
    offload: bool = False


WHOLE = Saving()


@contextlib.contextmanager
def tiles(vae: Network, side: int | None) -> Generator[None]:
    """Context in which the VAE works in tiles of this side in latent pixels. 0: its own side. None: no change."""
    with contextlib.ExitStack() as stack:
        if side:
            factor = vae.tile_sample_min_size // vae.tile_latent_min_size
            sides: dict[str, object] = dict(zip(TILE_ATTRIBUTES, (side, side * factor), strict=True))
            stack.enter_context(replacing_attributes(cast("Any", vae), sides))
        if side is not None:
            stack.enter_context(tiling(vae, True))
        yield


@contextlib.contextmanager
def one_model_at_a_time(pipe: Pipeline, wanted: bool = True) -> Generator[None]:
    """Context in which diffusers' model offload is on, if wanted; afterwards all models are on the device again."""
    if not wanted:
        yield
        return
    device, models = pipe._execution_device, _models(pipe)
    before = [(part, set(vars(part))) for part in (pipe, *models)]
    try:
        pipe.enable_model_cpu_offload(device=device)
        yield
    finally:
        pipe.remove_all_hooks()
        pipe.to(device)
        for part, names in before:  # what offloading leaves behind
            for name in set(vars(part)) & OFFLOAD_ATTRIBUTES - names:
                del vars(part)[name]


def can_offload(pipe: Pipeline) -> bool:
    """Whether there is a device to take models off, and diffusers' model offload is not on in some form already."""
    hooked = any(hasattr(model, name) for model in _models(pipe) for name in ("_hf_hook", "_diffusers_hook"))
    placed = getattr(pipe, "hf_device_map", None) is not None or getattr(pipe, "model_cpu_offload_seq", None) is None
    return pipe._execution_device.type != "cpu" and not hooked and not placed


def _models(pipe: Pipeline) -> list[nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


def tile_sides(vae: Network, least: int = 16) -> list[int]:
    """Sides of tiles that this VAE can use: its own, then halves of it. Empty if the VAE has no tiles."""
    if not hasattr(vae, "enable_tiling"):
        return []
    own = getattr(vae, TILE_ATTRIBUTES[0], None)
    if own is None or not hasattr(vae, TILE_ATTRIBUTES[1]):
        return [0]
    return [0, *(own >> halvings for halvings in range(1, 16) if own >> halvings >= least)]


@contextlib.contextmanager
def saving(family: Family, measures: Saving, results: int, stage: Stage, pivot: Tensor | None) -> Generator[None]:
    """Context in which the stage's networks work in parts.

    Args:
        family: Family of the pipeline.
        measures: The parts. Its tiles are ignored here.
        results: Number of pictures or clips made together.
        stage, pivot: The arguments of every `StageContext`.
    """
    with contextlib.ExitStack() as stack:
        for network in networks(family):
            if measures.branches:
                stack.enter_context(_forward_of(network, _by_branches(network.forward, results)))
            if measures.pieces > 1:
                for layer in feed_forwards(network):
                    stack.enter_context(_forward_of(layer, _in_pieces(layer.forward, measures.pieces)))
        yield


def feed_forwards(network: nn.Module) -> list[nn.Module]:
    """The layers that process each token separately. Empty if the network's blocks are compiled."""
    modules = list(network.modules())
    if any(getattr(module, "_compiled_call_impl", None) is not None for module in modules):
        return []
    return [module for module in modules if type(module).__name__ == "FeedForward"]


def splits_branches(family: Family) -> bool:
    """Whether the branches of guidance can run one by one. Attention processors of some methods mix them."""
    if hasattr(type(family.pipe), "do_perturbed_attention_guidance"):  # its processors are set during its calls alone
        return False
    found = (getattr(module, "processor", None) for network in networks(family) for module in network.modules())
    return not any(type(processor).__name__.startswith("PAG") for processor in found)


@contextlib.contextmanager
def _forward_of(module: nn.Module, forward: Callable[..., Any]) -> Generator[None]:
    """Context in which the module runs this `forward`. Its own, or that of a hook, is restored afterwards."""
    with replacing_attributes(cast("Any", module), {"forward": forward}):
        yield


def _by_branches(inner: Callable[..., Any], results: int) -> Callable[..., Any]:
    """A network's `forward`, called once for each branch of guidance that is stacked in its batch."""

    @functools.wraps(inner)
    def forward(*given: Any, **named: Any) -> Any:
        latents = next((value for value in (*given, *named.values()) if isinstance(value, Tensor)), None)
        batch = 0 if latents is None else len(latents)
        if batch % results or batch // results < 2:
            return inner(*given, **named)

        made: list[Any] = []
        for branch in range(batch // results):
            cut = functools.partial(_branch_of, batch=batch, count=batch // results, branch=branch)
            args = tree_map_only(Tensor, cut, given)
            kwargs = {
                name: tree_map_only(Tensor, functools.partial(cut, repeated=name in REPEATED), value)
                for name, value in named.items()
            }
            made.append(inner(*args, **kwargs))
        return _joined(made)

    return forward


def _branch_of(tensor: Tensor, batch: int, count: int, branch: int, repeated: bool = False) -> Tensor:
    """A branch's part of a tensor with one row per latent, or per frame. Other tensors are shared by all branches."""
    if tensor.ndim == 0 or len(tensor) == 0 or len(tensor) % batch or not (repeated or len(tensor) == batch):
        return tensor
    return tensor.chunk(count)[branch]


def _joined(made: Sequence[Any]) -> Any:
    """Stacks the answers of the branches: tensors, or tuples, lists and outputs of tensors."""
    first = made[0]
    if isinstance(first, Tensor):
        return torch.cat([*made])
    kind = cast("Any", type(first))
    if isinstance(first, dict):  # outputs of diffusers are dictionaries
        names = cast("dict[str, Any]", first)
        return kind(**{name: _joined([one[name] for one in made]) for name in names})
    if isinstance(first, (list, tuple)):
        return kind(_joined(parts) for parts in zip(*made, strict=True))
    return first


def _in_pieces(inner: Callable[..., Tensor], pieces: int) -> Callable[..., Tensor]:
    """A feed-forward layer's `forward` that processes tokens (B, N, C) in pieces along N."""

    @functools.wraps(inner)
    def forward(hidden_states: Tensor, *given: Any, **named: Any) -> Tensor:
        if hidden_states.ndim != 3 or hidden_states.shape[1] < pieces:
            return inner(hidden_states, *given, **named)
        made: Tensor | None = None
        start = 0
        for piece in hidden_states.chunk(pieces, dim=1):
            done = inner(piece, *given, **named)
            if made is None:
                made = done.new_empty(*hidden_states.shape[:2], done.shape[-1])
            made[:, start : start + piece.shape[1]] = done
            start += piece.shape[1]
        return made if made is not None else hidden_states

    return forward
