"""The demonstration: `python -m selfcascade.demo` writes outputs/demo.png with the bundled model.

One prompt, one seed: the base sample, then 4x and 16x its pixels by direct inference and by the self-cascade; also the
tuned version if upsamplers for the model ship with the package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from selfcascade.cli.making import make
from selfcascade.making import TUNED, Made, load, upsamplers_of
from selfcascade.media.grids import Panel, picture_grid
from selfcascade.media.save_pictures import SCHEMA, check_output, parameters_text, save_picture, versions
from selfcascade.options import Options

PROMPT = "a large orange mushroom on the right in the snow in winter"
SEED = 6
MIN_PANEL, MAX_PANEL = 256, 768
KIND = "selfcascade.demo"
# Method, sides relative to the native ones, and title of each picture.
PANELS = (
    ("direct", 1, "base sample"),
    ("direct", 2, "direct, 4x pixels"),
    ("direct", 4, "direct, 16x pixels"),
    ("self-cascade", 2, "self-cascade, 4x pixels"),
    ("self-cascade", 4, "self-cascade, 16x pixels"),
)
TUNED_PANELS = ((TUNED, 2, "tuned, 4x pixels"), (TUNED, 4, "tuned, 16x pixels"))


def run(output: Path, model: str = "bundled", prompt: str = PROMPT, seed: int = SEED, steps: int | None = None) -> Path:
    """Makes the pictures one after the other, and writes them as one file.

    Args:
        output: Path of the file, which is overwritten.
        model: Name of the model; see `load_model`.
        prompt: Prompt of all pictures.
        seed: Seed of all pictures.
        steps: Steps of the whole schedule; None means the model's default.

    Raises:
        ValueError: An argument is out of range; nothing is written.
    """
    check_output(output)
    options = Options(prompt=prompt, model=model, seed=seed, num_inference_steps=steps)
    cascade, options = load(options.changed(upsamplers=upsamplers_of(options)))
    rows = PANELS if cascade.upsamplers is None else PANELS + TUNED_PANELS
    made: list[Made] = []
    for method, scale, title in rows:
        height, width = (scale * side for side in cascade.native_size)
        names = options.upsamplers if method == TUNED else None
        own = options.changed(method=method, height=height, width=width, upsamplers=names)
        made.append(make(cascade, own))
        print(f"{title:28}{made[-1].image.width:>5} x {made[-1].image.height:<5}{made[-1].seconds:8.1f} s", flush=True)
    panels: list[Panel | None] = [_panel(one, title) for one, (_, _, title) in zip(made, rows, strict=True)]
    for place in range(3, len(panels) + 1, 3):
        panels.insert(place, None)  # the base sample belongs to all rows
    side = min(MAX_PANEL, max(MIN_PANEL, *made[-1].image.size))
    grid = picture_grid(panels, 3, side, f'"{prompt}"')
    pictures = [{key: one.record()[key] for key in ("settings", "result")} for one in made]
    record = {"schema": SCHEMA, "kind": KIND, "pictures": pictures, "versions": versions()}
    text = parameters_text(prompt, None, {"Steps": options.num_inference_steps, "Seed": seed, "Model": model})
    return save_picture(grid, record, output, text, force=True)[0]


def main() -> None:
    """Runs the demonstration, and prints the path of the picture."""
    parser = argparse.ArgumentParser(description="Base sample, direct inference and self-cascade, side by side.")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo.png"))
    parser.add_argument("--model", default="bundled", help="'bundled', a folder in diffusers' format, or a Hub id")
    arguments = parser.parse_args()
    try:
        print(run(arguments.output, arguments.model))
    except ValueError as error:
        parser.exit(2, f"selfcascade.demo: error: {error}\n")


def _panel(made: Made, title: str) -> Panel:
    return Panel(made.image, title, f"{made.image.width} x {made.image.height} pixels, {made.seconds:.1f} s")


if __name__ == "__main__":
    main()
