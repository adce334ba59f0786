"""True small pictures in the place of base samples, so that what methods make of them has a true large picture.

Axis letters: N pictures, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models import family_of
from selfcascade.cascade import Size
from selfcascade.evaluation.evaluator import Evaluator
from selfcascade.evaluation.prompts import PromptSet
from selfcascade.metrics.fidelity import feature_distance, octave_errors, psnr, ssim

TrueSamples = Callable[[range, Size], Tensor]  # of prompts at these indices, at a size, (n, 3, H, W) in [0, 1]


class TruePivots:
    """Real small pictures of the prompts, encoded: what `BaseSamples` is, without sampling.

    Attributes:
        name: Names them in keys of what is made from them.
        seconds: 0: nothing is sampled.

    Args:
        pipe: Its autoencoder encodes them.
        prompts: Their seeds begin the methods' noise.
        size: Size of the small pictures.
        true_samples: Real pictures of the prompts.
    """

    seconds = 0.0

    def __init__(self, pipe: Any, prompts: PromptSet, size: Size, true_samples: TrueSamples) -> None:
        self.pipe, self.prompts, self.size, self.true_samples = pipe, prompts, size, true_samples
        self.name = f"true-{size}-{prompts.first_seed}"

    def latents(self, indices: range) -> Tensor:
        """The latents of some of them, on the CPU."""
        pixels = self.true_samples(indices, self.size).mul(255).round() / 255  # as from their files
        return family_of(self.pipe).encode((2 * pixels - 1).to(self.pipe.device)).float().cpu()

    def generators(self, indices: range) -> list[torch.Generator]:
        """The pictures' generators, from their beginning."""
        return self.prompts.generators(indices)


def against_truth(true: Tensor, made: Tensor, evaluator: Evaluator) -> dict[str, Tensor]:
    """Each picture's values against the true one, (N,) each: `metrics.fidelity`, by the names in results.

    Args:
        true, made: (N, 3, H, W) in [0, 1].
        evaluator: Has the detector whose levels are compared; without one there is no `detector_distance`.
    """
    errors = octave_errors(true, made)
    found = {"psnr": psnr(true, made), "ssim": ssim(true, made)}
    found |= {f"octave_error_{octave + 1}": errors[:, octave] for octave in range(errors.shape[1])}
    detector: Any = getattr(evaluator, "detector", None)
    if hasattr(detector, "maps"):
        with torch.no_grad():
            found["detector_distance"] = feature_distance(detector.maps(true), detector.maps(made))
    return found


LOWER_IS_BETTER = {"psnr": False, "ssim": False, "detector_distance": True}
