"""Runs a pipeline's step on networks without weights, to see how they are called and what that costs.

This works for any family. The pipeline runs as usual, with its networks replaced by copies on the meta device. A call
of a denoiser is counted, and answered with ones in the shape of the copy's output.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from selfcascade.base_models.borrowing import replacing_attributes
from selfcascade.base_models.driver import PipelineBaseModel, StageContext
from selfcascade.base_models.family import Family
from selfcascade.base_models.request import Request
from selfcascade.cascade import Size, Stage
from selfcascade.cost.forward import ForwardCost, count_call, counting, memory_format, weightless_copy
from selfcascade.cost.workspace import workspace_of

# A prompt of typical length, because pipelines that do not pad prompts attend to fewer tokens of shorter ones.
PROMPT = "a lighthouse on a rocky coast at dusk, waves breaking, a red boat"
DENOISERS = ("unet", "transformer", "transformer_2")
# Parts without weights that read the values of an input, by the class of their network: they run on the real values.
READING = {"Lumina2Transformer2DModel": ("rope_embedder", "encoder_attention_mask")}

_ANSWERS: weakref.WeakKeyDictionary[nn.Module, dict[Any, tuple[ForwardCost, Any]]] = weakref.WeakKeyDictionary()


@dataclass
class Calls:
    """The calls of the denoisers in a dry run.

    Attributes:
        costs: Cost of each call.
        inputs: Name of the denoiser, positional and keyword arguments of each call, on the pipeline's device.
        answers: Cost and output on the meta device, by network and shapes of its inputs, where steps may differ. Else
            they are kept with the network, for later dry runs.
        evaluations: Number of steps that the scheduler took.
        changing: Whether steps of one shape may differ: the last one of local attention costs more.
        pieces: Pieces in which feed-forward layers run.
    """

    costs: list[ForwardCost] = field(default_factory=list[ForwardCost])
    inputs: list[tuple[str, Any, Any]] = field(default_factory=list[tuple[str, Any, Any]])
    answers: dict[Any, tuple[ForwardCost, Any]] = field(default_factory=dict[Any, tuple[ForwardCost, Any]])

    evaluations: int = 1
    changing: bool = False
    pieces: int = 1

    @property
    def each(self) -> int:
        """Number of calls per step."""
        return len(self.costs) // self.evaluations

    @property
    def first(self) -> ForwardCost:
        """Cost of all calls in the first step."""
        return together(self.costs[: self.each])

    @property
    def last(self) -> ForwardCost:
        """Cost of all calls in the last step."""
        return together(self.costs[-self.each :])


def together(costs: Sequence[ForwardCost]) -> ForwardCost:
    """The cost of calls one after the other; the peak is the largest one's."""
    flops, attention = (sum(getattr(cost, name) for cost in costs) for name in ("flops", "attention_flops"))
    return ForwardCost(flops, attention, max(cost.peak_bytes for cost in costs))


def dry_step(
    family: Family,
    size: Size,
    request: Request,
    guidance_scale: float | None = None,
    contexts: Sequence[StageContext] = (),
    pivot: Size | None = None,
    changing: bool = False,
    pieces: int = 1,
) -> tuple[Calls, torch.Size]:
    """The calls of the denoisers in a step at a size (or in two, if the last may differ), and the latents' shape.

    Args:
        family: The pipeline's family.
        size: Size of the stage's pictures or clips.
        request: The prompt and all other arguments for the pipeline.
        guidance_scale: The stage's guidance weight; None means the pipeline's default.
        contexts: Contexts of `SelfCascade` that change the denoiser during the stage.
        pivot: Size of the stage before; None for the base stage.
        changing: Whether contexts change from one step to the last.
        pieces: Pieces in which the contexts run feed-forward layers.

    Raises:
        CannotCount: A network reads its inputs' values, or does not match its configuration.
    """
    calls = Calls(changing=changing, pieces=pieces)
    stage = Stage(0, 2, size, 2 if changing else 1, None, guidance_scale)
    shape = () if pivot is None else (*_latent_frames(family, request), *family.latent_size(pivot))
    around = [functools.partial(_above, context, shape) for context in contexts]
    request = replace(request, output_type="latent")
    with counting(), _weightless(family, calls), torch.random.fork_rng(), torch.no_grad():  # pyright: ignore[reportUnknownMemberType]
        made = PipelineBaseModel(family, request, contexts=around).sample(stage)
    calls.evaluations = made.steps
    return calls, made.latents.shape


