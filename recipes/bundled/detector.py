"""Step 3b: trains the patch detector on patches of real renders, intact and degraded, and measures its responses.

Patches are not resized. The network predicts the background, the first object's colour and kind, the size of the
render, and how much the patch was blurred, made noisy, sharpened, blocked, displaced, overlaid with a mesh and torn. No
patch comes from a model that is measured.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, grid_sample, interpolate, mse_loss

from common import CONFIG, RUNS, train_network, write_array, write_json
from loop import Draw
from selfcascade.data.scenes import BACKGROUNDS, COLOURS, KINDS, render, sample_scene
from selfcascade.metrics.detectors import PatchDetector
from selfcascade.metrics.distances import frechet_distance, random_patches

SETTINGS = CONFIG["detector"]
SIDES = (64, 128, 256)
TRUTHS = {"background": BACKGROUNDS, "first_colour": COLOURS, "first_kind": KINDS}
DEGRADATIONS = ("blur", "noise", "sharpen", "blocks", "displace", "mesh", "shreds")
OUTPUTS = {**{name: len(words) for name, words in TRUTHS.items()}, "side": len(SIDES), "degraded": len(DEGRADATIONS)}
PATCH = 38


def pool(count: int) -> tuple[dict[int, np.ndarray], torch.Tensor]:
    """Training renders of each size, uint8, and their truths (count, 3), rendered once and cached."""
    scenes = [sample_scene(30_000_000 + k) for k in range(count)]
    pictures = {}
    for side in SIDES:
        path = RUNS / f"detector/{side}.npy"
        if not path.exists():
            rendered = (render(scene, side, side) for scene in scenes)
            write_array(path, np.stack([(picture * 255).round().astype(np.uint8) for picture in rendered]))
        pictures[side] = np.load(path, allow_pickle=False)
    truths = [[list(words).index(scene.truth[name]) for name, words in TRUTHS.items()] for scene in scenes]
    return pictures, torch.tensor(truths)


def degrade(patches: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches (B, 3, P, P) in [0, 1] and how far, in [0, 1], each was degraded in each way: (B, 7)."""
    count, side = len(patches), patches.shape[-1]
    amount = torch.rand(count, len(DEGRADATIONS), generator=generator)
    amount *= torch.rand(amount.shape, generator=generator) < 0.35
    blur, noise, sharpen, blocks, displace, mesh, shreds = amount.T[:, :, None, None, None]
    angle = torch.linspace(-1, 1, side)
    grid = torch.stack(torch.meshgrid(angle, angle, indexing="xy"), -1).expand(count, -1, -1, -1)
    bend = interpolate(torch.randn(count, 2, 10, 10, generator=generator), size=(side, side), mode="bicubic")
    x = grid_sample(patches, grid + 0.08 * displace[:, 0, :, :, None] * bend.permute(0, 2, 3, 1), align_corners=True)
    soft = interpolate(avg_pool2d(x, 2), size=(side, side), mode="bilinear", align_corners=False)
    softer = interpolate(avg_pool2d(soft, 2, ceil_mode=True), size=(side, side), mode="bilinear", align_corners=False)
    x = x + blur * (torch.where(blur > 0.5, softer, soft) - x) + 1.5 * sharpen * (x - soft)
    x = x + blocks * (interpolate(avg_pool2d(x, 4, ceil_mode=True), scale_factor=4)[:, :, :side, :side] - x) * 0.5
    x = x + 0.15 * mesh * _mesh(count, side, generator)
    x = x + shreds * (_torn(x, generator) - x)
    return (x + 0.08 * noise * torch.randn(x.shape, generator=generator)).clamp(0, 1), amount


def _mesh(count: int, side: int, generator: torch.Generator) -> Tensor:
    """A coloured grid with a period of 3 to 8 pixels, (B, 3, P, P) in [-1, 1], as in decoded enlarged latents."""
    period = 3 + 5 * torch.rand(count, 1, generator=generator)
    phase = 2 * torch.pi * torch.rand(2, count, 1, generator=generator)
    wave = torch.sin(2 * torch.pi * torch.arange(side) / period + phase)  # (2, B, P)
    colour = 2 * torch.rand(count, 3, 1, 1, generator=generator) - 1
    return colour * (wave[0, :, None, :, None] * wave[1, :, None, None, :])


