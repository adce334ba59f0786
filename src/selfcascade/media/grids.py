"""Lays out captioned pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from selfcascade.media.images import to_rgb

GAP = 16
INK, FAINT, PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Panel:
    """One picture of a grid.

    Attributes:
        image: Picture of any size, scaled to the panel.
        title: First line below it.
        note: Second, smaller line.
    """

    image: Image.Image
    title: str
    note: str = ""


def picture_grid(
    panels: Sequence[Panel | None], columns: int, side: int = 256, heading: str = "", font_size: int = 16
) -> Image.Image:
    """A grid of panels with captions, below an optional heading.

    Args:
        panels: Panels row by row; None leaves a place empty.
        columns: Panels per row, at least 1.
        side: Longer side of a panel in pixels. Pictures are scaled to it, by pixel repetition if it is a multiple.
        heading: Heading, wrapped to the grid's width.
        font_size: Font size of titles, in pixels.

    Raises:
        ValueError: There are no panels, or `columns` is below 1.
    """
    shown = [panel for panel in panels if panel is not None]
    if not shown or columns < 1:
        raise ValueError(f"a grid needs a panel and a column, not {len(shown)} panels in {columns} columns")
    title_font, note_font = ImageFont.load_default(font_size), ImageFont.load_default(0.85 * font_size)
    pictures = [None if panel is None else _scaled(to_rgb(panel.image), side) for panel in panels]
    width = max(picture.width for picture in pictures if picture is not None)
    height = max(picture.height for picture in pictures if picture is not None)
    captions = [[] if panel is None else _caption(panel, title_font, note_font, width) for panel in panels]
    line = round(1.4 * font_size)
    cell = height + line * max(len(caption) for caption in captions) + GAP
    heading_lines = wrapped(heading, title_font, columns * (width + GAP) - GAP)
    top = GAP + line * len(heading_lines) + (GAP // 2 if heading_lines else 0)
    rows = -(-len(panels) // columns)
    canvas = Image.new("RGB", (GAP + columns * (width + GAP), top + rows * (cell + GAP // 2)), PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, text in enumerate(heading_lines):
        draw.text((GAP, GAP + index * line), text, INK, title_font)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        if picture is None:
            continue
        left, upper = GAP + index % columns * (width + GAP), top + index // columns * (cell + GAP // 2)
        canvas.paste(picture, (left + (width - picture.width) // 2, upper + height - picture.height))
        for row, (text, font, colour) in enumerate(caption):
            draw.text((left, upper + height + GAP // 4 + row * line), text, colour, font)
    return canvas


def _scaled(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    whole = scale >= 1 and side % max(image.size) == 0  # otherwise nearest would make pixels of unequal size
    return image.resize(size, Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS)


def _caption(
    panel: Panel, title_font: Font, note_font: Font, width: int
) -> list[tuple[str, Font, tuple[int, int, int]]]:
    titles = [(text, title_font, INK) for text in wrapped(panel.title, title_font, width)]
    return titles + [(text, note_font, FAINT) for text in wrapped(panel.note, note_font, width)]


def wrapped(text: str, font: Font, width: int, most: int = 4) -> list[str]:
    """At most `most` lines no wider than `width`; a longer text ends in three dots."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(_cut(word, font, width))
        if len(lines) > most:
            return [*lines[: most - 1], _cut(f"{lines[most - 1]} ...", font, width)]
    return lines


def _cut(text: str, font: Font, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    start = text.removesuffix(" ...")
    while start and font.getlength(f"{start}...") > width:
        start = start[:-1]
    return f"{start}..."
