"""Collages as training data: composed on demand, at any size, without end."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data.collages import (
    SPLITS,
    Assets,
    Split,
    bundled_assets,
    caption,
    open_assets,
    render,
    sample_collage,
)
from selfcascade.data.examples import DataError, Entry, Fingerprint, Skip, Source, fingerprint_of
from selfcascade.data.scenes_source import EPOCH, epoch_start

COLLAGES = "collages"


class CollagesSource(Source):
    """Collages by number; an epoch is a million of them.

    Args:
        size: Size of the renders.
        assets: Cut-outs and backgrounds; None: the bundled ones.
        split: The split that combinations are drawn from.

    Raises:
        DataError: The assets are too few for that split.
    """

    def __init__(self, size: Size, assets: Assets | None = None, split: Split = "train") -> None:
        self.size, self.assets = size, assets or bundled_assets()
        self.split: Split = split
        try:
            sample_collage(0, split, assets=self.assets)
        except ValueError as error:
            raise DataError(str(error)) from error

    def __len__(self) -> int:
        return EPOCH

    def entry(self, seed: int, epoch: int, index: int) -> Entry:
        """The collage at an index of the epoch; seed and epoch decide the number of the first."""
        number = epoch_start(seed, epoch) + index
        collage = sample_collage(number, self.split, assets=self.assets)
        words = caption(collage, number, assets=self.assets)
        key = f"collage-{number}" if self.split == "train" else f"collage-{self.split}-{number}"
        return Entry(key, words, functools.partial(self._render, number, key))

    def fingerprint(self) -> Fingerprint:
        """A digest of the cut-outs and photographs."""
        files = [(file.name, file) for file in self.assets.files]
        return fingerprint_of(len(self), files, tuple(self.size), self.split)

    def _render(self, number: int, key: str) -> Image.Image:
        collage = sample_collage(number, self.split, assets=self.assets)
        try:
            pixels = render(collage, self.size.height, self.size.width, assets=self.assets)
        except ValueError as error:
            raise Skip("a cut-out or photograph cannot be used", f"{key}: {error}") from error
        return Image.fromarray((pixels * 255).round().astype(np.uint8))


def names_collages(name: str) -> bool:
    """Whether this name of training data means collages: "collages", or "collages:" and the user's own assets."""
    return name == COLLAGES or name.startswith(f"{COLLAGES}:")


@functools.cache
def parse_collages(name: str) -> tuple[Assets, Split]:
    """Parses "collages:sprites=DIR,backgrounds=DIR,split=NAME", where each part is optional.

    Raises:
        DataError: The name is malformed, or a folder has too few files.
    """
    given: dict[str, str] = {}
    for part in filter(None, name.removeprefix(COLLAGES).removeprefix(":").split(",")):
        key, _, value = part.partition("=")
        if key not in ("sprites", "backgrounds", "split") or not value or key in given:
            raise DataError(
                f"{name!r} must be 'collages' or 'collages:sprites=DIR,backgrounds=DIR,split=NAME', each once"
            )
        given[key] = value
    wanted = given.pop("split", "train")
    split: Split | None = next((own for own in SPLITS if own == wanted), None)
    if split is None:
        raise DataError(f"split of {name!r} must be one of {', '.join(SPLITS)}, not {wanted!r}")
    folders = {key: Path(value).expanduser() for key, value in given.items()}
    return open_assets(**folders) if folders else bundled_assets(), split
