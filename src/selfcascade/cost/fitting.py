"""Chooses the parts in which a call is done to stay within a limit of memory, and says what it then takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from selfcascade.base_models.saving_memory import (
    WHOLE,
    Saving,
    can_offload,
    feed_forwards,
    splits_branches,
    tile_sides,
    tiles,
)
from selfcascade.base_models.stage_attention import attention_of, networks
from selfcascade.cascade import Stage
from selfcascade.cost.forward import CannotCount
from selfcascade.cost.plan import Cascade, as_decoding, coders_of, codings_of, kind_of
from selfcascade.cost.steps import StepCosts
from selfcascade.cost.weights import weights_of
from selfcascade.options import Options
from selfcascade.options.checks import OptionError, joined
from selfcascade.options.memory import bytes_of, in_words

WayT = TypeVar("WayT")
PIECES = (4, 16)  # of feed-forward layers; more find nothing left to spare
NOT_OURS = "callback"  # keywords that begin so are called while a pipeline runs, and only then


class Fitting:
    """The memory of one call, done in one way or another.

    Args:
        cascade: The cascade that is called.
        stages: Plan of the call.
        options: Options of the call.
        batch: Number of prompts.
        arguments: Keywords for the pipeline, and the prompt.
        tuned: Whether feature upsamplers are used. They need all branches of guidance at once.
    """

    def __init__(
        self,
        cascade: Cascade,
        stages: Sequence[Stage],
        options: Options,
        batch: int,
        arguments: Mapping[str, Any],
        tuned: bool,
    ) -> None:
        self.family, self.stages, self.options, self.tuned = cascade.family, stages, options, tuned
        self.native, self.batch = cascade.native_size, batch
        self.arguments = {name: value for name, value in arguments.items() if not name.startswith(NOT_OURS)}
        preset = cascade.chosen_preset(options)
        self.upsampling = preset.upsampling
        attention = attention_of(self.family, preset.attention, asked=options.attention is not None)
        self.keys = [(stage.size, kind_of(stage, True, attention)) for stage in stages]
        self.weights = weights_of(self.family)

    def measures(self, limit: int) -> Saving:
        """The way that costs least time of those that take no more than this many bytes.

        Raises:
            OptionError: None does; the sentence says how much the thriftiest takes.
        """
        least: list[int] = []
        for offload in (False, True) if can_offload(self.family.pipe) else (False,):
            network, way = self._first(self._network_ways(), limit, self.network_bytes, offload, denoises=True)
            coding, side = self._first(self._tiles(), limit, self.coding_bytes, offload, denoises=False)
            least.append(self.weights.with_activations(network, coding, offload))
            if least[-1] <= limit:
                return Saving(side, way.branches, way.pieces, offload)
        raise OptionError(
            "{max_memory} {found} is too little for {size}: it takes {least}, of which {weights} are weights, "
            "with all that saves memory",
            found=self.options.max_memory,
            size=str(self.stages[-1].size),
            least=in_words(min(least) + min(least) // 100),
            weights=in_words(self.weights.all),
        )

    def _first(
        self, ways: Sequence[WayT], limit: int, taken: Callable[[WayT], int], offload: bool, denoises: bool
    ) -> tuple[int, WayT]:
        """Activations of the first way that fits beside the weights, or of that which takes least, and that way."""
        room = limit - self.weights.least_for(denoises, offload)
        best = taken(ways[0]), ways[0]
        for way in ways[1:]:
            if best[0] <= room:
                break
            try:
                found = taken(way)
            except CannotCount:  # this network cannot be called so
                continue
            if found < best[0]:
                best = found, way
        return best

    def network_bytes(self, way: Saving) -> int:
        """The most activations of the networks that denoise."""
        costs = self._steps(way)
        return max(costs.peak_bytes(size, kind) for size, kind in self.keys)

    def coding_bytes(self, tile: int | None) -> int:
        """The most activations of the VAE; none where the call decodes nothing."""
        family, costs = self.family, self._steps(WHOLE)
        last = self.stages[-1].size
        latents = costs.latents(*self.keys[-1])
        made = 3 * latents[0] * family.frames_of(latents[2]) * last.area if family.video else 0
        with torch.no_grad(), tiles(family.vae, tile), as_decoding(family.pipe, self.stages, self.upsampling):
            coders = coders_of(family, latents, last, self.options.vae_tiling)
            codings = itertools.chain.from_iterable(codings_of(coders, self.stages, self.upsampling))
            return made + max((coding.peak_bytes for coding in codings), default=0)

    def _steps(self, way: Saving) -> StepCosts:
        given = dict(self.arguments)
        frames = given.pop("num_frames", self.options.num_frames) if self.family.video else None
        return StepCosts(self.family, self.batch, frames, self.native, given, Saving(None, way.branches, way.pieces))

    def _network_ways(self) -> list[Saving]:
        branches = not self.tuned and splits_branches(self.family)
        pieces = PIECES if any(feed_forwards(network) for network in networks(self.family)) else ()
        parted = [Saving(branches=True)] if branches else []
        split = [Saving(None, branches, number) for number in pieces]
        return [WHOLE, *parted, *split, *([Saving(pieces=number) for number in pieces] if branches else [])]

    def _tiles(self) -> list[int | None]:
        return [None] if self.options.vae_tiling is False else [None, *tile_sides(self.family.vae)]


def fitted(
    cascade: Cascade,
    stages: Sequence[Stage],
    options: Options,
    batch: int = 1,
    arguments: Mapping[str, Any] | None = None,
    tuned: bool = False,
) -> Saving:
    """Chooses the parts in which a call stays within its `max_memory`. Without a limit nothing is done in parts.

    Args:
        cascade, stages, options, batch, arguments, tuned: See `Fitting`.

    Raises:
        OptionError: The limit is too low, or the pipeline's memory cannot be estimated before it runs.
    """
    if options.max_memory is None:
        return WHOLE
    try:
        with torch.no_grad():
            return Fitting(cascade, stages, options, batch, arguments or {}, tuned).measures(
                bytes_of(options.max_memory)
            )
    except CannotCount as error:
        raise OptionError(
            "{max_memory} is not for {name}, whose memory cannot be estimated before it runs: {reason}",
            name=cascade.family.name,
            reason=str(error),
        ) from error


def told(measures: Saving, factor: int) -> str:
    """Describes the parts in words.

    Args:
        measures: The parts.
        factor: Pixels per latent pixel.
    """
    words: list[str] = []
    if measures.tile is not None:
        words.append(f"the VAE in tiles of {measures.tile * factor} pixels" if measures.tile else "the VAE in tiles")
    if measures.branches:
        words.append("guidance branches one after the other")
    if measures.pieces > 1:
        words.append(f"feed-forward layers in {measures.pieces} pieces")
    if measures.offload:
        words.append("one model of the pipeline at a time on the device")
    return joined(words, "and") if words else "nothing is done in parts"
