"""The page's folder of files for visitors, which is limited in size."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from pathlib import Path

from PIL import Image


class Shelf:
    """Files for visitors, under names that cannot be guessed; the oldest are removed for new ones.

    Args:
        folder: The folder, which nothing else may write to.
        most: Largest size, in bytes.
        kept: Seconds until a file is removed.
    """

    def __init__(self, folder: Path, most: int, kept: float) -> None:
        self.folder, self.most, self.kept = folder, most, kept

    def put_copy(self, file: Path) -> str:
        """Copies a file, byte for byte; returns the path."""
        path = self._place(file.name)
        shutil.copyfile(file, path)
        return str(path)

    def put_image(self, image: Image.Image, name: str) -> str:
        """Saves a picture as a PNG; returns the path."""
        path = self._place(f"{name}.png")
        image.save(path, "PNG", compress_level=3)
        return str(path)

    def sweep(self) -> None:
        """Removes files that are too old, and the oldest if the folder is too large."""
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
                file.parent.rmdir()  # if it was the last file

    def _place(self, name: str) -> Path:
        self.sweep()
        place = self.folder / secrets.token_hex(16)
        place.mkdir(mode=0o700)
        return place / Path(name).name
