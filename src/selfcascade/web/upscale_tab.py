"""The tab that enlarges a visitor's picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from selfcascade.options.presets import PRESETS
from selfcascade.web.create_tab import drawn
from selfcascade.web.desk import (
    LIGHT,
    MODEL,
    PROGRESS,
    Desk,
    advanced,
    file_of,
    from_fields,
    number_slider,
    report_to,
    spoken,
    stage_gallery,
)
from selfcascade.web.forecast import plan_shown, stage_table

TYPES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".gif"]
PREVIEW = 768


def upscale_tab(desk: Desk) -> None:
    """The tab and what its buttons do."""
    with gr.Tab("Upscale", id="upscale"), gr.Row():
        with gr.Column(scale=5, min_width=320):
            file = gr.File(label="Your picture", file_types=TYPES, height=110, elem_id="own-picture")
            seen = gr.Image(label="As it is read", interactive=False, height=220, buttons=[])
            words = "Best said in a few words; without them the model guesses what to add."
            prompt = gr.Textbox("", label="What it shows", info=words, lines=2, max_length=8000)
            preset = gr.Dropdown(list(PRESETS), value=desk.studio.cascade.default_preset, label="Preset")
            scale = number_slider(1, 8, 2, step=0.5, label="Scale")
            with gr.Row():
                seed = gr.Number(0, precision=0, label="Seed", min_width=110)
                draw = gr.Checkbox(False, label="New seed each time", min_width=110)
            found, fields = advanced("compare")
            with gr.Row():
                run = gr.Button("Upscale", variant="primary", min_width=150)
                cancel = gr.Button("Cancel", min_width=90)
            cost = gr.Markdown("", elem_classes="plan")
        with gr.Column(scale=7, min_width=320):
            note = gr.Markdown("Drop a picture, say what it shows.", elem_classes="note")
            slider = gr.ImageSlider(label="Before and after", interactive=False, max_height=560)
            stages = stage_gallery("Stages")
            saved = gr.DownloadButton("Download the picture", interactive=False)

    def preview(file: Any) -> tuple[str, str]:
        path = Path(file_of(file))
        image = desk.studio.read_picture(path, path.name)
        words = f"{path.name}: {image.width} x {image.height}."
        image.thumbnail((PREVIEW, PREVIEW))
        return desk.shelf.put_image(image, "own"), words

    def upscale(request: gr.Request, progress: gr.Progress = PROGRESS, *sent: Any) -> Any:
        file, draw, prompt, preset, scale, seed, *values = sent
        path, seed = Path(file_of(file)), drawn(draw, seed)
        scale = float(scale) if isinstance(scale, int) else scale
        front = {"prompt": prompt, "preset": preset, "scale": scale, "seed": seed}
        options = from_fields(desk, front, found, values)
        with desk.studio.jobs.job(str(request.session_hash), report_to(progress)) as job:
            own, result = desk.studio.upscale(options, path, path.name, job)
        shown = desk.shown(result)
        if result.path is None:
            return seed, None, shown, gr.DownloadButton(interactive=False), desk.told(result)
        before = own.resize(result.made.image.size, Image.Resampling.LANCZOS)
        pair = (desk.shelf.put_image(before, "before"), shown[-1][0])
        return seed, pair, shown, gr.DownloadButton(value=shown[-1][0], interactive=True), desk.told(result)

    def plan_upscale(file: Any, preset: Any, scale: Any, *values: Any) -> str:
        if not file:
            return ""
        path, scale = Path(file_of(file)), float(scale) if isinstance(scale, int) else scale
        options = from_fields(desk, {"preset": preset, "scale": scale}, found, values)
        return stage_table(desk.studio.plan_upscale(options, path, path.name))

    file.upload(spoken(preview), file, [seen, note], **LIGHT)
    settings = [file, draw, prompt, preset, scale, seed, *fields]
    results = [seed, slider, stages, saved, note]
    upscaled = run.click(spoken(upscale), settings, results, **MODEL, show_progress_on=[slider])
    changes = [field.change for field in (file, preset, scale, *fields)]
    plan_shown(plan_upscale, [file, preset, scale, *fields], changes, cost, [upscaled])
    cancel.click(desk.cancel, None, note, **LIGHT)
