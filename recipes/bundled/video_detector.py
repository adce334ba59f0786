"""Step 8: trains the video detector on real clips, intact and flawed, and measures its readings and responses.

It learns to read which object moves where, and how a clip was degraded (`clip_flaws.py`). No clip comes from a model
that is measured.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from torch import Tensor

from clip_flaws import FLAWS, flawed
from common import CONFIG, HERE, MIRRORED, REVERSED, RUNS, ship, train_network, write_array, write_json
from loop import Draw
from selfcascade.data.scenes import BACKGROUNDS, COLOURS, KINDS
from selfcascade.data.scenes.motion import DIRECTIONS, sample_moving_scene
from selfcascade.data.scenes.render_clip import FRAMES, render_clip
from selfcascade.media.frame_rates import DEFAULT_FPS
from selfcascade.metrics.composition import Reading, accuracy
from selfcascade.metrics.distances import frechet_distance, kernel_distance
from selfcascade.metrics.video_detector import VideoDetector

SETTINGS = CONFIG["video_detector"]
WORDS = {"kind": list(KINDS), "colour": list(COLOURS), "motion": list(DIRECTIONS)}
LABELS = {f"{end}_{name}": words for end in ("first", "last") for name, words in WORDS.items()}
LABELS["background"] = list(BACKGROUNDS)
SIDE, SPARE = 64, 2
SHARD, FIRST, HELD_OUT_FIRST = 200, 40_000_000, 41_000_000
DOCUMENT = HERE.parents[1] / "docs/video_metrics.md"


def pool(shards: int) -> tuple[list[np.ndarray], list[dict]]:
    """Training clips of 18 frames, uint8, one array per shard, and their truths; rendered once and cached."""
    clips, truths = [], []
    for shard in range(shards):
        path = RUNS / f"video_detector/{shard:03d}"
        if not path.with_suffix(".json").exists():
            scenes = [sample_moving_scene(FIRST + shard * SHARD + k) for k in range(SHARD)]
            start, frames = -SPARE / 2 / DEFAULT_FPS, FRAMES + SPARE
            rendered = (render_clip(scene, SIDE, SIDE, frames, DEFAULT_FPS, start) for scene in scenes)
            write_array(
                path.with_suffix(".npy"), np.stack([(clip * 255).round().astype(np.uint8) for clip in rendered])
            )
            write_json(path.with_suffix(".json"), [scene.truth for scene in scenes])
            print(f"video detector: clips {shard + 1} of {shards}", flush=True)
        clips.append(np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False))
        truths += json.loads(path.with_suffix(".json").read_text())
    return clips, truths


def mirrored(clip: Tensor, truth: Reading) -> tuple[Tensor, dict]:
    """The mirrored clip and its truth: first becomes last, left becomes right."""
    ends = {"first": "last", "last": "first"}
    swapped = {}
    for name, word in truth.items():
        end, _, rest = name.partition("_")
        swapped[f"{ends[end]}_{rest}" if end in ends else name] = MIRRORED.get(str(word), word)
    return clip.flip(-1), swapped


def example(clip: Tensor, truth: Reading, generator: torch.Generator, share: float) -> tuple[Tensor, dict, Tensor]:
    """16 of a clip's 18 frames (F, 3, H, W) with flaws, half of them mirrored; the truth, and the flaws' amounts."""
    first = int(torch.randint(SPARE + 1, (), generator=generator))
    clip, truth = clip[first : first + FRAMES], {name: word for name, word in truth.items() if name in LABELS}
    if torch.rand((), generator=generator) < 0.5:
        clip, truth = mirrored(clip, truth)
    tint = 1 + 0.03 * torch.randn(3, 1, 1, generator=generator)  # like generated clips; this is not a flaw
    clip, amounts = flawed((clip * tint).clamp(0, 1), generator, share)
    amount = dict(zip(FLAWS, amounts.tolist(), strict=True))
    lost = amount["shuffled"] > 0.2 or amount["frozen"] > 0.7
    for end in ("first", "last"):
        name = f"{end}_motion"
        if lost:
            del truth[name]
        elif amount["backwards"]:
            truth[name] = REVERSED.get(truth[name], truth[name])
    return clip, truth, amounts


def real_clips(first: int, count: int, side: int = SIDE) -> tuple[Tensor, list[dict]]:
    """Held-out clips (N, F, 3, side, side), rounded to 8 bits, rendered once and cached, and their truths."""
    scenes = [sample_moving_scene(first + k, held_out=True) for k in range(count)]
    path = RUNS / f"video_detector/held-out-{first}-{count}-{side}.npy"
    if not path.exists():
        rendered = (render_clip(scene, side, side, FRAMES, DEFAULT_FPS) for scene in scenes)
        write_array(path, np.stack([(clip * 255).round().astype(np.uint8) for clip in rendered]))
    truths = [{name: word for name, word in scene.truth.items() if name in LABELS} for scene in scenes]
    clips = torch.from_numpy(np.load(path, allow_pickle=False)).permute(0, 1, 4, 2, 3)
    return clips.float() / 255, truths


@torch.no_grad()
def features(model: VideoDetector, clips: Tensor) -> Tensor:
    """Features of clips, (N, D)."""
    return torch.cat([model.features(part) for part in clips.split(25)])


def sensitivity(model: VideoDetector, real: Tensor, other: Tensor) -> dict[str, list[float]]:
    """FVD and KVD of real clips from other ones, and from those with each flaw at a quarter and at the full amount."""
    reference = features(model, real)

    def distances(clips: Tensor) -> list[float]:
        own = features(model, clips)
        return [round(frechet_distance(reference, own), 4), round(kernel_distance(reference, own), 5)]

    found = {"none": distances(other)}
    for name, function in FLAWS.items():
        for amount in (1.0,) if name == "backwards" else (0.25, 1.0):
            generator = torch.Generator().manual_seed(0)
            clips = torch.stack([function(clip, amount, generator) for clip in other])
            found[f"{name} {amount}"] = distances(clips)
    return found


def measure(model: VideoDetector, count: int = 300) -> dict[str, dict]:
    """Accuracy on held-out real clips at two sizes, and the responses of the distances."""
    result: dict[str, dict] = {}
    real, truths = real_clips(HELD_OUT_FIRST, count)
    large, large_truths = real_clips(HELD_OUT_FIRST + count, count // 3, 2 * SIDE)
    for name, clips, own in (("64", real, truths), ("128", large, large_truths)):
        result[name] = accuracy([reading for part in clips.split(25) for reading in model.read(part)], own)
    other, _ = real_clips(HELD_OUT_FIRST + 2 * count, count)
    result["sensitivity"] = sensitivity(model, real, other)
    return result


def report(found: dict[str, dict]) -> None:
    """Writes the figures into the documentation, between its marks."""
    names = ["all", *sorted(LABELS)]
    lines = [f"| clips | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    for title, key in (("300 of 64 pixels", "64"), ("100 of 128 pixels", "128")):
        lines.append(f"| {title} | {' | '.join(f'{100 * found[key][name]:.1f}' for name in names)} |")
    lines += ["", "| flaw | amount | FVD | KVD |", "|---|---|---|---|"]
    for case, (fvd, kvd) in found["sensitivity"].items():
        name, _, amount = case.partition(" ")
        lines.append(f"| {name} | {amount or '-'} | {fvd:.2f} | {kvd:.4f} |")
    before, rest = DOCUMENT.read_text().split("<!-- detector -->\n")
    after = rest.split("<!-- /detector -->")[1]
    table = "\n".join(lines)
    DOCUMENT.write_text(f"{before}<!-- detector -->\n{table}\n<!-- /detector -->{after}")


def main(shards: int = 30) -> None:
    """Trains, or resumes; then measures and writes the model."""
    torch.manual_seed(SETTINGS["seed"])
    torch.set_num_threads(1)
    model = VideoDetector(LABELS, list(FLAWS))
    clips, truths = pool(shards)

    def batch_of(draw: Draw) -> tuple[Tensor, list[dict], Tensor]:
        rows = torch.randint(len(truths), (draw.count,), generator=draw.generator).tolist()
        made = []
        for row in rows:
            clip = torch.from_numpy(np.array(clips[row // SHARD][row % SHARD])).permute(0, 3, 1, 2).float() / 255
            made.append(example(clip, truths[row], draw.generator, SETTINGS["flaws"]))
        shown, told, amounts = zip(*made, strict=True)
        return torch.stack(shown), list(told), torch.stack(amounts)

    if not train_network("video_detector", model, model.loss, batch_of, ("stem", "told", "head.2")):
        return
    found = measure(model)
    write_json(RUNS / "video_detector/measured.json", found)
    print(json.dumps(found, indent=1), flush=True)
    report(found)
    ship("video_detector", model.half(), 1.5)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
