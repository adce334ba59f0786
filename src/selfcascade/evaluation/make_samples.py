"""Makes samples of methods for prompts: each method gets the same captions, seeds and base samples.

Axis letters: N pictures or clips, C channels, F frames, H, W pixels; h, w latent pixels.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from selfcascade.base_models import family_of
from selfcascade.base_models.family import denoiser
from selfcascade.base_models.precision import has_bfloat16
from selfcascade.cascade import Size
from selfcascade.evaluation.parts import in_parts
from selfcascade.evaluation.prompts import GROUP, PromptSet
from selfcascade.evaluation.revisions import PROTOCOL
from selfcascade.methods import METHODS
from selfcascade.pipeline import SelfCascade
from selfcascade.pipeline.named_upscalers import held_for
from selfcascade.processes import Processes
from selfcascade.upsamplers.model import FeatureUpsamplers

REAL = "real"  # no method: real samples of the prompts themselves


@dataclass(frozen=True)
class Sampling:
    """Settings of the samples.

    Attributes:
        method: A name of `METHODS`, or `REAL`; given upsamplers, "self-cascade" is "self-cascade-tuned".
        height, width: Height and width of the pictures, in pixels; None is `scale` times the model's own.
        scale: Scale of the sides to the model's own: of both, or of height and width.
        num_inference_steps: Steps of the whole schedule; a list has one value a stage.
        guidance_scale: Guidance of every stage, or one value each.
        preset: As in `SelfCascade.__call__`; None: see `reference_preset`.
        pivot_step, upsampling, anchor, energy, attention, shared_noise: As in `SelfCascade.__call__`; None is the
            preset's.
        weights: For methods that sample with others than the base model's.
        pivot_upscaler: As in `SelfCascade.__call__`, by name.

    Raises:
        ValueError: The method is unknown, or a scale is below 1.
    """

    method: str = "self-cascade"
    height: int | None = None
    width: int | None = None
    scale: float | tuple[float, float] = 2.0
    num_inference_steps: int | list[int] = 25
    guidance_scale: float | list[float] = 3.0
    preset: str | None = None
    pivot_step: int | list[int] | None = None
    upsampling: str | None = None
    anchor: float | None = None
    energy: float | None = None
    attention: str | None = None
    shared_noise: float | None = None
    weights: str | None = None
    pivot_upscaler: str | None = None

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, REAL):
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if (not isinstance(self.scale, (int, float)) and len(self.scale) != 2) or min(self.scales) < 1:
            raise ValueError(f"scale must be one or two numbers from 1, not {self.scale!r}")

    @property
    def scales(self) -> tuple[float, float]:
        """Factors for the height and the width."""
        high, wide = (self.scale, self.scale) if isinstance(self.scale, (int, float)) else self.scale
        return high, wide

    def reference_preset(self, tuned: bool = False) -> str | None:
        """The preset of a cascade: its own, or "paper", whatever the library's default is.

        None, so that upsamplers bring their settings, where these are used and neither a preset nor K is named.

        Args:
            tuned: Whether feature upsamplers are used.
        """
        brings = tuned and self.pivot_step is None
        return self.preset or (None if brings or self.method != "self-cascade" else "paper")

    def as_record(self) -> dict[str, Any]:
        """The settings for digests and results, as JSON: those of before there were upscalers name none."""
        return {name: value for name, value in asdict(self).items() if name != "pivot_upscaler" or value is not None}

    @property
    def of_base(self) -> dict[str, Any]:
        """Steps and guidance of the base samples."""
        values = {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale}
        return {name: value[0] if isinstance(value, list) else value for name, value in values.items()}

    @property
    def size(self) -> Size:
        """Size of the samples.

        Raises:
            ValueError: Height and width are not set yet; `sized` does that.
        """
        if self.height is None or self.width is None:
            raise ValueError("height and width must be given; Sampling.sized spells them out for a model")
        return Size(self.height, self.width)

    def base_size(self, pipe: Any) -> Size:
        """Size of the base samples that a cascade of this model starts from."""
        return SelfCascade(pipe).plan(*self.sized(pipe).size)[0].size

    def sized(self, pipe: Any) -> Sampling:
        """The settings with height and width for this model, rounded to the nearest size that it can make."""
        cascade = SelfCascade(pipe)
        multiple = family_of(pipe).multiple
        sides = zip((self.height, self.width), self.scales, cascade.native_size, strict=True)
        height, width = (given or max(1, round(scale * own / multiple)) * multiple for given, scale, own in sides)
        return replace(self, height=height, width=width)


class Pivots(Protocol):
    """Latents that a cascade's stages above the base start from: base samples, or real pictures encoded."""

    def latents(self, indices: range) -> Tensor:
        """The latents at these indices, on the CPU."""
        ...

    def generators(self, indices: range) -> list[torch.Generator]:
        """The generators with which the samples at these indices continue."""
        ...