def _above(
    context: StageContext, shape: tuple[int, ...], stage: Stage, _: Tensor | None
) -> contextlib.AbstractContextManager[None]:
    """The context for a stage above the base whose pivot has latents of this shape; () for the base stage."""
    if not shape:
        return context(stage, None)
    return context(replace(stage, index=1), torch.empty(1, 1, *shape, device="meta"))


def _latent_frames(family: Family, request: Request) -> tuple[int, ...]:
    """Number of latent frames of the request's clip, or of the pipeline's default; () for pictures."""
    if not family.video:
        return ()
    default: Any = inspect.signature(family.pipe.__call__).parameters[family.frames_name].default
    frames = request.arguments.get("num_frames", default)
    if not isinstance(frames, int):  # CogVideoX's default is in its network
        frames = family.denoiser.config.get("sample_frames", 1)
    return (family.latent_frames(frames),)


@contextlib.contextmanager
def _weightless(family: Family, calls: Calls) -> Generator[None]:
    """Replaces the pipeline's networks by copies without weights, and records its denoisers' calls in `calls`."""
    pipe: Any = family.pipe
    device = pipe._execution_device
    with contextlib.ExitStack() as stack:
        lent: dict[str, object] = {"_progress_bar_config": {"disable": True}}
        for name, part in pipe.components.items():
            if isinstance(part, nn.Module) and name != "vae":
                lent[name] = stack.enter_context(_answering(part, device, name, calls))
        stack.enter_context(replacing_attributes(pipe, lent))
        yield


@contextlib.contextmanager
def _answering(network: Any, device: torch.device, name: str, calls: Calls) -> Generator[Any]:
    """The network's copy, which behaves as if it were on `device` within this context."""
    copy, kind = weightless_copy(network), type(network)
    answers = calls.answers if calls.changing else _ANSWERS.setdefault(network, {})

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        leaves, structure = tree_flatten((args, kwargs))
        shapes = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else str(leaf) for leaf in leaves)
        part, mask = _reading(network, kwargs)
        lengths = None if mask is None else tuple(mask.sum(1).tolist())
        state = network.dtype, memory_format(network), device.type, calls.pieces
        key = name, str(structure), shapes, lengths, state, len(calls.costs) if calls.changing else 0
        if key not in answers:
            with _on_values(network, self, part, mask):
                call = functools.partial(_on_meta, kind.forward, self, args, kwargs)
                answers[key] = count_call(call, workspace_of(device))
        cost, answer = answers[key]
        if name in DENOISERS:
            calls.costs.append(cost)
            calls.inputs.append((name, args, kwargs))
        return tree_map_only(Tensor, lambda made: torch.ones(made.shape, dtype=made.dtype, device=device), answer)

    functools.update_wrapper(forward, kind.forward)
    # transformers looks up which hidden states a model can return by its module and name.
    stands = {"forward": forward, "device": property(lambda _: device), "__module__": kind.__module__}
    copy.__class__ = type(kind.__name__, (kind,), stands)
    try:
        yield copy
    finally:
        copy.__class__ = kind


def _reading(network: Any, kwargs: dict[str, Any]) -> tuple[str, Tensor | None]:
    """The network's part that reads a mask, (B, N), and the mask; None if no part of it reads one."""
    part, name = READING.get(type(network).__name__, ("", ""))
    return part, kwargs.get(name)


@contextlib.contextmanager
def _on_values(network: Any, copy: Any, part: str, mask: Tensor | None) -> Generator[None]:
    """Within this context the copy's part is the network's own, called with the mask itself."""
    if mask is None:
        yield
        return
    real: nn.Module = getattr(network, part)

    def forward(hidden_states: Tensor, _: Tensor) -> Any:
        zeros = torch.zeros(hidden_states.shape, dtype=hidden_states.dtype, device=mask.device)
        return tree_map_only(Tensor, lambda made: made.to("meta"), real(zeros, mask))

    with replacing_attributes(getattr(copy, part), {"forward": forward}):
        yield


def _on_meta(forward: Any, network: Any, args: Any, kwargs: Any) -> Any:
    args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
    return forward(network, *args, **kwargs)
