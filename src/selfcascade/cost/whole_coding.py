"""Costs of any family's decoding and encoding, found by calling it on a copy of its VAE without weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models.autoencoders import tiling
from selfcascade.base_models.borrowing import replacing_attributes
from selfcascade.base_models.family import Family
from selfcascade.cascade import Size
from selfcascade.cost import timing
from selfcascade.cost.forward import ForwardCost, count_call, counting, weightless_copy
from selfcascade.cost.timing import PassTimes, Shape
from selfcascade.cost.workspace import workspace_of


class WholeCoding:
    """Decoding latents of one size, or encoding pictures, by `Family.decode` and `Family.encode`."""

    def __init__(self, coders: FamilyCoders, decodes: bool, shape: Shape) -> None:
        self.coders, self.decodes, self.shape = coders, decodes, shape

    @property
    def flops(self) -> int:
        """FLOPs of all tiles and frames together."""
        return self.coders.cost(self.decodes, self.shape).flops

    @property
    def peak_bytes(self) -> int:
        """The most activations alive at once."""
        return self.coders.cost(self.decodes, self.shape).peak_bytes


class FamilyCoders:
    """A family's decoder and encoder.

    Args:
        family: The pipeline's family.
        latents: Shape of any stage's latents, for their channels and frames.
        tiled: Whether inputs larger than a tile are cut.
    """

    def __init__(self, family: Family, latents: torch.Size, tiled: bool) -> None:
        self.family, self.latent_shape, self.tiled = family, latents, tiled
        self._counted: dict[Any, ForwardCost] = {}
        self._timed: dict[bool, dict[Shape, float]] = {True: {}, False: {}}

    def decoding(self, size: Size) -> WholeCoding:
        """Latents of this size to pictures."""
        return WholeCoding(self, True, self._shape(size))

    def encoding(self, size: Size) -> WholeCoding:
        """Pictures of this size to latents."""
        return WholeCoding(self, False, self._shape(size))

    def seconds(self, codings: Sequence[WholeCoding]) -> list[float]:
        """Seconds of each coding, from timed passes."""
        taken: dict[tuple[bool, Shape], float] = {}
        for decodes in {coding.decodes for coding in codings}:
            shapes = {coding.shape for coding in codings if coding.decodes == decodes}
            times = PassTimes(
                functools.partial(self._run, decodes), functools.partial(self._flops, decodes), self._timed[decodes]
            )
            taken |= {(decodes, shape): value for shape, value in times.seconds(shapes).items()}
        return [taken[coding.decodes, coding.shape] for coding in codings]

    def cost(self, decodes: bool, shape: Shape) -> ForwardCost:
        """The cost of a coding, counted on a copy of the VAE without weights."""
        if (decodes, shape) not in self._counted:
            copy, own = weightless_copy(self.family.vae), vars(self.family.vae)
            vars(copy).update({name: own[name] for name in own if name.startswith(("use_", "tile_"))})
            with counting(), replacing_attributes(self.family.pipe, {"vae": copy}), tiling(copy, self.tiled):
                self._counted[decodes, shape] = count_call(
                    self._call(decodes, shape, torch.device("meta")), workspace_of(self.family.vae.device)
                )[0]
        return self._counted[decodes, shape]

    def _flops(self, decodes: bool, shape: Shape) -> int:
        return self.cost(decodes, shape).flops

    def _run(self, decodes: bool, shape: Shape) -> float:
        device = self.family.vae.device
        call = self._call(decodes, shape, device)
        began = timing.clock()
        with tiling(self.family.vae, self.tiled):
            call()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return timing.clock() - began

    def _call(self, decodes: bool, shape: Shape, device: torch.device) -> Callable[[], Tensor]:
        _, height, width = shape
        given: dict[str, Any] = {"dtype": self.family.denoiser.dtype, "device": device}
        if decodes:
            return functools.partial(self.family.decode, torch.zeros(*self.latent_shape[:-2], height, width, **given))
        frames = [self.family.frames_of(self.latent_shape[2])] if self.family.video else []
        sides = (side * self.family.factor for side in (height, width))
        return functools.partial(self.family.encode, torch.zeros(self.latent_shape[0], 3, *frames, *sides, **given))

    def _shape(self, size: Size) -> Shape:
        return self.latent_shape[0], *self.family.latent_size(size)
