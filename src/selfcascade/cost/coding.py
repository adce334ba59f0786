"""Costs of a VAE: pictures, or frames of clips, decoded and encoded whole or in tiles."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from selfcascade.base_models.autoencoders import tiling
from selfcascade.base_models.frames import frames_at_once
from selfcascade.cascade import Size
from selfcascade.cost.forward import MeasuredNetwork, vae_decode, vae_encode
from selfcascade.cost.timing import Shape

CodingT = TypeVar("CodingT")


@dataclass(frozen=True)
class Coding:
    """Decoding latents of one size, or encoding pictures of it.

    Attributes:
        coder: The VAE's decoder or encoder.
        tiles: Pieces whose results are in memory together: those of one part of the clips, or of all pictures.
        pieces: All pieces that the coder processes.
        tile_bytes: Bytes per latent pixel that tiles keep until the last one is done.
    """

    coder: MeasuredNetwork
    tiles: Counter[Shape]
    pieces: Counter[Shape]
    tile_bytes: int

    @property
    def flops(self) -> int:
        """FLOPs of all pieces together."""
        return sum(number * self.coder.cost(piece).flops for piece, number in self.pieces.items())

    @property
    def peak_bytes(self) -> int:
        """The most activations alive at once."""
        largest = max(self.coder.cost(tile).peak_bytes for tile in self.tiles)
        if self.tiles.total() == 1:
            return largest
        return largest + sum(number * math.prod(tile) * self.tile_bytes for tile, number in self.tiles.items())


class Coders(Protocol[CodingT]):
    """A VAE's decoder and encoder, for a number of pictures or clips."""

    def decoding(self, size: Size) -> CodingT:
        """Latents of this size to pictures."""
        ...

    def encoding(self, size: Size) -> CodingT:
        """Pictures of this size to latents, their mean and variance."""
        ...

    def seconds(self, codings: Sequence[CodingT]) -> list[float]:
        """Seconds of each coding, from timed passes."""
        ...


class PictureCoders:
    """The decoder and encoder of an `AutoencoderKL`, piece by piece as it cuts large inputs.

    Args:
        pipe: The pipeline.
        vae: The VAE, in the precision that it runs in.
        batch: Pictures or clips made together.
        frames: Number of frames in a clip; None for pictures.
        tiled: Whether inputs larger than a tile are cut.
    """

    def __init__(self, pipe: Any, vae: Any, batch: int, frames: int | None, tiled: bool) -> None:
        self.vae, self.factor, self.batch, self.frames, self.tiled = vae, pipe.vae_scale_factor, batch, frames, tiled
        self.decoder = MeasuredNetwork(vae, vae_decode, role="decoder")
        self.encoder = MeasuredNetwork(vae, vae_encode, role="encoder")

    def decoding(self, size: Size) -> Coding:
        """Latents of this size to pictures."""
        config = self.vae.config
        return self._coding(self.decoder, size, config.out_channels * self.vae.dtype.itemsize * self.factor**2)

    def encoding(self, size: Size) -> Coding:
        """Pictures of this size to latents, their mean and variance."""
        return self._coding(self.encoder, size, 2 * self.vae.config.latent_channels * self.vae.dtype.itemsize)

    def seconds(self, codings: Sequence[Coding]) -> list[float]:
        """Seconds of each coding, from timed passes."""
        with tiling(self.vae, False):  # the pieces are cut already
            taken = {
                coder.role: coder.seconds({piece for one in codings if one.coder is coder for piece in one.pieces})
                for coder in (self.decoder, self.encoder)
                if any(one.coder is coder for one in codings)
            }
        return [sum(number * taken[one.coder.role][piece] for piece, number in one.pieces.items()) for one in codings]

    def _coding(self, coder: MeasuredNetwork, size: Size, tile_bytes: int) -> Coding:
        at_once = 1 if self.frames is None else min(self.frames, frames_at_once(self.batch, size))
        tiles = self._tiles(size, self.batch * at_once)
        return Coding(coder, tiles, self._pieces(size, self.frames or 1, at_once), tile_bytes)

    def _tiles(self, size: Size, batch: int) -> Counter[Shape]:
        """The pieces that `AutoencoderKL.tiled_decode` and `tiled_encode` cut latents into."""
        height, width = (side // self.factor for side in size)
        tile = self.vae.tile_latent_min_size
        if not self.tiled or max(height, width) <= tile:
            return Counter({(batch, height, width): 1})
        stride = int(tile * (1 - self.vae.tile_overlap_factor))
        rows, columns = ([min(tile, side - start) for start in range(0, side, stride)] for side in (height, width))
        return Counter((batch, row, column) for row, column in itertools.product(rows, columns))

    def _pieces(self, size: Size, frames: int, at_once: int) -> Counter[Shape]:
        """All pieces that a coder processes: `at_once` frames of each clip together, in tiles."""
        pieces: Counter[Shape] = Counter()
        for length, number in ((at_once, frames // at_once), (frames % at_once, 1)):
            for tile, count in self._tiles(size, self.batch * length).items() if length else ():
                pieces[tile] += number * count
        return pieces
