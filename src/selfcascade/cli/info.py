"""`info`: shows what is installed, and facts about a model."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from selfcascade.cli.console import Debug, show
from selfcascade.cli.flags import with_options
from selfcascade.cli.records import gather
from selfcascade.making import load
from selfcascade.media.save_pictures import versions
from selfcascade.options import Options


@with_options("info")
def info(given: dict[str, Any], debug: Debug = False) -> None:
    """Show versions, methods, presets, and facts about the bundled or another model."""
    from selfcascade import METHODS, PRESETS
    from selfcascade.models import BUNDLED, find_device

    options, _ = gather(given)
    facts = model_facts(options) if "model" in given or BUNDLED.is_dir() else {"model": "bundled: not installed"}
    rows: dict[str, dict[str, str]] = {
        "versions": versions(),
        "device": {"used": find_device(options.device)},
        "methods": {name: method.summary for name, method in METHODS.items()},
        "presets": {name: preset.summary for name, preset in PRESETS.items()},
        "model": facts,
    }
    for heading, values in rows.items():
        table = Table(box=None, show_header=False, title=heading, title_justify="left", title_style="bold")
        for name, value in values.items():
            table.add_row(name, value)
        show(table)


def model_facts(options: Options) -> dict[str, str]:
    """Class, sizes, scheduler and parameters of the options' model."""
    cascade, options = load(options, video=True)
    pipe: Any = cascade.pipe
    # AnimateDiff's U-Net has a copy of its motion adapter.
    parts = {name: part for name, part in pipe.components.items() if name != "motion_adapter"}
    modules = {name: part for name, part in parts.items() if hasattr(part, "parameters")}
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in modules.items()}
    sizes = ", ".join(f"{name} {count / 1e6:.1f}M" for name, count in counts.items())
    clips = {}
    if cascade.family.video:
        most, step = cascade.family.most_frames, cascade.family.frame_step
        text = f"{options.num_frames} by default" + (f", {step} k + 1" if step > 1 else "")
        clips = {"frames": text + ("" if most is None else f", at most {most}")}
    return {
        "name": options.model,
        "class": type(pipe).__name__,
        "native size (HxW)": str(cascade.native_size),
        **clips,
        "sizes are multiples of": f"{cascade.multiple} pixels",
        "scheduler": type(pipe.scheduler).__name__,
        "parameters": f"{sum(counts.values()) / 1e6:.1f}M ({sizes})",
        "default steps": str(options.num_inference_steps),
        "default guidance scale": str(options.guidance_scale),
        "default preset": cascade.default_preset,
    }
