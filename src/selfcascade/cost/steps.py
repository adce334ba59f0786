"""Costs of a denoising step at each size: FLOPs and memory from a dry run, seconds from timed calls."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from selfcascade.base_models.driver import StageContext
from selfcascade.base_models.family import Family
from selfcascade.base_models.request import Request
from selfcascade.base_models.saving_memory import WHOLE, Saving, saving
from selfcascade.base_models.stage_attention import attending_locally
from selfcascade.cascade import Size, Stage
from selfcascade.cost import timing
from selfcascade.cost.dry_run import PROMPT, Calls, dry_step
from selfcascade.cost.forward import ForwardCost, memory_format
from selfcascade.cost.timing import PassTimes, Shape

Known = tuple[ForwardCost, ForwardCost, torch.Size]

_MEASURED: weakref.WeakKeyDictionary[nn.Module, dict[Any, Any]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Kind:
    """What distinguishes steps of one size.

    Attributes:
        guidance_scale: The stage's guidance weight; None means the pipeline's default.
        local: Whether attention is local.
    """

    guidance_scale: float | None
    local: bool = False


class StepCosts:
    """The cost of a pipeline's steps; results are cached for as long as its denoiser exists.

    Args:
        family: The pipeline's family.
        batch: Pictures or clips made together.
        frames: Number of frames in a clip; None for pictures.
        native: Size that the model was trained at, for windows of local attention; None asks the family.
        arguments: Keywords for the pipeline's call, such as embeddings if it has no text encoder.
        measures: The parts in which the networks run.
    """

    def __init__(
        self,
        family: Family,
        batch: int,
        frames: int | None,
        native: Size | None = None,
        arguments: dict[str, Any] | None = None,
        measures: Saving = WHOLE,
    ) -> None:
        self.family, self.batch, self.native, self.measures = family, batch, native, measures
        given = dict(arguments or {})
        if frames is not None:
            given["num_frames"] = frames
        embedded = any(name.startswith("prompt_embeds") for name in given)
        prompt = given.pop("prompt", None) or (None if embedded else PROMPT)
        self.request = Request(prompt, None, "latent", given)
        if not embedded:
            self.request = self.request.for_pictures(batch, family.video)
        network = family.denoiser
        shapes = tuple(sorted((name, _cost_key(value)) for name, value in given.items()))
        known = _MEASURED.setdefault(network, {})
        key = network.dtype, memory_format(network), network.device, batch, shapes, native, measures
        self._counted: dict[Any, Known] = known.setdefault(("counted", *key), {})
        self._timed: dict[Any, dict[Shape, float]] = known.setdefault(("timed", *key), {})

    def cost(self, size: Size, kind: Kind) -> ForwardCost:
        """The denoisers' cost in a step before the last."""
        return self._known(size, kind)[0]

    def flops(self, size: Size, kind: Kind, steps: int) -> int:
        """FLOPs of this many steps, the last of which may differ."""
        first, last, _ = self._known(size, kind)
        return (steps - 1) * first.flops + last.flops

    def peak_bytes(self, size: Size, kind: Kind) -> int:
        """Peak bytes of activations in any step."""
        first, last, _ = self._known(size, kind)
        return max(first.peak_bytes, last.peak_bytes)

    def latents(self, size: Size, kind: Kind) -> torch.Size:
        """Shape of the stage's latents."""
        return self._known(size, kind)[2]

    def seconds(self, wanted: Iterable[tuple[Size, Kind]]) -> dict[tuple[Size, Kind], float]:
        """Seconds of a step for each size and kind; the smaller ones are timed."""
        wanted, taken = set(wanted), dict[tuple[Size, Kind], float]()
        for kind in {kind for _, kind in wanted}:
            sizes = {self._shape(size): size for size, own in wanted if own == kind}
            times = PassTimes(
                functools.partial(self._run, kind),
                functools.partial(self._flops, kind),
                self._timed.setdefault(kind, {}),
            )
            taken |= {(sizes[shape], kind): value for shape, value in times.seconds(sizes).items()}
        return taken

    def _known(self, size: Size, kind: Kind) -> Known:
        if (size, kind) not in self._counted:
            calls, shape = self._dry_step(size, kind)
            self._counted[size, kind] = calls.first, calls.last, shape
        return self._counted[size, kind]

    def _dry_step(self, size: Size, kind: Kind) -> tuple[Calls, torch.Size]:
        pivot = Size(*(max(self.family.multiple, side // 2) for side in size)) if kind.local else None
        contexts = self._contexts(kind)
        return dry_step(
            self.family, size, self.request, kind.guidance_scale, contexts, pivot, kind.local, self.measures.pieces
        )

    def _contexts(self, kind: Kind) -> Sequence[StageContext]:
        results = self.request.prompts * self.request.copies
        contexts: list[StageContext] = [functools.partial(saving, self.family, self.measures, results)]
        if kind.local:
            contexts.append(functools.partial(attending_locally, self.family, self.native or self.family.native_size))
        return contexts

    def _shape(self, size: Size) -> Shape:
        return self.batch, size.height // self.family.factor, size.width // self.family.factor

    def _size(self, shape: Shape) -> Size:
        return Size(shape[1] * self.family.factor, shape[2] * self.family.factor)

    def _flops(self, kind: Kind, shape: Shape) -> int:
        return self.cost(self._size(shape), kind).flops

    def _run(self, kind: Kind, shape: Shape) -> float:
        """Seconds of the real networks when called as in a step of the pipeline."""
        size = self._size(shape)
        calls, latents = self._dry_step(size, kind)
        device = self.family.denoiser.device
        stage = Stage(1, 2, size, 1)
        with contextlib.ExitStack() as stack:
            for context in self._contexts(kind):
                stack.enter_context(context(stage, torch.empty(latents, device="meta")))
            began = timing.clock()
            for name, args, kwargs in calls.inputs[: calls.each]:
                getattr(self.family.pipe, name)(*args, **kwargs)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
        return timing.clock() - began


def _cost_key(value: Any) -> str:
    """What the cost depends on: a tensor's shape, and the lengths in a mask, as some networks drop the padding."""
    if not isinstance(value, torch.Tensor):
        return str(value)
    mask = value.ndim == 2 and not value.is_floating_point()
    return f"{tuple(value.shape)} {value.sum(1).tolist() if mask else ''}"
