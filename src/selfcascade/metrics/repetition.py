"""Repeated objects, without labels: what stands out in a picture, and stands out elsewhere again.

Axis letters: B pictures, D features, h, w positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

APART = 0.22  # of the picture's sides: two places nearer than that can be one object


def repetition(features: Tensor, apart: float = APART) -> Tensor:
    """How much of what stands out in a picture is found again far from itself, 0 to 1.

    At each position the features' distance from the picture's mean says how much it stands out, s; their cosine
    similarity with those of the most similar position that lies farther off than `apart`, how much it is repeated, r.
    The score is the mean of r, weighted by (s / max s)^4. Textured surroundings resemble themselves as well, so it is
    not 0 for one object: it is to be read beside that of real pictures. On renders of known counts it tells one object
    from two equal ones in 96 % of pairs, from three in 99 % (docs/evaluation.md).

    Args:
        features: (B, D, h, w) of any detector that keeps positions.
        apart: A share of the sides, in (0, 1).

    Returns:
        (B,).

    Raises:
        ValueError: `apart` is out of range, or so large that no position has another that far off.
    """
    if not 0 < apart < 1:
        raise ValueError(f"apart must be a share of the sides in (0, 1), not {apart!r}")
    height, width = features.shape[-2:]
    rows, columns = (torch.arange(count, device=features.device) / count for count in (height, width))
    places = torch.cartesian_prod(rows, columns)
    far = torch.cdist(places, places) > apart
    if not far.any(1).all():
        raise ValueError(f"apart must leave each of {height}x{width} positions another one, not {apart!r}")
    own = features.float().flatten(2)
    own = own - own.mean(2, keepdim=True)
    weight = own.norm(dim=1)
    weight = (weight / weight.amax(1, keepdim=True).clamp(min=1e-12)) ** 4  # (B, h w)
    direction = normalize(own, dim=1)
    similarity = torch.einsum("bdp,bdq->bpq", direction, direction)
    again = similarity.masked_fill(~far, -1).amax(2).clamp(min=0)
    return (weight * again).sum(1) / weight.sum(1).clamp(min=1e-12)


def repetition_figures(real: Tensor, fake: Tensor, draws: int = 0) -> dict[str, float]:
    """Mean scores of pictures and of real ones, and the share above what one real picture in twenty exceeds.

    Args:
        real: `repetition` of real pictures, (N,).
        fake: `repetition` of the pictures, (M,).
        draws: Not used: there is no interval.
    """
    over = fake > torch.quantile(real, 0.95)
    figures = {"mean": fake.mean(), "real_mean": real.mean(), "share_over_real": over.float().mean()}
    return {name: float(value) for name, value in figures.items()}
