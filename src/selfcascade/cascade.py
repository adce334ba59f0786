"""The self-cascade (Guo et al., "Make a Cheap Scaling", ECCV 2024): a frozen low-resolution model, at any size.

    prompt -> base latents -> [upsample -> renoise -> denoise] x R -> pictures

Axis letters: B images, C channels, F frames, h, w latent pixels; R stages. z_0 are clean latents, z_K noisy ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar, cast

from torch import Tensor

# Trained models list ratios whose rounded area lies a few per cent below the square's.
LEAST_AREA = 0.9
MAX_SIDE = 16384
SampleT = TypeVar("SampleT", bound="Sample")
NoisyT = TypeVar("NoisyT")


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int

    @property
    def area(self) -> int:
        """Pixels of one image, the paper's d."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Stage:
    """One rung of the cascade.

    Attributes:
        index: r, 0 for the base stage.
        count: Number of stages, R + 1.
        size: Size of this stage's images.
        num_inference_steps: Steps of the whole schedule, T -> 0; a stage with a pivot runs its tail.
        pivot_step: K, the training timestep in (0, T] where the stage starts; None for the base stage.
        guidance_scale: This stage's guidance weight; None leaves the pipeline's default.
    """

    index: int
    count: int
    size: Size
    num_inference_steps: int
    pivot_step: int | None = None
    guidance_scale: float | None = None

    @property
    def is_last(self) -> bool:
        """Whether this stage's images are the result."""
        return self.index == self.count - 1


@dataclass(frozen=True)
class Sample:
    """The result of a stage, and the pivot of the next one.

    Attributes:
        latents: z_0^r, (B, C, h, w) or (B, C, F, h, w).
        steps: Number of denoising steps that ran.
        interrupted: Whether the caller stopped the model before its last step.
    """

    latents: Tensor
    steps: int = 0
    interrupted: bool = False


@dataclass(frozen=True)
class StageResult(Generic[SampleT]):
    """A finished stage.

    Attributes:
        stage: Plan of the stage.
        seconds: Wall-clock time, including upsampling and, for the last stage, decoding.
        sample: Result of the stage.
    """

    stage: Stage
    seconds: float
    sample: SampleT

    @property
    def latents(self) -> Tensor:
        """z_0^r, (B, C, h, w) or (B, C, F, h, w)."""
        return self.sample.latents

    @property
    def steps(self) -> int:
        """Number of denoising steps that ran."""
        return self.sample.steps

    @property
    def size(self) -> Size:
        """Size of the stage's images."""
        return self.stage.size

    @property
    def pivot_step(self) -> int | None:
        """K, the training timestep where the stage started; None for the base stage."""
        return self.stage.pivot_step


class BaseModel(Protocol[SampleT, NoisyT]):
    """A frozen diffusion model, as the algorithm needs it. It has no state between calls."""

    def sample(self, stage: Stage) -> SampleT:
        """z_0^0: a sample from pure noise, T -> 0, at the stage's size."""
        ...

    def upsample(self, pivot: SampleT, size: Size) -> Tensor:
        """phi(z_0^(r-1)): the pivot at a larger size, (B, C, h, w) to (B, C, h', w')."""
        ...

    def renoise(self, z_up: Tensor, stage: Stage, pivot: SampleT) -> NoisyT:
        """z_K: the enlarged pivot noised to the stage's pivot step (eq. 6), and the rest of the schedule."""
        ...

    def denoise(self, z_K: NoisyT, stage: Stage, pivot: SampleT) -> SampleT:
        """z_0^r: z_K denoised K -> 0 with the frozen weights (eq. 7); tuned, with the pivot's skip features (eq. 8)."""
        ...


def plan_stages(native: Sequence[int], target: Sequence[int], multiple: int = 8) -> tuple[Size, ...]:
    """Sizes of the stages, from the base stage at the native area to the target.

    R = ceil(log4(d_R / d)): no stage has more than 4x the pixels (2x a side) of the one before, up to rounding. The
    last is exactly the target, each earlier one has half the sides of the next, and the base stage has the native area
    in the target's ratio.

    Args:
        native: (height, width) the model was trained at, in pixels.
        target: (height, width) wanted, in pixels.
        multiple: Sizes before the target are rounded to this many pixels.

    Returns:
        R + 1 sizes; only the target if it is not larger than the base stage.

    Raises:
        ValueError: A size is not positive or is too large, or the target has less than 0.9 of the native area.
    """
    native, target = (_checked(name, size) for name, size in (("native", native), ("target", target)))
    if target.area < LEAST_AREA * native.area:
        raise ValueError(f"target {target} is smaller than the native size {native}; it must have at least its pixels")
    base = _rounded(target, math.sqrt(native.area / target.area), multiple)
    stages = math.ceil(math.log(target.area / native.area, 4) - 1e-9)
    sizes = [target] + [_rounded(target, 0.5**r, multiple) for r in range(1, stages)]
    larger = [size for size in reversed(sizes) if size.area > base.area]
    return (base, *larger) if larger else (target,)


def self_cascade(
    base: BaseModel[SampleT, NoisyT], stages: Sequence[Stage], pivot: SampleT | None = None
) -> Iterator[StageResult[SampleT]]:
    """Runs the stages, each from the clean latents of the one before (paper, Section 3.2).

    Args:
        base: The frozen model; it holds the prompt, the random generators and the decoder.
        stages: The plan; the first has no pivot step unless `pivot` is given.
        pivot: z_0^0 from elsewhere (a user's own image): every stage then starts from a pivot.

    Yields:
        Each stage's result once it is done; fewer than there are stages if the caller interrupted the model.
    """
    for stage in stages:
        began = time.perf_counter()
        if pivot is None:
            pivot = base.sample(stage)  # z_0^0
        else:
            z_up = base.upsample(pivot, stage.size)  # phi(z_0^(r-1))
            z_K = base.renoise(z_up, stage, pivot)  # z_K ~ N(sqrt(abar_K) z_up, (1 - abar_K) I)    (eq. 6)
            pivot = base.denoise(z_K, stage, pivot)  # K -> 0; tuned: with the pivot's skip features    (eq. 7, 8)
        yield StageResult(stage, time.perf_counter() - began, pivot)
        if pivot.interrupted:
            return


def _checked(name: str, size: object) -> Size:
    sides = tuple(cast("Sequence[object]", size)) if isinstance(size, Sequence) else (size,)
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE]
    if len(sides) != 2 or len(whole) != 2:
        raise ValueError(f"{name} must be two whole numbers from 1 to {MAX_SIDE}, not {'x'.join(map(str, sides)):.90}")
    return Size(*whole)


def _rounded(size: Size, factor: float, multiple: int) -> Size:
    return Size(*(max(multiple, round(side * factor / multiple) * multiple) for side in size))