def _torn(x: Tensor, generator: torch.Generator) -> Tensor:
    """Patches in which some tiles of 4 to 8 pixels show another place of the same patch."""
    count, side = len(x), x.shape[-1]
    tiles = int(torch.randint(5, 10, (), generator=generator))
    moved = (torch.rand(count, 1, tiles, tiles, generator=generator) < 0.35).float()
    shift = torch.randint(-side // 3, side // 3 + 1, (2,), generator=generator).tolist()
    return torch.where(interpolate(moved, size=(side, side)) > 0, x.roll(shift, (2, 3)), x)


def batch_of(
    pictures: dict[int, np.ndarray], truths: torch.Tensor, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Degraded patches of one batch, and the targets for them."""
    each, patches, targets, sides = count // len(SIDES), [], [], []
    for index, side in enumerate(SIDES):
        rows = torch.randint(len(truths), (each,), generator=generator)
        images = torch.from_numpy(pictures[side][rows.numpy()]).permute(0, 3, 1, 2).float() / 255
        patches.append(random_patches(images, 1, PATCH, generator))
        targets.append(truths[rows])
        sides.append(torch.full((each,), index))
    x, amount = degrade(torch.cat(patches), generator)
    known = torch.cat(targets)
    return x, {**{name: known[:, k] for k, name in enumerate(TRUTHS)}, "side": torch.cat(sides), "degraded": amount}


def loss_of(told: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropies, and ten times the squared error of the degradations."""
    return sum(
        10 * mse_loss(value.float(), target[name]) if name == "degraded" else cross_entropy(value.float(), target[name])
        for name, value in told.items()
    )  # type: ignore[return-value]


@torch.no_grad()
def response(model: PatchDetector, side: int = 128, count: int = 300) -> dict[str, float]:
    """Patch distances of held-out renders from other ones, intact and with one mild degradation each."""
    sets = [
        torch.stack([torch.from_numpy(render(sample_scene(first + k), side, side)) for k in range(count)])
        for first in (31_000_000, 32_000_000)
    ]
    real, other = (x.permute(0, 3, 1, 2).contiguous() for x in sets)
    soft = interpolate(avg_pool2d(other, 2), size=(side, side), mode="bicubic", align_corners=False).clamp(0, 1)
    generator = torch.Generator().manual_seed(0)
    cases = {
        "nothing": other,
        "half the blur of 2x up-sampling": other.lerp(soft, 0.5),
        "2x up-sampling": soft,
        "noise of 0.02": (other + 0.02 * torch.randn(other.shape, generator=generator)).clamp(0, 1),
        "sharpened by 0.3": (other + 0.3 * (other - soft)).clamp(0, 1),
    }

    def features(x: torch.Tensor) -> torch.Tensor:
        patches = random_patches(x, 3, PATCH, torch.Generator().manual_seed(1))
        return torch.cat([model.features(part) for part in patches.split(100)])

    reference = features(real)
    return {name: round(frechet_distance(reference, features(x)), 4) for name, x in cases.items()}


def main(count: int = 3000) -> None:
    """Trains, or resumes; then measures and writes the model."""
    torch.manual_seed(SETTINGS["seed"])
    torch.set_num_threads(1)
    model = PatchDetector(OUTPUTS)
    pictures, truths = pool(count)

    def loss(x: Tensor, target: dict[str, Tensor]) -> Tensor:
        return loss_of(model(x), target)

    def batch(draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        return batch_of(pictures, truths, draw.count, draw.generator)

    if not train_network("detector", model, loss, batch, ("stem", "head")):
        return
    responses = response(model)
    write_json(RUNS / "detector/response.json", responses)
    print(responses, flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
