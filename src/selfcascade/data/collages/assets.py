"""The assets of collages: cut-outs by kind and backgrounds by name, bundled or the user's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from selfcascade.data.collages.backgrounds import BACKGROUND_PHRASES, paint_background
from selfcascade.data.collages.names import files_in, noun, texts_in, words_of
from selfcascade.data.collages.photographs import photograph, photographs_in
from selfcascade.data.collages.sprites import Array, Sprite, bundled_sprites, read_sprite
from selfcascade.data.collages.textures import Surface
from selfcascade.data.examples import DataError

ENDINGS = frozenset({".png", ".webp"})


@dataclass(frozen=True)
class Assets:
    """Cut-outs and backgrounds.

    Attributes:
        sprites: Files of cut-outs by kind, a noun without article that captions use.
        backgrounds: Phrases of captions for each background.
        photographs: Files of each background that is not procedural.
    """

    sprites: Mapping[str, tuple[Path, ...]]
    backgrounds: Mapping[str, tuple[str, ...]]
    photographs: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    @functools.cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of cut-outs."""
        return tuple(self.sprites)

    @functools.cached_property
    def background_names(self) -> tuple[str, ...]:
        """Names of the backgrounds."""
        return tuple(self.backgrounds)

    @property
    def files(self) -> list[Path]:
        """Files of all cut-outs and photographs."""
        return [file for kept in (self.sprites, self.photographs) for files in kept.values() for file in files]

    def sprite(self, kind: str, seed: int) -> Sprite:
        """A cut-out of the kind; the seed chooses among several."""
        files = self.sprites[kind]
        return read_sprite(files[seed % len(files)])

    def paint(self, background: str, surface: Surface, texture: float, seed: int) -> Array:
        """A background, (H, W, 3) float32 in [0, 1]; the seed chooses among several photographs of one name."""
        if background in self.photographs:
            files = self.photographs[background]
            return photograph(files[seed % len(files)], surface, seed)
        return paint_background(background, surface, texture, seed)


@functools.cache
def bundled_assets() -> Assets:
    """The cut-outs and the procedural backgrounds that ship with the package."""
    return Assets(bundled_sprites(), BACKGROUND_PHRASES)


def open_assets(sprites: Path | None = None, backgrounds: Path | None = None) -> Assets:
    """Opens a user's own cut-outs, photographs, or both; what is not given is taken from the package.

    Args:
        sprites: Folder of PNG or WebP files with transparency, at any depth. A cut-out's name is the first line of a
            .txt next to it ("A red apple."), as for Tux Paint's stamps, or its file name (red_apple.png).
        backgrounds: Folder of photographs. Captions say "in front of" and the first line of the .txt next to it, or
            the words of its file name.

    Raises:
        DataError: A folder is missing, or holds too little.
    """
    own = bundled_assets()
    kinds = own.sprites if sprites is None else sprites_in(sprites)
    if backgrounds is None:
        return Assets(kinds, own.backgrounds)
    photographs = photographs_in(backgrounds)
    return Assets(kinds, {name: (f"in front of {name}",) for name in photographs}, photographs)


def sprites_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The cut-outs below a folder, by kind.

    Raises:
        DataError: It is missing, or has cut-outs of fewer than two kinds.
    """
    if not folder.is_dir():
        raise DataError(f"sprites {str(folder)!r} is not a folder")
    found: dict[str, list[Path]] = {}
    texts = texts_in(folder)
    for path in files_in(folder, ENDINGS, "sprites"):
        found.setdefault(noun(words_of(path, texts)), []).append(path)
    if len(found) < 2:
        raise DataError(f"sprites {str(folder)!r} must have PNG or WebP files of at least two kinds, not {len(found)}")
    return {kind: tuple(files) for kind, files in found.items()}
