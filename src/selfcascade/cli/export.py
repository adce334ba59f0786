"""`export`: writes a trained LoRA in a layout that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfcascade.cli.console import Debug, note, tell
from selfcascade.cli.files import Force
from selfcascade.media.endings import ending_of
from selfcascade.media.save_pictures import check_place

Source = Annotated[Path, typer.Argument(metavar="DIR", help="Folder from `train --method lora`.", show_default=False)]
Target = Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors file to write.")]


def export(
    source: Source, output: Target = Path("lora.safetensors"), force: Force = False, debug: Debug = False
) -> None:
    """Write a trained LoRA as one file that ComfyUI, A1111 and diffusers read, in kohya's layout."""
    if ending_of(output) != ".safetensors":
        raise ValueError(f"output must end in .safetensors, not {output.name!r}")
    check_place(output)
    if output.exists() and not force:
        raise ValueError(f"output {str(output)!r} exists; give another name, or --force")
    if output.resolve() in {source.resolve(), *(one.resolve() for one in source.glob("*.safetensors"))}:
        raise ValueError(f"output {str(output)!r} would overwrite the LoRA itself; give another name")

    from selfcascade.training.kohya import export_lora

    note(f"{export_lora(source, output)} layers")
    tell(output)
