"""The tab that compares presets and methods for one prompt and seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from selfcascade.web.create_tab import drawn, front_fields
from selfcascade.web.desk import LIGHT, MODEL, PROGRESS, Desk, advanced, from_fields, report_to, spoken
from selfcascade.web.forecast import plan_shown, way_table
from selfcascade.web.sheet import save_sheet
from selfcascade.web.ways import ways

CHOSEN = ("direct", "quality", "fast")


def compare_tab(desk: Desk) -> None:
    """The tab and what its buttons do."""
    known = ways(desk.studio.base)
    with gr.Tab("Compare", id="compare") as tab, gr.Row():
        with gr.Column(scale=5, min_width=320):
            front, draw = front_fields(desk, preset=False)
            most = desk.studio.limits.compared
            chosen = gr.CheckboxGroup(known, value=list(CHOSEN), label=f"Presets and methods, at most {most}")
            found, fields = advanced("compare")
            with gr.Row():
                run = gr.Button("Compare", variant="primary", min_width=150)
                cancel = gr.Button("Cancel", min_width=90)
            cost = gr.Markdown("", elem_classes="plan")
        with gr.Column(scale=7, min_width=320):
            note = gr.Markdown("Each way takes the settings that it has.", elem_classes="note")
            pictures = gr.Gallery(
                label="Side by side",
                columns=3,
                object_fit="contain",
                height="auto",
                interactive=False,
                elem_classes=["below-label", "large"],
            )
            table = gr.Markdown("", elem_classes="plan")
            saved = gr.DownloadButton("Download the sheet", interactive=False, elem_id="download-sheet")

    def plan_ways(chosen: Any, *values: Any) -> str:
        given = front.options(values) | {"preset": None, "prompt": "-"}
        options = from_fields(desk, given, found, values[len(vars(front)) :])
        return way_table(desk.studio.plan_ways(options, chosen))

    def compare(request: gr.Request, progress: gr.Progress = PROGRESS, *sent: Any) -> Iterator[Any]:
        draw, chosen, *values = sent
        given = front.options(values) | {"preset": None}
        given["seed"] = drawn(draw, given["seed"])
        options = from_fields(desk, given, found, values[len(vars(front)) :])
        done, shown, told, rows = [], [], "", ["| way | stages | steps | seconds |", "|---|---|---|--:|"]
        with desk.studio.jobs.job(str(request.session_hash), report_to(progress)) as job:
            for way, result in desk.studio.compare(options, chosen, job):
                made = result.made
                done.append((way, made))
                shown.append((desk.shown(result)[-1][0], f"{way}, {made.seconds:.1f} s"))
                sizes = " > ".join(f"{stage['width']} x {stage['height']}" for stage in made.stages)
                steps = " + ".join(str(stage["steps"]) for stage in made.stages)
                rows.append(f"| {way} | {sizes} | {steps} | {made.seconds:.1f} |")
                told = f"{len(shown)} of {len(chosen)}."
                yield given["seed"], shown, "\n".join(rows), gr.DownloadButton(interactive=False), told
        sheet = save_sheet(done, desk.studio.output)
        button = gr.DownloadButton(value=desk.shelf.put_copy(sheet), interactive=True)
        yield given["seed"], shown, "\n".join(rows), button, f"{told} Saved as `{sheet.name}`."

    settings = [chosen, *vars(front).values(), *fields]
    results = [front.seed, pictures, table, saved, note]
    compared = run.click(spoken(compare), [draw, *settings], results, **MODEL, show_progress_on=[pictures])
    changes = [tab.select, chosen.change, *front.changes(), *(field.change for field in fields)]
    plan_shown(plan_ways, settings, changes, cost, [compared])
    cancel.click(desk.cancel, None, note, **LIGHT)
