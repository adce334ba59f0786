"""The tab that makes clips."""

from __future__ import annotations

from typing import Any

import gradio as gr

from selfcascade.options.presets import PRESETS
from selfcascade.web.create_tab import drawn
from selfcascade.web.desk import LIGHT, MODEL, PROGRESS, Desk, advanced, report_to, spoken, stage_gallery
from selfcascade.web.form import options_of

PROMPT = "a large red boat in the middle sails to the right over the sea"


def clip_tab(desk: Desk) -> None:
    """The tab and what its buttons do."""
    with gr.Tab("Clip", id="clip"), gr.Row():
        with gr.Column(scale=5, min_width=320):
            prompt = gr.Textbox(PROMPT, label="Prompt", lines=2, max_length=8000)
            preset = gr.Dropdown(["", *PRESETS], value="", label="Preset", info="Empty: the model's default.")
            scale = gr.Slider(1, 4, 2, step=0.5, label="Scale")
            with gr.Row():
                frames = gr.Number(16, precision=0, label="Frames", min_width=90)
                fps = gr.Number(8, label="FPS", min_width=90)
            with gr.Row():
                seed = gr.Number(0, precision=0, label="Seed", min_width=110)
                draw = gr.Checkbox(False, label="New seed each time", min_width=110)
            found, fields = advanced("generate")
            with gr.Row():
                run = gr.Button("Make the clip", variant="primary", min_width=150)
                cancel = gr.Button("Cancel", min_width=90)
        with gr.Column(scale=7, min_width=320):
            note = gr.Markdown("A clip of 16 frames takes about 16 times as long as a picture.", elem_classes="note")
            video = gr.Video(label="Clip", interactive=False, loop=True, autoplay=True, height=420)
            stages = stage_gallery("First frame of each stage")

    def clip(request: gr.Request, progress: gr.Progress = PROGRESS, *sent: Any) -> Any:
        draw, prompt, preset, scale, frames, fps, seed, *values = sent
        seed = drawn(draw, seed)
        scale, fps = (float(value) if isinstance(value, int) else value for value in (scale, fps))
        front = {"prompt": prompt, "preset": preset, "scale": scale, "num_frames": frames, "fps": fps, "seed": seed}
        with desk.studio.jobs.job(str(request.session_hash), report_to(progress)) as job:
            options = options_of(desk.studio.clips()[1], front, found, values)
            result = desk.studio.clip(options, job)
        kept = None if result.path is None else desk.shelf.put_copy(result.path)
        return seed, kept, desk.shown(result), desk.told(result)

    settings = [draw, prompt, preset, scale, frames, fps, seed, *fields]
    run.click(spoken(clip), settings, [seed, video, stages, note], **MODEL, show_progress_on=[video])
    cancel.click(desk.cancel, None, note, **LIGHT)