class BaseSamples:
    """Base samples, made once by the untrained base model, so that every method enlarges the same ones.

    They are stored on disk, and read when used.

    Attributes:
        name: Digest of everything that they depend on.
        seconds: Seconds per sample.

    Args:
        pipe: The base model's pipeline, not yet trained any further.
        prompts: One base sample is made for each.
        size: Size of the samples.
        sampling: Supplies steps and guidance.
        folder: Folder of the cache, by model, prompts and sampling.
        processes: See `in_parts`.
    """

    def __init__(
        self,
        pipe: Any,
        prompts: PromptSet,
        size: Size,
        sampling: Sampling,
        folder: Path,
        processes: Processes | None = None,
    ) -> None:
        own = [PROTOCOL, *prompts.prompts, prompts.first_seed, *size]
        own += [*sampling.of_base.values(), *prompts.length.values()]
        digest = hashlib.sha256(json.dumps([*own, model_digest(pipe)]).encode()).hexdigest()
        self.name, title, processes = digest[:12], "base samples", processes or Processes()
        processes.check_agreement({"the base samples' model, prompts or settings": digest[:12]})

        def make(indices: range) -> dict[str, Tensor]:
            return _base_samples(pipe, prompts, size, sampling, indices)

        groups, place = list(prompts.groups()), folder / f"pivots-{self.name}"
        self._parts = in_parts(make, groups, place, title, digest, processes)
        self.seconds = float(torch.cat(list(self._parts.each("seconds"))).mean())

    def latents(self, indices: range) -> Tensor:
        """Latents of these samples, on the CPU."""
        return self._parts.rows("latents", indices)

    def pictures(self, pipe: Any) -> Iterator[Tensor]:
        """The base samples as pictures, in parts (n, 3, h, w) in [0, 1]."""
        family = family_of(pipe)
        for latents in self._parts.each("latents"):
            with torch.no_grad():
                decoded = [family.decode(part.to(pipe.device)).float().cpu() for part in latents.split(GROUP)]
            yield torch.cat(decoded).clamp(-1, 1) / 2 + 0.5

    def generators(self, indices: range) -> list[torch.Generator]:
        """The samples' generators, in their state after the base stage."""
        made = [torch.Generator() for _ in indices]
        for generator, state in zip(made, self._parts.rows("states", indices), strict=True):
            generator.set_state(state.clone())  # `set_state` misreads views
        return made


def sample(
    pipe: Any,
    prompts: PromptSet,
    sampling: Sampling,
    base: Pivots,
    upsamplers: FeatureUpsamplers | None = None,
    indices: range | None = None,
) -> Tensor:
    """Makes pictures (N, 3, H, W) or clips (N, F, 3, H, W) in [0, 1], on the CPU, rounded to 8 bits as in files.

    Args:
        pipe: The pipeline, with its trained U-Net.
        prompts: One sample is made for each.
        sampling: Settings of the samples.
        base: Pivots of the same prompts, for methods that start from one.
        upsamplers: Upsamplers of the tuned version.
        indices: One group of prompts; None means all groups.
    """
    tuned = upsamplers is not None and sampling.method == "self-cascade"
    method = METHODS["self-cascade-tuned" if tuned else sampling.method]
    given = asdict(sampling.sized(pipe))
    named = {name: value for name, value in given.items() if name not in ("method", "scale") and value is not None}
    # A suite's shared settings apply only to methods that take them.
    settings = {name: value for name, value in named.items() if method.accepts(name)}
    settings |= {"upsamplers": upsamplers} if upsamplers is not None else {}
    if isinstance(name := settings.get("pivot_upscaler"), str):  # loaded once for all groups
        settings["pivot_upscaler"] = held_for(family_of(pipe), name)
    preset = sampling.reference_preset(tuned)
    settings |= {"preset": preset} if preset is not None and method.accepts("preset") else {}
    made: list[Tensor] = []
    for group in prompts.groups() if indices is None else (indices,):
        own: dict[str, Any] = {"generator": prompts.generators(group)}
        if method.from_base:
            pivot = base.latents(group).to(pipe.device)
            own = {"generator": base.generators(group), "pivot": pivot}
        with reduced_precision(pipe):
            output = method(pipe, prompts.captions(group), **settings, **own, **prompts.length, output_type="pt")
        made.append((output.images if prompts.frames is None else output.frames).float().cpu())
    return torch.cat(made).mul(255).round() / 255


def model_digest(pipe: Any) -> str:
    """A digest of everything that a pipeline's pictures depend on: its weights with their precision, its schedule."""
    scheduler = pipe.scheduler
    words = [type(scheduler).__name__, {**scheduler.config}]
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    words += [[name, weights_digest(module)] for name, module in sorted(modules.items())]
    return hashlib.sha256(json.dumps(words, default=str, sort_keys=True).encode()).hexdigest()


def weights_digest(module: torch.nn.Module | None) -> str:
    """The SHA-256 of a module's parameters and buffers and their dtypes, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in ({} if module is None else module.state_dict()).items():
        digest.update(f"{name} {value.dtype} ".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@contextlib.contextmanager
def reduced_precision(pipe: Any) -> Iterator[None]:
    """Runs the U-Net in bfloat16 by autocast within this context: half the time; figures stay within their error.

    Nothing changes where bfloat16 would be emulated; on processors that takes twice the time of float32.
    """
    unet = denoiser(pipe)
    if not has_bfloat16(str(pipe.device)):
        yield
        return
    held = vars(unet).get("forward")
    unet.forward = torch.autocast(torch.device(pipe.device).type, torch.bfloat16)(unet.forward)
    try:
        yield
    finally:
        del unet.forward
        if held is not None:
            unet.forward = held


@torch.no_grad()
def _base_samples(pipe: Any, prompts: PromptSet, size: Size, sampling: Sampling, indices: range) -> dict[str, Tensor]:
    cascade = SelfCascade(pipe, native_size=size)
    generators, began = prompts.generators(indices), time.perf_counter()
    settings: dict[str, Any] = {**size._asdict(), "output_type": "latent", "generator": generators}
    settings |= sampling.of_base | prompts.length
    with reduced_precision(pipe):
        out: Any = cascade(prompts.captions(indices), **settings)
    states = torch.stack([generator.get_state() for generator in generators])
    seconds = torch.full((len(indices),), (time.perf_counter() - began) / len(indices))
    return {"latents": out.stages[0].latents.float().cpu(), "states": states, "seconds": seconds}
