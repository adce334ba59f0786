"""`generate` and `upscale`: pictures and clips on disk, each with what it takes to make it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfcascade.cli import options
from selfcascade.cli.console import Debug, note
from selfcascade.cli.making import Made, check_names, load, make
from selfcascade.cli.saving import check_spares_source, check_target, save, target
from selfcascade.cli.settings import TUNED, Settings, check_count, check_prompt
from selfcascade.cli.sources import read_source, source_for

Prompt = Annotated[str | None, typer.Argument(help="What the picture or clip shows.", show_default=False)]
SourceImage = Annotated[str, typer.Argument(metavar="FILE", help="The picture to enlarge; for video, the clip.")]
ImagePrompt = Annotated[str | None, typer.Option("--prompt", help="What the picture shows; it guides the new detail.")]
Start = Annotated[float | None, typer.Option(help="Seconds into the clip where to begin, 0 unless given.")]
Method = Annotated[str | None, typer.Option(help="'self-cascade' (the default), 'direct', ...; `info` lists them.")]


def generate(
    prompt: Prompt = None,
    model: options.Model = None,
    height: options.Height = None,
    width: options.Width = None,
    seed: options.Seed = None,
    count: options.Count = 1,
    steps: options.Steps = None,
    pivot_step: options.PivotStep = None,
    preset: options.Preset = None,
    upsampling: options.Upsampling = None,
    anchor: options.Anchor = None,
    energy: options.Energy = None,
    upsamplers: options.Upsamplers = None,
    upsampler_scale: options.UpsamplerScale = None,
    guidance_scale: options.GuidanceScale = None,
    negative_prompt: options.NegativePrompt = None,
    method: Method = None,
    weights: options.Weights = None,
    in_cascade: options.InCascade = None,
    native_size: options.NativeSize = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    shared_noise: options.SharedNoise = None,
    sheet: options.Sheet = False,
    output: options.AnyOutput = None,
    record: options.Record = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    force: options.Force = False,
    debug: Debug = False,
) -> None:
    """Make a picture of a PROMPT, larger than the model was trained for, or a clip where the model makes video."""
    if prompt is None and record is None:
        raise ValueError("give a PROMPT, or --from with the .json or .png of an earlier picture")
    given: dict[str, Any] = dict(prompt=prompt, model=model, method=method, height=height, width=width, seed=seed)
    given.update(num_inference_steps=steps, pivot_step=pivot_step, preset=preset, upsampling=upsampling)
    given.update(anchor=anchor, energy=energy)
    given.update(upsamplers=upsamplers, upsampler_scale=upsampler_scale, weights=weights, in_cascade=in_cascade)
    given.update(guidance_scale=guidance_scale, negative_prompt=negative_prompt, native_size=native_size)
    given.update(frames=frames, fps=fps, shared_noise=shared_noise)
    settings, sha256 = options.gather(record, output, device=device, dtype=dtype, **given)
    made = _write(settings, check_count(count), output, "picture", force, sheet)
    if sha256 is not None:
        same = made.record()["result"]["sha256"] == sha256
        note(f"the pixels are {'the same as' if same else 'NOT the same as'} recorded in {record}")


def upscale(
    image: SourceImage,
    prompt: ImagePrompt = None,
    model: options.Model = None,
    height: options.Height = None,
    width: options.Width = None,
    seed: options.Seed = None,
    count: options.Count = 1,
    steps: options.Steps = None,
    pivot_step: options.PivotStep = None,
    preset: options.Preset = None,
    upsampling: options.Upsampling = None,
    anchor: options.Anchor = None,
    energy: options.Energy = None,
    upsamplers: options.Upsamplers = None,
    upsampler_scale: options.UpsamplerScale = None,
    guidance_scale: options.GuidanceScale = None,
    negative_prompt: options.NegativePrompt = None,
    native_size: options.NativeSize = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    start: Start = None,
    shared_noise: options.SharedNoise = None,
    sheet: options.Sheet = False,
    output: options.AnyOutput = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    force: options.Force = False,
    debug: Debug = False,
) -> None:
    """Enlarge your own picture or clip, twice a side unless --height and --width say otherwise."""
    given: dict[str, Any] = dict(image=image, prompt=prompt, model=model, height=height, width=width, seed=seed)
    given.update(num_inference_steps=steps, pivot_step=pivot_step, preset=preset, upsampling=upsampling)
    given.update(anchor=anchor, energy=energy)
    given.update(upsamplers=upsamplers, upsampler_scale=upsampler_scale)
    given.update(guidance_scale=guidance_scale, negative_prompt=negative_prompt, native_size=native_size)
    given.update(frames=frames, fps=fps, start=start, shared_noise=shared_noise)
    settings, _ = options.gather(None, output, device=device, dtype=dtype, **given)
    _write(settings, check_count(count), output, "upscaled", force, sheet)


def _write(settings: Settings, count: int, output: Path | None, default: str, force: bool, sheet: bool) -> Made:
    """Makes and saves the pictures or clips; the first one is returned."""
    if settings.upsampler_scale is not None and settings.method != TUNED:
        raise ValueError("upsampler_scale is for the tuned version; give --upsamplers, or leave it out")
    check_prompt(settings)
    settings.changed(seed=settings.seed + count - 1)  # refuses a seed that would run over
    check_target(output, settings, force)
    if force and settings.image is not None:
        check_spares_source(settings.image, output, count)
    check_names(settings)
    source: Any = None
    if settings.image is not None:
        source, settings = read_source(settings)
    cascade, settings = load(settings, video=True)
    output = target(output, default, settings, cascade.family.video, sheet)
    if settings.image is not None:
        source, settings = source_for(cascade, settings, source)
        output = target(output, default, settings, cascade.family.video, sheet)  # with the clip's own rate, known now
    _warn_of_lost_words(cascade.pipe, settings.prompt)
    first: Made | None = None
    for index in range(count):
        made = make(cascade, settings.changed(seed=settings.seed + index), source)
        first = first or made
        # --force is for the file that was named: the second picture is not to overwrite the first.
        path = output if index == 0 or not force else output.with_stem(f"{output.stem}-{index + 1}")
        for saved in save(made, path, force, sheet):
            print(saved, flush=True)
    assert first is not None
    return first


def _warn_of_lost_words(pipe: Any, prompt: str) -> None:
    tokenizer = getattr(pipe, "tokenizer", None)
    limit = getattr(tokenizer, "model_max_length", None)
    if tokenizer is None or not isinstance(limit, int):
        return
    length = len(tokenizer(prompt, truncation=False).input_ids)
    if length > limit:
        note(f"the prompt has {length} tokens and the model's first text encoder reads {limit}; the rest is ignored")
