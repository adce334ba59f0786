"""Method x held-out scenes -> figures: each method gets the same captions and seeds, and is compared with real renders.

Axis letters: N pictures, C channels, H, W pixels; h, w latent pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfcascade.data.scenes import Scene, caption, render, sample_scene
from selfcascade.features import FeatureUpsamplers, fingerprint
from selfcascade.files import write_whole
from selfcascade.images import file_sha256
from selfcascade.metrics.composition import CompositionReader, accuracy
from selfcascade.metrics.detectors import PatchDetector
from selfcascade.metrics.distances import bootstrap, frechet_distance, kernel_distance, random_patches
from selfcascade.models import BUNDLED
from selfcascade.pipeline import SelfCascade

GROUP = 20
REAL_FIRST = 70_000_000


@dataclass(frozen=True)
class Questions:
    """Held-out scenes, each with the seed of its pictures: their captions are the prompts.

    Attributes:
        count: How many.
        first: Number of the first scene; a scene's number is also the seed of its pictures.
    """

    count: int
    first: int = 50_000_000

    def scene(self, index: int) -> Scene:
        """The index-th held-out scene."""
        return sample_scene(self.first + index, held_out=True)

    def captions(self, indices: range) -> list[str]:
        """The prompts of these."""
        return [caption(self.scene(index), self.first + index) for index in indices]

    def truths(self, count: int) -> list[dict]:
        """What is to be seen in the first `count` pictures."""
        return [dict(self.scene(index).truth) for index in range(count)]

    def generators(self, indices: range) -> list[torch.Generator]:
        """A generator for each picture."""
        return [torch.Generator().manual_seed(self.first + index) for index in indices]

    def groups(self) -> Iterator[range]:
        """The questions in groups that are answered together."""
        for begin in range(0, self.count, GROUP):
            yield range(begin, min(begin + GROUP, self.count))


@dataclass(frozen=True)
class Sampling:
    """How the pictures are made.

    Attributes:
        side: Of the pictures, in pixels.
        direct: Whether the model is asked for that size at once.
        pivot_step: K of every stage; None is the cascade's own.
        upsampling: phi; None is the cascade's own.
        num_inference_steps: Of the whole schedule.
        guidance_scale: Of every stage.
    """

    side: int = 128
    direct: bool = False
    pivot_step: int | None = None
    upsampling: str | None = None
    num_inference_steps: int = 25
    guidance_scale: float = 3.0


class Pivots:
    """Base samples, made once by the base model as it is, so that every method enlarges the same ones.

    Args:
        pipe: The base model's pipeline, not yet trained any further.
        folder: Kept there; another call with the same model, questions and sampling finds them.
    """

    def __init__(self, pipe: Any, questions: Questions, sampling: Sampling, folder: Path) -> None:
        settings = [asdict(questions), sampling.num_inference_steps, sampling.guidance_scale, fingerprint(pipe.unet)]
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        path = folder / f"pivots-{name}.safetensors"
        if not path.exists():
            write_whole(path, lambda aside: save_file(_base_samples(pipe, questions, sampling), aside))
        held = load_file(path)
        self.latents, self.states = held["latents"], held["states"]

    def generators(self, indices: range) -> list[torch.Generator]:
        """The pictures' generators, as the base stage left them."""
        made = [torch.Generator() for _ in indices]
        for generator, index in zip(made, indices, strict=True):
            generator.set_state(self.states[index].clone())  # a view of the table is misread
        return made


def answer(
    pipe: Any,
    questions: Questions,
    sampling: Sampling,
    pivots: Pivots,
    upsamplers: FeatureUpsamplers | None = None,
) -> Tensor:
    """The pictures, (N, 3, H, W) in [0, 1], on the CPU.

    Args:
        pipe: The pipeline, its U-Net as it was trained.
        questions: What is asked.
        sampling: How it is answered; unless direct, from the pivots.
        pivots: Base samples of the same questions.
        upsamplers: For the tuned version.
    """
    native = (sampling.side, sampling.side) if sampling.direct else None
    cascade = SelfCascade(pipe, upsamplers, native)
    settings: dict[str, Any] = {"height": sampling.side, "width": sampling.side, "output_type": "latent"}
    settings |= {"num_inference_steps": sampling.num_inference_steps, "guidance_scale": sampling.guidance_scale}
    made: list[Tensor] = []
    for indices in questions.groups():
        own: dict[str, Any] = {"generator": questions.generators(indices)}
        if not sampling.direct:
            pivot = pivots.latents[indices.start : indices.stop].to(pipe.device)
            own = {"generator": pivots.generators(indices), "pivot": pivot}
            own |= {"pivot_step": sampling.pivot_step, "upsampling": sampling.upsampling}
        with reduced_precision(pipe):
            latents = cascade(questions.captions(indices), **settings, **own).stages[-1].latents  # type: ignore[union-attr]
        with torch.no_grad():
            pixels = cascade.family.decode(pipe, latents.to(pipe.vae.dtype)).float().cpu()
        made.append(pixels.clamp(-1, 1) / 2 + 0.5)
    return torch.cat(made)


