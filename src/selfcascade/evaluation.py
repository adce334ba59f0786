"""Method x held-out scenes -> figures: each method gets the same captions and seeds, and is compared with real renders.

Axis letters: N pictures, C channels, H, W pixels; h, w latent pixels.
"""

from __future__ import annotations

import contextlib
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
from torch.nn.functional import interpolate

from selfcascade.base_models import family_of
from selfcascade.base_models.family import denoiser
from selfcascade.data.scenes import Scene, caption, render, sample_scene
from selfcascade.features import FeatureUpsamplers, fingerprint
from selfcascade.files import write_whole
from selfcascade.images import file_sha256
from selfcascade.methods import METHODS
from selfcascade.metrics.composition import CompositionReader, accuracy
from selfcascade.metrics.detectors import PatchDetector
from selfcascade.metrics.distances import bootstrap, frechet_distance, kernel_distance, random_patches
from selfcascade.metrics.repetition import repetition
from selfcascade.metrics.sharpness import octave_energies
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
        method: A name of `METHODS`; given upsamplers, "self-cascade" is "self-cascade-tuned".
        height, width: Of the pictures, in pixels.
        num_inference_steps: Of the whole schedule.
        guidance_scale: Of every stage.
        preset, pivot_step, upsampling: As in `SelfCascade.__call__`; None is the method's own.
        weights: For methods that sample with others than the base model's.

    Raises:
        ValueError: There is no such method.
    """

    method: str = "self-cascade"
    height: int = 128
    width: int = 128
    num_inference_steps: int = 25
    guidance_scale: float = 3.0
    preset: str | None = None
    pivot_step: int | list[int] | None = None
    upsampling: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")


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

    def pictures(self, pipe: Any) -> Tensor:
        """They themselves, (N, 3, h, w) in [0, 1]."""
        family = family_of(pipe)
        with torch.no_grad():
            decoded = [family.decode(pipe, part.to(pipe.device)).float().cpu() for part in self.latents.split(GROUP)]
        return torch.cat(decoded).clamp(-1, 1) / 2 + 0.5

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
        sampling: How it is answered.
        pivots: Base samples of the same questions, which methods that start from one are given.
        upsamplers: For the tuned version.
    """
    tuned = upsamplers is not None and sampling.method == "self-cascade"
    method = METHODS["self-cascade-tuned" if tuned else sampling.method]
    settings = {name: value for name, value in asdict(sampling).items() if name != "method" and value is not None}
    settings |= {"upsamplers": upsamplers} if upsamplers is not None else {}
    made: list[Tensor] = []
    for indices in questions.groups():
        own: dict[str, Any] = {"generator": questions.generators(indices)}
        if method.from_base:
            pivot = pivots.latents[indices.start : indices.stop].to(pipe.device)
            own = {"generator": pivots.generators(indices), "pivot": pivot}
        with reduced_precision(pipe):
            output = method(pipe, questions.captions(indices), **settings, **own, output_type="pt")
        made.append(output.images.float().cpu())
    return torch.cat(made)


@contextlib.contextmanager
def reduced_precision(pipe: Any) -> Iterator[None]:
    """Within it the U-Net runs in bfloat16 by autocast: half the time, and no figure moves beyond its error."""
    unet = denoiser(pipe)
    held = vars(unet).get("forward")
    unet.forward = torch.autocast(torch.device(pipe.device).type, torch.bfloat16)(unet.forward)
    try:
        yield
    finally:
        del unet.forward
        if held is not None:
            unet.forward = held


