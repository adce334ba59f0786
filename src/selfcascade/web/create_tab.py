"""The tab that makes cheap base samples first, and then enlarges the one that was picked."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from selfcascade.options.presets import PRESETS, preset_named
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
from selfcascade.web.form import RATIOS, sides, typed
from selfcascade.web.reading import read_settings

PROMPT = "a large red house on the left at night"
DRAWN = 2**32
PICK = "Pick one, then enlarge it."
STATE_SECONDS = 3600


@dataclass(frozen=True)
class Front:
    """The fields in front: prompt, preset, size, seed."""

    prompt: Any
    preset: Any
    height: Any
    width: Any
    seed: Any

    def options(self, values: Sequence[Any]) -> dict[str, Any]:
        """The first values of a handler, by option."""
        return dict(zip(vars(self), values[: len(vars(self))], strict=True))

    def changes(self) -> list[Any]:
        """The events after which another plan holds."""
        return [self.preset.change, self.width.change, self.height.change]


def front_fields(desk: Desk, preset: bool = True) -> tuple[Front, Any]:
    """The fields in front, and the switch that draws a new seed each time."""
    cascade = desk.studio.cascade
    start = sides(cascade.native_size, 2.0, "1:1", cascade.multiple)
    prompt = gr.Textbox(PROMPT, label="Prompt", lines=2, max_length=8000)
    chosen = gr.Dropdown(list(PRESETS), value=cascade.default_preset, label="Preset", visible=preset)
    with gr.Row():
        scale = number_slider(1, 8, 2, step=0.5, label="Scale", min_width=150)
        ratio = gr.Dropdown(list(RATIOS), value="1:1", label="Ratio", min_width=100)
    with gr.Row():
        width = gr.Number(start.width, precision=0, label="Width", min_width=90)
        height = gr.Number(start.height, precision=0, label="Height", min_width=90)
    with gr.Row():
        seed = gr.Number(0, precision=0, label="Seed", min_width=110)
        draw = gr.Checkbox(False, label="New seed each time", min_width=110)

    def resize(scale: float, ratio: str) -> tuple[int, int]:
        size = sides(cascade.native_size, scale, ratio, cascade.multiple)
        return size.width, size.height

    gr.on(
        [scale.input, ratio.input], spoken(resize), [scale, ratio], [width, height], trigger_mode="always_last", **LIGHT
    )
    return Front(prompt, chosen, height, width, seed), draw


def drawn(draw: bool, seed: Any) -> Any:
    """A new seed if wanted, otherwise the current one."""
    return secrets.randbelow(DRAWN) if draw is True else seed


def create_tab(desk: Desk, page: gr.Blocks) -> None:
    """The tab and what its buttons do."""
    with gr.Tab("Create", id="create"), gr.Row():
        with gr.Column(scale=5, min_width=320):
            front, draw = front_fields(desk)
            count = number_slider(1, desk.studio.limits.samples, 4, step=1, label="Base samples")
            found, fields = advanced("compare")
            with gr.Accordion("Settings from a picture", open=False):
                dropped = gr.File(label="A PNG with its settings", file_types=[".png", ".json"], height=110)
            with gr.Row():
                sample = gr.Button("Base samples", variant="primary", min_width=105)
                enlarge = gr.Button("Enlarge", variant="primary", min_width=80)
                cancel = gr.Button("Cancel", min_width=70)
            cost = gr.Markdown("", elem_classes="plan")
        made = gr.State(None, time_to_live=STATE_SECONDS)
        picked = gr.State(None, time_to_live=STATE_SECONDS)
        with gr.Column(scale=7, min_width=320):
            note = gr.Markdown("Base samples are cheap: make some, pick one, enlarge it.", elem_classes="note")
            samples = gr.Gallery(
                label="Base samples",
                columns=4,
                object_fit="contain",
                allow_preview=False,
                interactive=False,
                elem_id="base-samples",
                elem_classes=["base-samples", "below-label"],
            )
            slider = gr.ImageSlider(label="Before and after", interactive=False, max_height=520, elem_id="before-after")
            stages = stage_gallery("Stages")
            saved = gr.DownloadButton("Download the picture", interactive=False, elem_id="download")
    settings = [*vars(front).values(), *fields]
    sampling = _sampling(desk, front, found)
    sampled = sample.click(
        spoken(sampling),
        [draw, count, *settings],
        [front.seed, samples, made, picked, note],
        **MODEL,
        show_progress_on=[samples],
    )
    samples.select(spoken(_pick), made, [picked, note], trigger_mode="always_last", **LIGHT)
    enlarged = enlarge.click(
        spoken(_enlarging(desk, front, found)), [made, picked, *settings], [slider, stages, saved, note], **MODEL,
        show_progress_on=[slider],
    )  # fmt: skip
    cancel.click(desk.cancel, None, note, **LIGHT)
    dropped.upload(spoken(_reading(desk, found)), dropped, [*vars(front).values(), *fields, note], **LIGHT)
    changes = [page.load, *front.changes(), *(field.change for field in fields)]
    plan_shown(_planning(desk, front, found), settings, changes, cost, (sampled, enlarged))


def _planning(desk: Desk, front: Front, found: Any) -> Any:
    def plan(*values: Any) -> str:
        given = front.options(values) | {"prompt": "-"}
        return stage_table(desk.studio.plan(from_fields(desk, given, found, values[len(vars(front)) :])))

    return plan


def _sampling(desk: Desk, front: Front, found: Any) -> Any:
    def sampling(request: gr.Request, progress: gr.Progress = PROGRESS, *sent: Any) -> Iterator[Any]:
        draw, count, *values = sent
        given = front.options(values)
        given["seed"] = drawn(draw, given["seed"])
        options = from_fields(desk, given, found, values[len(vars(front)) :])
        several, shown = [], []
        count = int(count) if isinstance(count, float) and count.is_integer() else count  # as a browser has it
        with desk.studio.jobs.job(str(request.session_hash), report_to(progress)) as job:
            for one in desk.studio.base_samples(options, count, job):
                several.append(one)
                name = f"base-{one.options.seed}"
                shown.append((desk.shelf.put_image(one.image, name), f"seed {one.options.seed}"))
                yield given["seed"], gr.Gallery(shown, selected_index=None), several, None, PICK

    return sampling


def _pick(several: Any, event: gr.SelectData) -> tuple[int, str]:
    if not isinstance(several, list) or not isinstance(event.index, int) or not 0 <= event.index < len(several):
        raise ValueError("make base samples first")
    return event.index, f"Picked the base sample of seed {several[event.index].options.seed}."


def _enlarging(desk: Desk, front: Front, found: Any) -> Any:
    def enlarging(request: gr.Request, progress: gr.Progress = PROGRESS, *sent: Any) -> Any:
        several, index, *values = sent
        options = from_fields(desk, front.options(values), found, values[len(vars(front)) :])
        if index is not None and not several:
            raise ValueError("the base samples are gone; make them again, and pick one")
        chosen = several[index if index is not None else 0] if several else None
        with desk.studio.jobs.job(str(request.session_hash), report_to(progress)) as job:
            result = desk.studio.create(options, chosen, job)
        shown = desk.shown(result)
        if result.path is None:
            return None, shown, gr.DownloadButton(interactive=False), desk.told(result)
        whole = result.made.image
        before = result.stages[0][0].resize(whole.size, Image.Resampling.BICUBIC)
        pair = (desk.shelf.put_image(before, "before"), shown[-1][0])
        return pair, shown, gr.DownloadButton(value=shown[-1][0], interactive=True), desk.told(result)

    return enlarging


def _reading(desk: Desk, found: Any) -> Any:
    def reading(file: Any) -> list[Any]:
        path = Path(file_of(file))
        options, remark = read_settings(path, path.name)
        preset = desk.studio.cascade.default_preset if options.preset is None else preset_named(options.preset).name
        kept = options.changed(**dict.fromkeys(_of_preset(options))) if options.preset is not None else options
        front = [options.prompt, preset, options.height, options.width, options.seed]
        return [*front, *(typed(entry, getattr(kept, entry.name)) for entry in found), f"Settings {remark}."]

    return reading


def _of_preset(options: Any) -> list[str]:
    """Options in a record that repeat the values of its preset."""
    preset = preset_named(options.preset)
    return [
        name
        for name in ("upsampling", "anchor", "energy", "attention")
        if getattr(options, name) == getattr(preset, name)
    ]
