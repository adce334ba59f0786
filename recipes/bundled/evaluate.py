"""Step 6: measures the bundled models on held-out captions, and writes docs/bundled.json and a picture of samples.

All methods get the same captions and seeds; cascades share the pictures of earlier stages. Readings are saved group by
group, so an interrupted measurement can be resumed.

Usage: evaluate.py [part parts]   measure (several processes share the groups)
       evaluate.py report         write the tables from what is there
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import selfcascade
from common import HERE, RUNS, write_json
from selfcascade.base_models.driver import PipelineBaseModel
from selfcascade.base_models.pivot_controls import PivotSettings
from selfcascade.base_models.request import Request
from selfcascade.cascade import self_cascade
from selfcascade.data.scenes import Scene, caption, render, sample_scene
from selfcascade.media.images import file_sha256
from selfcascade.media.whole_files import write_whole
from selfcascade.metrics.composition import CompositionReader, accuracy

STEPS, GUIDANCE, GROUP, PIVOT_STEP, LATER_PIVOT_STEP = 25, 3.0, 20, 700, 400
FIRST_SEED = 50_000_000
WEIGHTS = Path(selfcascade.__path__[0]) / "bundled/image/unet/diffusion_pytorch_model.safetensors"
OUT = RUNS / "evaluation" / file_sha256(WEIGHTS)[:12]  # each model has its own figures
DOCS = HERE.parents[1] / "docs"
PICTURES = {  # number of pictures; fewer of the costly ones, which come last
    "base 64": 500,
    "tuning-free 128 rgb": 500,
    "direct 128": 200,
    "tuning-free 128 latent-bilinear": 200,
    "tuning-free 256 rgb": 100,
    "tuning-free 256 rgb then 400": 200,
    "direct 256": 20,
}


def scene(index: int) -> Scene:
    """The index-th held-out scene of the measurement."""
    return sample_scene(FIRST_SEED + index, held_out=True)


class Measurement:
    """One process's share of the pictures."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.pipe = selfcascade.load_bundled()
        self.pipe.set_progress_bar_config(disable=True)
        self.cascade = selfcascade.SelfCascade(self.pipe)
        folder = selfcascade.__path__[0] + "/bundled/reader"
        self.reader = CompositionReader.from_pretrained(folder, local_files_only=True).float().eval()

    def group(self, group: int, names: list[str]) -> None:
        """Makes the missing pictures of these methods for one group of captions."""
        indices = range(group * GROUP, (group + 1) * GROUP)
        missing = [name for name in names if indices.stop <= PICTURES[name] and not _path(name, group).exists()]
        if not missing:
            return
        began = time.time()
        request = self._request(indices)
        stages = self.cascade.plan(256, 256, STEPS, PIVOT_STEP, guidance_scale=GUIDANCE)
        lower = replace(stages[2], pivot_step=LATER_PIVOT_STEP)
        with torch.no_grad():
            state = _states(request)
            first = next(self_cascade(PipelineBaseModel(self.cascade.family, request), stages[:1])).sample
            after = _states(request)
            self._keep(missing, "base 64", group, first.latents, began)
            for upsampling in ("rgb", "latent-bilinear"):
                names = [f"tuning-free {side} {upsampling}" for side in (128, 256)]
                names.append(f"{names[1]} then {LATER_PIVOT_STEP}")
                if not any(name in missing for name in names):
                    continue
                base = PipelineBaseModel(self.cascade.family, request, PivotSettings(upsampling))
                _restore(request, after)
                began = time.time()
                pivot = next(self_cascade(base, [stages[1]], first)).sample
                later = _states(request)
                self._keep(missing, names[0], group, pivot.latents, began)
                for name, stage in zip(names[1:], (stages[2], lower), strict=True):
                    if name in missing:
                        began = time.time()
                        _restore(request, later)
                        self._keep(missing, name, group, next(self_cascade(base, [stage], pivot)).latents, began)
            for side in (128, 256):
                if f"direct {side}" in missing:
                    began = time.time()
                    _restore(request, state)
                    direct = selfcascade.SelfCascade(self.pipe, native_size=(side, side))
                    stage = direct.plan(side, side, STEPS, guidance_scale=GUIDANCE)
                    pictures = next(self_cascade(PipelineBaseModel(direct.family, request), stage)).latents
                    self._keep(missing, f"direct {side}", group, pictures, began)

    def _request(self, indices: range) -> Request:
        prompts = [caption(scene(k), k) for k in indices]
        return Request(prompts, [torch.Generator().manual_seed(k) for k in indices], "latent")

    def _keep(self, missing: list[str], name: str, group: int, latents: torch.Tensor, began: float) -> None:
        if name not in missing:
            return
        with torch.autocast("cpu", enabled=False):
            pictures = self.cascade.family.decode(latents.float()).clamp(-1, 1) / 2 + 0.5
            readings = self.reader.read(pictures)
        truths = [scene(k).truth for k in range(group * GROUP, (group + 1) * GROUP)]
        if group == 0:
            folder = OUT / "pictures" / name.replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            for index, picture in enumerate(pictures):
                array = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
                Image.fromarray(array).save(folder / f"{index:02d}.png")
        write_json(_path(name, group), {"readings": readings, "truths": truths, "seconds": time.time() - began})
        score = accuracy(readings, truths)
        print(f"{name} group {group}: all {score['all']:.2f}, count {score['count']:.2f}", flush=True)


def _path(name: str, group: int) -> Path:
    return OUT / name.replace(" ", "_") / f"{group:03d}.json"


def _paths(name: str) -> list[Path]:
    return sorted(_path(name, 0).parent.glob("*.json"))


def _states(request: Request) -> list[torch.Tensor]:
    assert isinstance(request.generator, list)
    return [generator.get_state() for generator in request.generator]


