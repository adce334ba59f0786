"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfcascade.cli.settings import OF_CLIPS, TUNED, Settings, parse_size, read_settings
from selfcascade.cli.sources import is_clip

Model = Annotated[
    str | None,
    typer.Option(
        help="'bundled', 'bundled-video', a folder in diffusers' format, or a Hub id; unless given, 'bundled-video' "
        "where an option or a file is for clips, else 'bundled'."
    ),
]
Height = Annotated[int | None, typer.Option(help="Pixels; twice the native height unless given.")]
Width = Annotated[int | None, typer.Option(help="Pixels; twice the native width unless given.")]
NativeSize = Annotated[
    str | None, typer.Option(metavar="HxW", help="Size the model was trained at, where it does not say.")
]
Steps = Annotated[int | None, typer.Option(help="Steps of the whole schedule; the model's default, else 50.")]
PivotStep = Annotated[
    list[int] | None, typer.Option(help="K, the timestep where up-scaling stages start; once, or once a stage.")
]
Preset = Annotated[str | None, typer.Option(help="Named settings; the model's default, else 'quality'; see `info`.")]
Upsampling = Annotated[
    str | None, typer.Option(help="latent-bilinear, latent-bicubic or rgb; the preset's unless given.")
]
Anchor = Annotated[
    float | None, typer.Option(help="Share of a stage's steps held to the pivot's low band, 0 to 1; or the preset's.")
]
Energy = Annotated[
    float | None, typer.Option(help="How far enlarged pivots get their fine energy back, 0 to 1; or the preset's.")
]
Upsamplers = Annotated[str | None, typer.Option(metavar="DIR", help="Trained feature upsamplers: the tuned version.")]
UpsamplerScale = Annotated[float | None, typer.Option(help="Strength of the upsamplers, 1 unless given.")]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="For full-ft and lora: what `train` wrote; for sr: a super-resolver, or 'bundled'."
    ),
]
InCascade = Annotated[
    bool | None, typer.Option("--in-cascade", help="Use the weights in a cascade, above the native size only.")
]
GuidanceScale = Annotated[
    float | None, typer.Option(help="Weight of the prompt; the model's default, else the pipeline's.")
]
NegativePrompt = Annotated[str | None, typer.Option(help="What the picture should not show.")]
Seed = Annotated[int | None, typer.Option(help="Of the first picture, 0 unless given; the next one's is one more.")]
Count = Annotated[int, typer.Option(help="Pictures to make.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is unless given.")]
Dtype = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]
Frames = Annotated[
    int | None, typer.Option(help="Of a clip, for a model that makes video; its own default unless given.")
]
Fps = Annotated[float | None, typer.Option(help="Frames a second of a clip, 8 unless given.")]
SharedNoise = Annotated[
    float | None,
    typer.Option(help="Share, 0 to 1, of the noise that a clip's frames have in common in the stages above the base."),
]
Sheet = Annotated[bool, typer.Option("--sheet", help="Write a contact sheet of a clip beside it, NAME.sheet.png.")]
Output = Annotated[Path, typer.Option(help="A .png, .jpg or .webp; a taken name gets a number.")]
AnyOutput = Annotated[
    Path | None,
    typer.Option(
        help="A .png, .jpg or .webp; for video a .mp4, .gif, .webp or a folder for frames. A taken name gets a number."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite instead of numbering.")]
Record = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE", help="Settings from the .json beside a picture or clip, or from a .png."),
]


def gather(source: Path | None, output: Path | None = None, **given: Any) -> tuple[Settings, str | None]:
    """Settings from a record, or the defaults, with the options that were given in their places.

    Where no model is named, what is for clips alone chooses the bundled model that makes clips.

    Returns:
        The settings, and the SHA-256 of the pixels that they gave before, where nothing was changed.

    Raises:
        ValueError: The record or an option is not acceptable.
    """
    if given.get("native_size") is not None:
        given["native_size"] = parse_size("native_size", given["native_size"])
    if given.get("pivot_step") is not None:
        given["pivot_step"] = tuple(given["pivot_step"]) or None
    if given.get("upsamplers") is not None:
        if given.get("method") not in (None, TUNED):
            raise ValueError(f"upsamplers are for method {TUNED}, not {given['method']!r}")
        given["method"] = TUNED
    if source is None and given.get("model") is None and _of_clips(output, given):
        given["model"] = "bundled-video"
    settings, sha256 = (Settings(), None) if source is None else read_settings(source)
    # A record has its preset's values spelled out; another preset is to replace them.
    spelled_out = ("pivot_step", "upsampling", "anchor", "energy") if given.get("preset") is not None else ()
    replaced: dict[str, Any] = {name: None for name in spelled_out}
    if given.get("height") is not None or given.get("width") is not None:
        replaced["pivot_step"] = None  # one value a stage, and another size can have other stages
    if given.get("method") not in (None, TUNED):
        replaced |= {"upsamplers": None, "upsampler_scale": None}
    if given.get("method") is not None:
        replaced |= {"weights": None, "in_cascade": False}
    changes = {**replaced, **{name: value for name, value in given.items() if value is not None}}
    settings = settings.changed(**changes)
    return settings, None if set(changes) - {"device"} else sha256


def _of_clips(output: Path | None, given: dict[str, Any]) -> bool:
    """Whether an option is for clips alone; a .gif that is enlarged may be a picture, and a .webp that is written."""
    read = given.get("image") is not None and is_clip(Path(given["image"]))
    written = "" if output is None else output.suffix.lower()
    return read or written in (".mp4", ".gif") or any(given.get(name) is not None for name in OF_CLIPS)
