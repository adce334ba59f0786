"""Metrics of clips: distances of sets (FVD, KVD), steadiness from frame to frame, and accuracy of what they show.

Axis letters: N clips, F frames, D features, C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from selfcascade.metrics.composition import Reading
from selfcascade.metrics.distances import Estimate, bootstrap, frechet_distance, kernel_distance

CLIPS, FRAMES = 2048, 16  # of a published FVD and KVD: LVDM's, and the paper's Table 3
CELLS = 16


def clip_distances(real: Tensor, fake: Tensor, seed: int = 0, draws: int = 100) -> dict[str, Estimate]:
    """FVD and KVD with 95 % intervals, from a detector's features of whole clips.

    FVD is the Frechet distance (Unterthiner et al. 2018). Published ones use `CLIPS` clips of `FRAMES` frames; fewer
    bias it upwards, so only compare equal N. KVD is the unbiased squared maximum mean discrepancy with
    k(x, y) = (x.y / D + 1)^3, over all clips at once and without a multiplier, as in LVDM, which the paper's Table 3
    follows. For subsets, as in KID, use `kernel_distance_of_subsets`.

    Args:
        real: Features of real clips, (N, D).
        fake: Features of the clips, (M, D).
        seed: Seed of the bootstrap.
        draws: Number of draws of the bootstrap.

    Raises:
        ValueError: The features differ in width, are not finite, or there are fewer than two clips.
    """
    return {
        name: bootstrap(distance, real, fake, torch.Generator().manual_seed(seed), draws)
        for name, distance in (("fvd", frechet_distance), ("kvd", kernel_distance))
    }


def neighbour_distance(features: Tensor) -> Tensor:
    """Mean distance of neighbouring frames' features, (N,): |f_(t+1) - f_t| over the frames of each clip.

    It needs no optical flow, so it does not depend on a motion model. Alone it says little: a frozen clip has 0.
    Divided by the value of real clips (`relative`), above 1 is unsteady and below 1 moves too little.

    Args:
        features: Features of single frames, (N, F, D).

    Raises:
        ValueError: There are fewer than two frames.
    """
    if features.ndim != 3 or features.shape[1] < 2:
        raise ValueError(f"features must be (N, F, D) of at least two frames, not {tuple(features.shape)}")
    return (features[:, 1:] - features[:, :-1]).norm(dim=2).mean(1)


def flicker(clips: Tensor, cells: int = CELLS) -> Tensor:
    """How much coarse brightness and colour flicker, (N,): mean |x_(t-1) - 2 x_t + x_(t+1)|.

    Frames are averaged over a grid of cells, so that it does not depend on the size, and smooth motion from cell to
    cell counts little. Divide by the value of real clips, as for `neighbour_distance`.

    Args:
        clips: (N, F, C, H, W).
        cells: Number of cells along a side of the grid.

    Raises:
        ValueError: There are fewer than three frames, or they are smaller than the grid.
    """
    if clips.ndim != 5 or clips.shape[1] < 3 or min(clips.shape[-2:]) < cells:
        shape = tuple(clips.shape)
        raise ValueError(f"clips must be (N, F, C, H, W) of 3 frames and {cells} pixels a side or more, not {shape}")
    coarse = adaptive_avg_pool2d(clips.flatten(0, 1).float(), cells).unflatten(0, clips.shape[:2])
    return (coarse[:, :-2] - 2 * coarse[:, 1:-1] + coarse[:, 2:]).abs().flatten(1).mean(1)


def relative(real: Tensor, fake: Tensor) -> float:
    """Mean of the clips' values divided by the mean of the real ones'; 1 is right. A `Distance` for `bootstrap`.

    Args:
        real: Values of real clips, (N, 1).
        fake: Values of the clips, (M, 1).

    Raises:
        ValueError: The real values' mean is 0.
    """
    mean = float(real.double().mean())
    if mean == 0:
        raise ValueError("real must not have a mean of 0, as that of clips that do not move")
    return float(fake.double().mean()) / mean


def mean_estimate(values: Tensor, seed: int = 0, draws: int = 100) -> Estimate:
    """The mean of the clips' values, (N,), with the middle 95 % of bootstrap means.

    Clips without a value, NaN, are left out. A mean is not biased like distances, so the interval is not moved, and
    never leaves the range of the values.
    """
    values = values.double().cpu()
    values = values[~values.isnan()]
    drawn = torch.randint(len(values), (draws, len(values)), generator=torch.Generator().manual_seed(seed))
    low, high = torch.quantile(values[drawn].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(float(values.mean()), low, high, 0, len(values))


def frame_accuracy(
    readings: Sequence[Sequence[Reading]], truths: Sequence[Reading], leave_out: Sequence[str] = ("place",)
) -> dict[str, Tensor]:
    """Share of each clip's frames that are read correctly, (N,), for each attribute and for `all` at once.

    Args:
        readings: Readings of each clip, one per frame from `CompositionReader.read`, or one for the whole clip.
        truths: Truth of each clip; attributes that no reading has are left out.
        leave_out: Attributes that do not hold for a whole clip, such as the place of what moves.

    Returns:
        One value per clip for each attribute; NaN if a clip's truth lacks it.

    Raises:
        ValueError: The lists differ in length or are empty.
    """
    if len(readings) != len(truths) or not truths or not all(readings):
        raise ValueError(f"readings and truths must be as many, at least one: {len(readings)} and {len(truths)}")
    names = sorted({name for truth in truths for name in truth} & set(readings[0][0]) - set(leave_out))
    shares = torch.full((len(truths), len(names) + 1), torch.nan, dtype=torch.float64)
    for row, (frames, truth) in enumerate(zip(readings, truths, strict=True)):
        known = [name for name in names if name in truth]
        if not known:
            continue
        right = torch.tensor([[str(frame[name]) == str(truth[name]) for name in known] for frame in frames])
        shares[row, 0] = right.all(1).double().mean()
        for column, name in enumerate(known):
            shares[row, 1 + names.index(name)] = right[:, column].double().mean()
    return dict(zip(("all", *names), shares.T, strict=True))
