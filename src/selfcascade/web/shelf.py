"""The page's own folder of files that visitors are shown, which holds a limited number of bytes."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from pathlib import Path

from PIL import Image


class Shelf:
    """Files for visitors, under names that cannot be guessed; the oldest make room for new ones.

    Args:
        folder: The folder, which nothing else writes to.
        most: Bytes that it holds at most.
        kept: Seconds after which a file is removed.
    """

    def __init__(self, folder: Path, most: int, kept: float) -> None:
        self.folder, self.most, self.kept = folder, most, kept

    def put_copy(self, file: Path) -> str:
        """A copy of a file, byte for byte; its path."""
        path = self._place(file.name)
        shutil.copyfile(file, path)
        return str(path)

    def put_image(self, image: Image.Image, name: str) -> str:
        """A picture as a PNG; its path."""
        path = self._place(f"{name}.png")
        image.save(path, "PNG", compress_level=3)
        return str(path)

    def sweep(self) -> None:
        """Removes what is too old, and the oldest of what is too much."""
        found: list[tuple[float, int, Path]] = []
        for file in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                state = file.stat()
                if file.is_file():
                    found.append((state.st_mtime, state.st_size, file))
        held, now = sum(size for _, size, _ in found), time.time()
        for changed, size, file in sorted(found):
            if held <= self.most and now - changed < self.kept:
                return
            held -= size
            with contextlib.suppress(OSError):
                file.unlink()
                file.parent.rmdir()  # where it was the last

    def _place(self, name: str) -> Path:
        self.sweep()
        place = self.folder / secrets.token_hex(16)
        place.mkdir(mode=0o700)
        return place / Path(name).name