class Judge:
    """Reads the composition off pictures of scenes, and measures their distance from real renders of other scenes.

    FID is of whole pictures, in features of the composition reader, which sees them at 96 pixels and knows no fine
    detail; patch FID is of patches in their own pixels, in features of the patch detector, which knows nothing else.
    The paper's patches are 299 of 1024 pixels; the same share of the side is taken here.

    Args:
        height, width: Of the pictures judged.
        folder: The features of the real renders are kept there.
        real_count: Real renders, of held-out scenes other than those asked for.
        patches: Of each picture.
        draws: Of the bootstrap that gives the intervals.
    """

    def __init__(
        self, height: int, width: int, folder: Path, real_count: int = 1000, patches: int = 3, draws: int = 100
    ) -> None:
        self.size, self.folder, self.real_count = (height, width), folder, real_count
        self.patches, self.draws = patches, draws
        self.patch_side = round(0.292 * min(height, width))
        bundled = BUNDLED.parent
        self.reader = CompositionReader.from_pretrained(str(bundled / "reader"), local_files_only=True).float().eval()
        self.detector = PatchDetector.from_pretrained(str(bundled / "detector"), local_files_only=True).float().eval()
        weights = [bundled / name / "diffusion_pytorch_model.safetensors" for name in ("reader", "detector")]
        self.detectors = [file_sha256(path)[:12] for path in weights]

    def judge(self, pictures: Tensor, truths: list[dict], base: Tensor | None = None) -> dict[str, Any]:
        """Figures of pictures: shares of right attributes, distances with 95 % intervals, detail against real renders.

        Args:
            pictures: (N, 3, H, W) in [0, 1].
            truths: What is to be seen in each.
            base: Pictures of the base model at its own size, (M, 3, h, w): FID_b and KID_b are measured from those.

        Raises:
            ValueError: The pictures have another size, or there are not as many truths.
        """
        if tuple(pictures.shape[-2:]) != self.size:
            raise ValueError(f"pictures must be {self.size} pixels high and wide, not {tuple(pictures.shape[-2:])}")
        readings = [reading for part in pictures.split(50) for reading in self.reader.read(part)]
        score = accuracy(readings, truths)
        result: dict[str, Any] = {"pictures": len(pictures), "composition": score}
        for objects in ("1", "2"):
            kept = [row for row, truth in enumerate(truths) if str(truth["count"]) == objects]
            if kept:
                one = accuracy([readings[row] for row in kept], [truths[row] for row in kept])
                result["composition"][f"all_with_{objects}"] = one["all"]
        real, features = self._real, self._features(pictures)
        compared = {"{}": (real["whole"], features["whole"], 1)}
        compared["patch_{}"] = (real["patch"], features["patch"], self.patches)
        if base is not None:
            small = interpolate(pictures, size=base.shape[-2:], mode="area")
            compared["{}_b"] = (self._whole(base), self._whole(small), 1)
        for name, (reference, found, unit) in compared.items():
            for kind, distance in (("fid", frechet_distance), ("kid", kernel_distance)):
                generator = torch.Generator().manual_seed(0)
                estimate = bootstrap(distance, reference, found, generator, self.draws, unit)
                result[name.format(kind)] = [estimate.value, estimate.low, estimate.high]
        repeated = self._repetition(pictures)
        # What one real picture in twenty exceeds.
        limit = torch.quantile(real["repetition"], 0.95)
        result["repetition"] = {
            "mean": float(repeated.mean()),
            "real_mean": float(real["repetition"].mean()),
            "share_over_real": float((repeated > limit).float().mean()),
        }
        result["detail"] = (octave_energies(pictures).mean(0) / real["octaves"]).tolist()
        return result

    @torch.no_grad()
    def _features(self, pictures: Tensor) -> dict[str, Tensor]:
        corners = torch.Generator().manual_seed(1)
        patches = random_patches(pictures, self.patches, self.patch_side, corners)
        return {
            "whole": self._whole(pictures),
            "patch": torch.cat([self.detector.features(part) for part in patches.split(100)]),
            "octaves": octave_energies(pictures).mean(0),
            "repetition": self._repetition(pictures),
        }

    @torch.no_grad()
    def _repetition(self, pictures: Tensor) -> Tensor:
        return torch.cat([repetition(self.reader.places(part)) for part in pictures.split(50)])

    @torch.no_grad()
    def _whole(self, pictures: Tensor) -> Tensor:
        return torch.cat([self.reader.features(part) for part in pictures.split(50)])

    @cached_property
    def _real(self) -> dict[str, Tensor]:
        height, width = self.size
        key = f"3-{height}x{width}-{self.real_count}-{self.patches}-{'-'.join(self.detectors)}"
        path = self.folder / f"real-{key}.safetensors"
        if not path.exists():
            scenes = [sample_scene(REAL_FIRST + index, held_out=True) for index in range(self.real_count)]
            renders = np.stack([render(scene, *self.size) for scene in scenes])
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
