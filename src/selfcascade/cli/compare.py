"""`compare`: methods side by side, on the same prompt and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from selfcascade.cli import options
from selfcascade.cli.console import Debug, show
from selfcascade.cli.making import Made, check_names, load, make, upsamplers_of
from selfcascade.cli.settings import FINE_TUNED, TUNED, WITH_WEIGHTS, Settings, check_prompt
from selfcascade.media.grids import Panel, picture_grid
from selfcascade.media.save_pictures import SCHEMA, check_output, parameters_text, save_picture, versions

KIND = "selfcascade.comparison"
MAX_PANEL = 512

Prompt = Annotated[str, typer.Argument(help="What the pictures show.")]
Methods = Annotated[str | None, typer.Option(help="Names with commas between them; all unless given.")]


def compare(
    prompt: Prompt,
    methods: Methods = None,
    model: options.Model = None,
    height: options.Height = None,
    width: options.Width = None,
    seed: options.Seed = None,
    steps: options.Steps = None,
    pivot_step: options.PivotStep = None,
    preset: options.Preset = None,
    upsampling: options.Upsampling = None,
    upsamplers: options.Upsamplers = None,
    upsampler_scale: options.UpsamplerScale = None,
    guidance_scale: options.GuidanceScale = None,
    negative_prompt: options.NegativePrompt = None,
    native_size: options.NativeSize = None,
    output: options.Output = Path("outputs/compare.png"),
    device: options.Device = None,
    dtype: options.Dtype = None,
    force: options.Force = False,
    debug: Debug = False,
) -> None:
    """Make the PROMPT's picture with several methods: one captioned grid and a table."""
    given: dict[str, Any] = dict(prompt=prompt, model=model, height=height, width=width, seed=seed)
    given.update(num_inference_steps=steps, pivot_step=pivot_step, preset=preset, upsampling=upsampling)
    given.update(upsamplers=upsamplers, upsampler_scale=upsampler_scale)
    given.update(guidance_scale=guidance_scale, negative_prompt=negative_prompt, native_size=native_size)
    settings, _ = options.gather(None, device=device, dtype=dtype, **given)
    check_prompt(settings)
    check_output(output)
    names = _names(methods, settings)
    if TUNED in names:
        settings = settings.changed(upsamplers=upsamplers_of(settings))
    weights = {"sr": "bundled"}
    for name in names:
        check_names(settings.changed(method=name, weights=weights.get(name)))
    cascade, settings = load(settings)
    made = [make(cascade, settings.changed(method=name, weights=weights.get(name))) for name in names]
    panels = [Panel(one.image, one.settings.method, _note(one)) for one in made]
    side = min(MAX_PANEL, max(256, *made[0].image.size))
    grid = picture_grid(panels, min(len(panels), 4), side, f"{prompt}  (seed {settings.seed})")
    record = {
        "schema": SCHEMA,
        "kind": KIND,
        "pictures": [{key: one.record()[key] for key in ("settings", "result")} for one in made],
        "versions": versions(),
    }
    fields = {"Seed": settings.seed, "Model": settings.model, "Methods": " ".join(names)}
    picture, _ = save_picture(grid, record, output, parameters_text(prompt, settings.negative_prompt, fields), force)
    show(_table(made))
    print(picture)


def _names(methods: str | None, settings: Settings) -> list[str]:
    from selfcascade import METHODS
    from selfcascade.models import BUNDLED_SUPER_RESOLVER

    resolver = settings.model == "bundled" and BUNDLED_SUPER_RESOLVER.is_dir()
    fitting = [name for name in METHODS if name not in FINE_TUNED and (name != "sr" or resolver)]
    fitting = [name for name in fitting if name != TUNED or upsamplers_of(settings) is not None]
    names = fitting if methods is None else [name.strip() for name in methods.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"methods must be different names with commas between them, not {methods!r}")
    lacking = [name for name in names if name in WITH_WEIGHTS and name not in fitting]
    if lacking:
        raise ValueError(f"method {lacking[0]} needs weights of its own; use `generate --weights DIR`")
    return names


def _note(made: Made) -> str:
    return f"{made.image.width} x {made.image.height} pixels, {made.seconds:.1f} s"


def _table(made: list[Made]) -> Table:
    table = Table("method", "size (HxW)", "stages", "steps")
    table.add_column("seconds", justify="right")
    for one in made:
        stages = " > ".join(f"{stage['height']}x{stage['width']}" for stage in one.stages)
        steps = " + ".join(str(stage["steps"]) for stage in one.stages)
        size = f"{one.image.height}x{one.image.width}"
        table.add_row(one.settings.method, size, stages, steps, f"{one.seconds:.2f}")
    return table
