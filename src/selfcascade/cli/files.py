"""Options about output files, which do not change any pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MAX_COUNT = 10_000

Count = Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="Pictures or clips to make.")]
Sheet = Annotated[bool, typer.Option("--sheet", help="Also write a contact sheet of a clip, NAME.sheet.png.")]
Output = Annotated[Path, typer.Option(help="A .png, .jpg, .webp, .avif or .tiff; a taken name gets a number.")]
AnyOutput = Annotated[
    Path | None,
    typer.Option(
        help="A .png, .jpg, .webp, .avif or .tiff; for video a .mp4, .gif, .webp or a folder for frames. "
        "A taken name gets a number; fields are filled in: '{prompt:.30}-{seed}-{width}x{height}.png'."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite instead of numbering.")]
Record = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="FILE", help="Take options from a picture, a clip (not a .gif), or the .json next to it."
    ),
]