def reduced_precision(pipe: Any) -> torch.autocast:
    """Autocast to bfloat16, so that float32 weights need no copy: half the time, no figure beyond its error."""
    return torch.autocast(torch.device(pipe.device).type, torch.bfloat16)


class Judge:
    """Reads the composition off pictures of scenes, and measures their distance from real renders of other scenes.

    FID is of whole pictures, in features of the composition reader, which sees them at 96 pixels and knows no fine
    detail; patch FID is of patches in their own pixels, in features of the patch detector, which knows nothing else.
    The paper's patches are 299 of 1024 pixels; the same share of the side is taken here.

    Args:
        side: Of the pictures judged.
        folder: The features of the real renders are kept there.
        real_count: Real renders, of held-out scenes other than those asked for.
        patches: Of each picture.
        draws: Of the bootstrap that gives the intervals.
    """

    def __init__(self, side: int, folder: Path, real_count: int = 1000, patches: int = 3, draws: int = 100) -> None:
        self.side, self.folder, self.real_count, self.patches, self.draws = side, folder, real_count, patches, draws
        self.patch_side = round(0.292 * side)
        bundled = BUNDLED.parent
        self.reader = CompositionReader.from_pretrained(str(bundled / "reader"), local_files_only=True).float().eval()
        self.detector = PatchDetector.from_pretrained(str(bundled / "detector"), local_files_only=True).float().eval()
        weights = [bundled / name / "diffusion_pytorch_model.safetensors" for name in ("reader", "detector")]
        self.detectors = [file_sha256(path)[:12] for path in weights]

    def judge(self, pictures: Tensor, truths: list[dict]) -> dict[str, Any]:
        """Figures of pictures (N, 3, H, W) in [0, 1]: shares of right attributes, distances with 95 % intervals.

        Raises:
            ValueError: The pictures have another size, or there are not as many truths.
        """
        if tuple(pictures.shape[-2:]) != (self.side, self.side):
            raise ValueError(f"pictures must be {self.side} pixels a side, not {tuple(pictures.shape[-2:])}")
        readings = [reading for part in pictures.split(50) for reading in self.reader.read(part)]
        score = accuracy(readings, truths)
        result: dict[str, Any] = {"pictures": len(pictures), "composition": score}
        for objects in ("1", "2"):
            kept = [row for row, truth in enumerate(truths) if str(truth["count"]) == objects]
            if kept:
                one = accuracy([readings[row] for row in kept], [truths[row] for row in kept])
                result["composition"][f"all_with_{objects}"] = one["all"]
        real, features = self._real, self._features(pictures)
        for name, unit in (("whole", 1), ("patch", self.patches)):
            prefix = "" if name == "whole" else "patch_"
            for kind, distance in (("fid", frechet_distance), ("kid", kernel_distance)):
                generator = torch.Generator().manual_seed(0)
                estimate = bootstrap(distance, real[name], features[name], generator, self.draws, unit)
                result[prefix + kind] = [estimate.value, estimate.low, estimate.high]
        return result

    @torch.no_grad()
    def _features(self, pictures: Tensor) -> dict[str, Tensor]:
        corners = torch.Generator().manual_seed(1)
        patches = random_patches(pictures, self.patches, self.patch_side, corners)
        return {
            "whole": torch.cat([self.reader.features(part) for part in pictures.split(50)]),
            "patch": torch.cat([self.detector.features(part) for part in patches.split(100)]),
        }

    @cached_property
    def _real(self) -> dict[str, Tensor]:
        key = f"{self.side}-{self.real_count}-{self.patches}-{'-'.join(self.detectors)}"
        path = self.folder / f"real-{key}.safetensors"
        if not path.exists():
            scenes = [sample_scene(REAL_FIRST + index, held_out=True) for index in range(self.real_count)]
            renders = np.stack([render(scene, self.side, self.side) for scene in scenes])
            features = self._features(torch.from_numpy(renders).permute(0, 3, 1, 2).contiguous())
            write_whole(path, lambda aside: save_file(features, aside))
        return load_file(path)


@torch.no_grad()
def _base_samples(pipe: Any, questions: Questions, sampling: Sampling) -> dict[str, Tensor]:
    cascade = SelfCascade(pipe)
    height, width = cascade.native_size
    settings: dict[str, Any] = {"height": height, "width": width, "output_type": "latent"}
    settings |= {"num_inference_steps": sampling.num_inference_steps, "guidance_scale": sampling.guidance_scale}
    latents, states = [], []
    for indices in questions.groups():
        generators = questions.generators(indices)
        with reduced_precision(pipe):
            out = cascade(questions.captions(indices), **settings, generator=generators)
        latents.append(out.stages[0].latents.float().cpu())  # type: ignore[union-attr]
        states += [generator.get_state() for generator in generators]
    return {"latents": torch.cat(latents), "states": torch.stack(states)}
