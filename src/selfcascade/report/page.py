"""One self-contained HTML page to browse method x caption x size, with zoom and comparison."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image

from selfcascade.report.paper import TITLES
from selfcascade.report.pictures import Shown, hardest, of_one_size
from selfcascade.report.results import Figure, decimals_of
from selfcascade.report.tables import BESIDE, CLIPS_BESIDE

HERE = Path(__file__).parent
PICTURES, QUALITY = 6, 70  # pictures per row, and their WebP quality: the page stays under three megabytes
FIGURES: dict[str, Figure] = {
    "all right {} %": BESIDE["all right, %"],
    "pFID_r {}": lambda result: result["patch_fid"][0],
    "FID_b {}": lambda result: result["fid_b"][0],
}
CLIP_FIGURES: dict[str, Figure] = {
    "motion right {} %": CLIPS_BESIDE["motion right, %"],
    "FVD_r {}": lambda result: result["fvd"][0],
    "frame pFID_r {}": lambda result: result["frame_patch_fid"][0],
}
BASE = "lanczos"  # the method that a picture is compared with at first: the base sample, only enlarged


def page(tables: Mapping[str, Sequence[Shown]]) -> str:
    """The HTML of the page, including all pictures.

    Args:
        tables: The rows of each suite that have pictures.
    """
    sections = []
    for suite, rows in tables.items():
        sizes = of_one_size(rows)
        sections += [_section(suite, size, own, len(sizes) > 1) for size, own in sizes.items()]
    data = json.dumps({"sections": sections, "base": BASE}, separators=(",", ":")).replace("</", "<\\/")
    text = (HERE / "page.html").read_text()
    for mark, value in (("STYLE", "page.css"), ("SCRIPT", "page.js")):
        text = text.replace(f"/* {mark} */", (HERE / value).read_text())
    return text.replace("DATA", data, 1)


def _section(suite: str, size: tuple[int, int], rows: Sequence[Shown], several: bool) -> dict[str, Any]:
    """The data of one section: one size of a suite."""
    count = min(PICTURES, *(len(row.pictures) for row in rows))
    height, width = size
    judged = any(row.wrong is not None for row in rows)
    return {
        "id": f"{suite}-{height}x{width}" if several else suite,
        "title": TITLES.get(suite, suite).partition(" (")[0] if not several else f"{height} x {width}",
        "about": TITLES.get(suite, suite),
        "height": height,
        "width": width,
        "captions": rows[0].captions[:count],
        "hardest": [index for index in hardest(rows) if index < count] if judged else None,
        "methods": [_method(row, count, several) for row in rows],
    }


def _method(shown: Shown, count: int, several: bool) -> dict[str, Any]:
    row = shown.row
    figures = {text: row.values(reading) for text, reading in (CLIP_FIGURES if row.clips else FIGURES).items()}
    words = {text: mean(values) for text, values in figures.items() if values}
    # Clips are embedded as their sheet, from which the page cuts them, so that they run in step.
    sheet = row.sheet.read_bytes() if row.sheet is not None and row.clips else None
    return {
        # If sizes have their own sections, the name of the sampling adds nothing.
        "name": row.method.rpartition(", ")[0] or row.method if several else row.method,
        "figures": [text.format(f"{value:.{decimals_of(value, 2)}f}") for text, value in words.items()],
        "pictures": [_encoded(picture) for picture in shown.pictures[:count]] if sheet is None else [],
        "sheet": None if sheet is None else base64.b64encode(sheet).decode(),
        "across": len(shown.captions),
        "wrong": None if shown.wrong is None else shown.wrong[:count],
    }


def _encoded(picture: Image.Image) -> str:
    held = io.BytesIO()
    picture.save(held, format="WEBP", quality=QUALITY, method=6)
    return base64.b64encode(held.getvalue()).decode()