def _restore(request: Request, states: list[torch.Tensor]) -> None:
    assert isinstance(request.generator, list)
    for generator, state in zip(request.generator, states, strict=True):
        generator.set_state(state)


@torch.no_grad()
def autoencoder_error(pipe: StableDiffusionPipeline, count: int = 100) -> dict[int, float]:
    """Mean PSNR in dB of the autoencoder's round trip on held-out renders, at each size."""
    result = {}
    for side in (64, 128, 256):
        values = []
        for k in range(count if side < 256 else count // 4):
            x = torch.from_numpy(render(scene(k), side, side)).permute(2, 0, 1)[None]
            y = pipe.vae.decode(pipe.vae.encode(x * 2 - 1).latent_dist.mode()).sample.clamp(-1, 1) / 2 + 0.5
            values.append(-10 * math.log10(float(torch.mean((x - y) ** 2))))
        result[side] = round(float(np.mean(values)), 2)
    return result


def report() -> None:
    """Writes docs/bundled.json from the groups that exist."""
    result: dict = {"steps": STEPS, "guidance_scale": GUIDANCE, "pivot_step": PIVOT_STEP, "methods": {}}
    for name in PICTURES:
        groups = [json.loads(path.read_text()) for path in _paths(name)]
        if not groups:
            continue
        readings = [row for group in groups for row in group["readings"]]
        truths = [row for group in groups for row in group["truths"]]
        score = accuracy(readings, truths)
        low, high = wilson(score["all"], len(truths))
        row = {"pictures": len(truths), "low": low, "high": high, **score}
        for objects in (1, 2):
            kept = [k for k, truth in enumerate(truths) if truth["count"] == objects]
            row[f"all_with_{objects}"] = accuracy([readings[k] for k in kept], [truths[k] for k in kept])["all"]
        base = [json.loads(path.read_text()) for path in _paths("base 64") if _path(name, int(path.stem)).exists()]
        same = accuracy(
            [r for group in base for r in group["readings"]], [t for group in base for t in group["truths"]]
        )
        row["base_on_the_same"] = same["all"]
        result["methods"][name] = {key: round(value, 4) for key, value in row.items()}
        print(
            f"{name:34} n {len(truths):4}  all {score['all']:.3f} ({low:.3f} to {high:.3f})  count {score['count']:.3f}"
        )
    result["autoencoder_psnr"] = autoencoder_error(selfcascade.load_bundled())
    result["reader"] = json.loads((RUNS / "reader/accuracy.json").read_text())
    write_json(DOCS / "bundled.json", result)
    write_tables(result)
    sample_rows(DOCS / "bundled.webp")


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which is not empty at 0 % and 100 %."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def write_tables(result: dict) -> None:
    """Writes the figures between the marks of docs/bundled.md."""
    page = (DOCS / "bundled.md").read_text()
    before, after = page.split("<!-- figures -->")[0], page.split("<!-- /figures -->")[1]
    page = f"{before}<!-- figures -->\n{tables(result)}\n<!-- /figures -->{after}"
    write_whole(DOCS / "bundled.md", lambda aside: aside.write_text(page))


def tables(result: dict) -> str:
    """The figures as Markdown."""
    lines = [
        "| method, side, pivot | pictures | all right (95 % interval) | base on the same captions "
        "| one object | two objects | count |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["methods"].items():
        shares = [f"{100 * row[key]:.1f} %" for key in ("base_on_the_same", "all_with_1", "all_with_2", "count")]
        whole = f"{100 * row['all']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        lines.append(f"| {name} | {row['pictures']} | {whole} | {' | '.join(shares)} |")
    psnr = ", ".join(f"{value} dB at {side}" for side, value in result["autoencoder_psnr"].items())
    lines += ["", f"Autoencoder round trip on held-out renders: {psnr}.", ""]
    lines += ["The reader's own accuracy on held-out real renders, per attribute:", ""]
    names = [name for name in result["reader"]["scenes 64"] if name != "all"]
    lines += [f"| size | all | {' | '.join(names)} | count in crowds of 0-6 |", "|---" * (len(names) + 3) + "|"]
    for side in (64, 128, 256):
        row, crowd = result["reader"][f"scenes {side}"], result["reader"][f"crowds {side}"]["count"]
        values = [row["all"], *(row[name] for name in names), crowd]
        lines.append(f"| {side} | {' | '.join(f'{100 * value:.1f}' for value in values)} |")
    return "\n".join(lines)


def sample_rows(path: Path, columns: int = 8, side: int = 160) -> None:
    """Writes a picture of the first group: one method per row, one caption per column."""
    rows = []
    for name in ("base 64", "direct 128", "tuning-free 128 rgb", "direct 256", "tuning-free 256 rgb then 400"):
        folder = OUT / "pictures" / name.replace(" ", "_")
        if not folder.exists():
            continue
        pictures = (Image.open(folder / f"{k:02d}.png") for k in range(columns))
        shown = [np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS)) for picture in pictures]
        rows.append(np.concatenate(shown, 1))
    Image.fromarray(np.concatenate(rows)).save(path, quality=85)


def main(part: int = 0, parts: int = 1) -> None:
    """Makes all missing groups, the large pictures last."""
    measurement = Measurement()
    for large in (False, True):
        names = [name for name in PICTURES if ("256" in name) == large]
        for group in range(part, max(PICTURES[name] for name in names) // GROUP, parts):
            with torch.autocast("cpu", torch.bfloat16):  # twice as fast here, and no figure moves beyond its error
                measurement.group(group, names)


if __name__ == "__main__":
    if sys.argv[1:] == ["report"]:
        report()
    else:
        main(*(int(word) for word in sys.argv[1:]))
