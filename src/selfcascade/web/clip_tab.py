"""The tab that makes clips."""

from __future__ import annotations

from typing import Any

import gradio as gr

from selfcascade.options.presets import PRESETS
from selfcascade.web.create_tab import drawn
from selfcascade.web.desk import LIGHT, MODEL, PROGRESS, Desk, advanced, number_slider, report_to, spoken, stage_gallery
from selfcascade.web.forecast import plan_shown, stage_table
from selfcascade.web.form import options_of

PROMPT = "a large red boat in the middle sails to the right over the sea"


def clip_tab(desk: Desk) -> None:
    """The tab and what its buttons do."""
    with gr.Tab("Clip", id="clip") as tab, gr.Row():
        with gr.Column(scale=5, min_width=320):
            prompt = gr.Textbox(PROMPT, label="Prompt", lines=2, max_length=8000)
            preset = gr.Dropdown(["", *PRESETS], value="", label="Preset", info="Empty: the model's default.")
            scale = number_slider(1, 4, 2, step=0.5, label="Scale")
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
            cost = gr.Markdown("", elem_classes="plan")
        with gr.Column(scale=7, min_width=320):
            note = gr.Markdown("A clip of 16 frames takes about 16 times as long as a picture.", elem_classes="note")
            video = gr.Video(label="Clip", interactive=False, loop=True, autoplay=True, height=420)
            stages = stage_gallery("First frame of each stage")

    def asked(prompt: Any, preset: Any, scale: Any, frames: Any, fps: Any, seed: Any, *values: Any) -> Any:
        scale, fps = (float(value) if isinstance(value, int) else value for value in (scale, fps))
        front = {"prompt": prompt, "preset": preset, "scale": scale, "num_frames": frames, "fps": fps, "seed": seed}
        return options_of(desk.studio.clips()[1], front, found, values)

    def plan_clip(*values: Any) -> str:
        with desk.studio.idle():  # also while the model is loaded
            return stage_table(desk.studio.plan(asked("-", *values), video=True))

    def clip(request: gr.Request, progress: gr.Progress = PROGRESS, *sent: Any) -> Any:
        draw, *values = sent
        values[5] = seed = drawn(draw, values[5])
        with desk.studio.jobs.job(str(request.session_hash), report_to(progress)) as job:
            result = desk.studio.clip(asked(*values), job)
        kept = None if result.path is None else desk.shelf.put_copy(result.path)
        return seed, kept, desk.shown(result), desk.told(result)

    settings = [prompt, preset, scale, frames, fps, seed, *fields]
    results = [seed, video, stages, note]
    made = run.click(spoken(clip), [draw, *settings], results, **MODEL, show_progress_on=[video])
    # The model is loaded when the tab is first looked at, not with the page.
    changes = [tab.select, *(field.change for field in (preset, scale, frames, *fields))]
    plan_shown(plan_clip, settings[1:], changes, cost, [made])
    cancel.click(desk.cancel, None, note, **LIGHT)
