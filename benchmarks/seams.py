"""How near local attention comes to full on the bundled model, and whether its windows can be seen.

    python benchmarks/seams.py [--pictures FOLDER]

writes seams.json and, from it, seams.md beside this file, and with a folder the pictures, to be looked at.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from selfcascade import SelfCascade, load_bundled
from selfcascade.evaluation.scenes_benchmark import scene_prompts

HERE = Path(__file__).parent
FIRST = 51_000_000  # of scenes that no table asks about
PICTURES = {2: 4, 4: 3}  # by the scale of a side
SETTINGS: dict[str, Any] = {"preset": "quality", "num_inference_steps": 25, "guidance_scale": 3.0, "output_type": "pt"}


def border_energy(picture: Tensor, every: int) -> float:
    """Squared differences across lines that lie so many pixels apart, over those across all other lines.

    Args:
        picture: (3, H, W) in [0, 1].
        every: Pixels from line to line, the first of which is as far from the picture's edge.
    """
    ratios = []
    for axis in (1, 2):
        energy = picture.diff(dim=axis).square().mean(dim=[other for other in range(3) if other != axis])
        at = [line - 1 for line in range(every, len(energy) + 1, every)]
        others = [line for line in range(len(energy)) if line not in at]
        ratios.append(float(energy[at].mean() / energy[others].mean()))
    return mean(ratios)


def measure(cascade: SelfCascade, scale: int, count: int, folder: Path | None) -> dict[str, Any]:
    """PSNR between pictures with local and full attention, and energy at the borders of windows."""
    side = scale * cascade.native_size.height
    prompts = scene_prompts(count, FIRST)
    psnr, borders = [], {"full": [], "local": []}
    for index, words in enumerate(prompts.prompts):
        made: dict[str, Tensor] = {}
        for attention in borders:
            (generator,) = prompts.generators([index])
            output = cascade(words, scale=scale, attention=attention, generator=generator, **SETTINGS)
            made[attention] = output.images[0].float()
            # Windows are a native side wide, and move by quarters of it.
            borders[attention].append(border_energy(made[attention], cascade.native_size.height // 4))
            if folder is not None:
                picture = VaeImageProcessor.numpy_to_pil(made[attention].permute(1, 2, 0).numpy())[0]
                picture.save(folder / f"{side}-{index}-{attention}.png")
        psnr.append(-10 * math.log10(float((made["full"] - made["local"]).square().mean())))
    change = [local / full - 1 for local, full in zip(borders["local"], borders["full"], strict=True)]
    error = stdev(change) / math.sqrt(count)
    result = {"side": side, "pictures": count, "psnr": mean(psnr), "change": mean(change), "error": error}
    return result | {name: mean(values) for name, values in borders.items()}


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# Local attention on the bundled model: nearness to full attention, and seams",
        "",
        "Written by `python benchmarks/seams.py`: `quality`, 25 steps, the same captions and noise with either",
        "attention. Border energy is that of differences across the lines where windows end at any step, a quarter of",
        "the native side apart, over that across all other lines; a seam would raise it above full attention's.",
        "",
        "| side | pictures | PSNR to full, dB | border energy, full | local | change, with its standard error |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        change = f"{row['change']:+.1%} ± {row['error']:.1%}"
        figures = f"{row['psnr']:.1f} | {row['full']:.3f} | {row['local']:.3f} | {change}"
        lines.append(f"| {row['side']} | {row['pictures']} | {figures} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    folder = parser.parse_args().pictures
    pipe = load_bundled()
    pipe.set_progress_bar_config(disable=True)
    rows = [measure(SelfCascade(pipe), scale, count, folder) for scale, count in PICTURES.items()]
    (HERE / "seams.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    (HERE / "seams.md").write_text(report(json.loads((HERE / "seams.json").read_text())))


if __name__ == "__main__":
    main()
