"""Draws docs/collages.webp: collages of held-out combinations, and one of them at several sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from selfcascade.data.collages import caption, render, sample_collage
from selfcascade.media.whole_files import write_whole

SHEET = Path(__file__).parents[2] / "docs/collages.webp"
SIDE, COLUMNS, ROWS, GAP = 176, 6, 3, 4
SHOWN = 5  # the number of the collage at several sizes


def drawn(number: int, height: int, width: int) -> Image.Image:
    """A held-out collage as a picture."""
    pixels = render(sample_collage(number, "validation"), height, width)
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def main() -> None:
    """Writes the sheet and prints the captions."""
    step = SIDE + GAP
    top = ROWS * step
    sheet = Image.new("RGB", (COLUMNS * step - GAP, top + 320), "white")
    for number in range(ROWS * COLUMNS):
        sheet.paste(drawn(number, SIDE, SIDE), (number % COLUMNS * step, number // COLUMNS * step))
        print(caption(sample_collage(number, "validation"), number))
    left = 0
    for height, width in ((64, 64), (128, 128), (320, 320), (320, 540)):
        sheet.paste(drawn(SHOWN, height, width), (left, top))
        left += width + GAP
    write_whole(SHEET, lambda aside: sheet.save(aside, "WEBP", quality=84, method=5))
    print(f"{SHEET.name}: {SHEET.stat().st_size / 1000:.0f} kB, {sheet.size}")


if __name__ == "__main__":
    main()
