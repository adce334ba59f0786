"""Real small pictures in place of base samples, so that there is a true large picture to compare with.

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

TrueSamples = Callable[[range, Size], Tensor]  # prompt indices and size -> pictures (n, 3, H, W) in [0, 1]


class TruePivots:
    """Encoded real small pictures of the prompts. They take the place of `BaseSamples`; nothing is sampled.

    Attributes:
        name: Name in the keys of what is made from them.
        seconds: Always 0, because nothing is sampled.

    Args:
        pipe: The model whose autoencoder encodes the pictures.
        prompts: The prompts. Their seeds are those of the methods' noise.
        size: Size of the small pictures.
        true_samples: Returns real pictures of the prompts.
    """

    seconds = 0.0

    def __init__(self, pipe: Any, prompts: PromptSet, size: Size, true_samples: TrueSamples) -> None:
        self.pipe, self.prompts, self.size, self.true_samples = pipe, prompts, size, true_samples
        self.name = f"true-{size}-{prompts.first_seed}"

    def latents(self, indices: range) -> Tensor:
        """The latents at these indices, on the CPU."""
        pixels = self.true_samples(indices, self.size).mul(255).round() / 255  # as if read from files
        return family_of(self.pipe).encode((2 * pixels - 1).to(self.pipe.device)).float().cpu()

    def generators(self, indices: range) -> list[torch.Generator]:
        """New generators of the pictures at these indices."""
        return self.prompts.generators(indices)


def against_truth(true: Tensor, made: Tensor, evaluator: Evaluator) -> dict[str, Tensor]:
    """Compares each picture with the true one (`metrics.fidelity`): values (N,) by their names in results.

    Args:
        true, made: Pictures (N, 3, H, W) in [0, 1].
        evaluator: Holds the detector for `detector_distance`. Without a detector that value is left out.
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
