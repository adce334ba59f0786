"""All metrics by their names in result files: how each is computed, and how the report shows it.

To add a metric, write a function in this package and an entry here: evaluation and the report then use it.
Axis letters: N samples (pictures or clips), D features, F frames, C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfcascade.metrics.distances import Distance, bootstrap, frechet_distance, kernel_distance
from selfcascade.metrics.repetition import repetition_figures
from selfcascade.metrics.sharpness import octave_energies, octave_ratios
from selfcascade.metrics.video import flicker, relative

Compare = Callable[[Tensor, Tensor, int], Any]


@dataclass(frozen=True)
class Metric:
    """A metric of a set of samples.

    Attributes:
        column: Heading in the report's tables; if empty, it is not shown there.
        feature: Name of the features it compares, one row per sample; it is computed wherever these exist. If empty,
            the benchmark's own network that reads samples computes it.
        compare: Maps (real features, features of samples, bootstrap draws) to JSON for result files.
        extract: Maps samples, (N, C, H, W) or (N, F, C, H, W) in [0, 1], to features that need no network.
        value: The number that tables show, from the JSON in result files.
        is_distance: Whether it is a distance from real samples, which tables show first and with its interval.
        headline: Name in the lines printed while results are made. Empty if it is left out of them.
        is_kernel: Whether it is a kernel distance, which is not biased by small numbers of samples.
    """

    column: str = ""
    feature: str = ""
    compare: Compare | None = None
    extract: Callable[[Tensor], Tensor] | None = None
    value: Callable[[Any], float] = lambda figure: figure[0]
    is_distance: bool = False
    headline: str = ""
    is_kernel: bool = False


def with_interval(distance: Distance) -> Compare:
    """A distance as [value, low, high], with the middle 95 % of its bootstrap values.

    Features are (N,), (N, D), or (N, n, D), where the n rows of a sample (patches or frames) are drawn together.
    """

    def compare(real: Tensor, fake: Tensor, draws: int) -> list[float]:
        real, fake = (x[:, None] if x.ndim == 1 else x for x in (real, fake))
        unit = real[0, ..., 0].numel()
        real, fake = (x.flatten(0, -2) for x in (real, fake))
        estimate = bootstrap(distance, real, fake, torch.Generator().manual_seed(0), draws, unit)
        return [estimate.value, estimate.low, estimate.high]

    return compare


def _distance(column: str, feature: str, distance: Distance, headline: str = "") -> Metric:
    kernel = distance is kernel_distance
    return Metric(column, feature, with_interval(distance), is_distance=True, headline=headline, is_kernel=kernel)


def _percent(figure: Any) -> float:
    return 100 * figure[0]


IMAGE_METRICS: dict[str, Metric] = {
    "fid": _distance("FID_r", "whole", frechet_distance, "FID"),
    "kid": _distance("KID_r", "whole", kernel_distance),
    "patch_fid": _distance("pFID_r", "patch", frechet_distance, "patch FID"),
    "patch_kid": _distance("pKID_r", "patch", kernel_distance),
    "fid_b": _distance("FID_b", "base_size", frechet_distance),
    "kid_b": _distance("KID_b", "base_size", kernel_distance),
    "composition": Metric("all right, %", value=lambda figure: 100 * figure["all"]),
    "repetition": Metric(
        "repeats, %", "repetition", repetition_figures, value=lambda figure: 100 * figure["share_over_real"]
    ),
    "detail": Metric("detail", "octaves", octave_ratios, octave_energies),
    "clip_score": Metric(value=float),
}
CLIP_METRICS: dict[str, Metric] = {
    "fvd": _distance("FVD_r", "clip", frechet_distance, "FVD"),
    "kvd": _distance("KVD_r", "clip", kernel_distance),
    "frame_fid": _distance("frame FID_r", "frame", frechet_distance),
    "frame_patch_fid": _distance("frame pFID_r", "patch", frechet_distance, "frame patch FID"),
    "motion": Metric("motion right, %", value=_percent, headline="motion"),
    "objects": Metric("objects right, %", value=_percent),
    "composition": Metric("frames right, %", value=_percent),
    "change": Metric("change", "change", with_interval(relative)),
    "patch_change": Metric("patch change", "patch_change", with_interval(relative)),
    "flicker": Metric("flicker", "flicker", with_interval(relative), flicker),
}
