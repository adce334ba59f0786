"""The page: tabs that pass a visitor's settings to the studio, and show the results."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from selfcascade.web.clip_tab import clip_tab
from selfcascade.web.compare_tab import compare_tab
from selfcascade.web.create_tab import create_tab
from selfcascade.web.desk import Desk
from selfcascade.web.form import across
from selfcascade.web.shelf import Shelf
from selfcascade.web.studio import Studio
from selfcascade.web.upscale_tab import upscale_tab

TITLE = "selfcascade"
INTRODUCTION = "Pictures and clips larger than the model was trained for."


def build(studio: Studio, cache: Path, cleaned: tuple[int, int]) -> gr.Blocks:
    """The page of a studio.

    Args:
        studio: The studio that makes pictures.
        cache: Folder for the files that visitors see.
        cleaned: Seconds between cleanings of the cache, and age at which its files are removed.
    """
    desk = Desk(studio, Shelf(cache, studio.limits.cache_bytes // 2, cleaned[1]))
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=cleaned, fill_width=True) as page:
        cascade = studio.cascade
        name = Path(studio.base.model).name  # visitors must not see its path
        model = f"Model: {name}, native size {across(cascade.native_size)}."
        gr.Markdown(f"# {TITLE}\n{INTRODUCTION} {model}", elem_id="head")
        with gr.Tabs():
            if studio.makes_pictures:
                create_tab(desk, page)
                upscale_tab(desk)
            clip_tab(desk)
            if studio.makes_pictures:
                compare_tab(desk)
        page.unload(desk.left)
    return page
