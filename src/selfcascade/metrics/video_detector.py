"""A small detector for clips of moving scenes: it reads what moves where, and how a clip is degraded.

Axis letters: B clips, C channels, F frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, mse_loss, relu, silu

from selfcascade.metrics.composition import Reading

FEWEST_FRAMES = 4
FLAWS_WEIGHT = 100
# Strides over (F, H, W), after a stem of (1, 4, 4): the first level keeps all frames, the last all places.
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 1, 1))


class VideoDetector(ModelMixin, ConfigMixin):
    """Three-dimensional convolutions over (F, H, W); the pooled features are used for the bundled FVD.

    Objects are named as in `CompositionReader`: `first` from the left and `last`; their direction is an attribute too.
    What a clip shows is read from features with places. The pooled features are also trained on these words, and on
    how far a clip was degraded in time (shuffled, frozen, ...) and in its pictures (blurred, noisy, ...). So a distance
    of them grows with either.

    Args:
        labels: Words of each attribute, in the order of the network's outputs.
        degradations: Names of the degradations whose amounts, 0 to 1, are predicted.
        widths: Channels of the four resolution levels; the last is the number of features.
        input_size: Side to which frames of any size are resized.
    """

    @register_to_config
    def __init__(
        self,
        labels: dict[str, list[str]],
        degradations: Sequence[str],
        widths: Sequence[int] = (32, 48, 64, 96),
        input_size: int = 64,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, widths[0], (1, 7, 7), (1, 4, 4), (0, 3, 3))
        self.levels = nn.ModuleList(
            nn.ModuleList([nn.Conv3d(a, b, 3, stride, 1), nn.GroupNorm(8, b)])
            for (a, b), stride in zip(pairwise(widths), STRIDES, strict=True)
        )
        self.inner = nn.ModuleList(nn.Conv3d(width, width, 3, padding=1) for width in widths[2:])
        self.squeeze = nn.Conv2d(widths[-1], 16, 1)
        words, cells = sum(len(one) for one in labels.values()), (input_size // 16) ** 2
        self.head = nn.Sequential(nn.Linear(16 * cells + widths[-1], 128), nn.ReLU(), nn.Linear(128, words))
        self.flaws = len(degradations)
        self.told = nn.Linear(widths[-1], words + self.flaws)

    def features(self, clips: Tensor) -> Tensor:
        """Features (B, widths[-1]) of clips (B, F, 3, H, W) in [0, 1] of any size.

        Raises:
            ValueError: The clips are not of that shape, or have fewer than four frames.
        """
        return self._hidden(clips).mean((2, 3, 4))

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Logits (B, words) of each attribute, and amounts `degraded` (B, degradations), for clips as in `features`."""
        read, _, amounts = self._outputs(clips)
        return {**read, "degraded": amounts}

    @torch.no_grad()
    def read(self, clips: Tensor) -> list[dict[str, str]]:
        """The most likely word for each attribute, one mapping per clip."""
        outputs = self(clips)
        labels = self.config["labels"]
        best = {name: outputs[name].argmax(1).tolist() for name in labels}
        return [{name: labels[name][best[name][row]] for name in labels} for row in range(len(clips))]

    def loss(self, clips: Tensor, truths: Sequence[Reading], amounts: Tensor) -> Tensor:
        """Cross-entropies of both readings summed over attributes, and the squared error of the amounts.

        Args:
            clips: (B, F, 3, H, W).
            truths: Truth of each clip; attributes missing from a truth do not count.
            amounts: Amounts of the degradations, (B, degradations) in [0, 1]; their mean squared error counts 100
                times, since it is small compared with the cross-entropies.
        """
        read, plain, flaws = self._outputs(clips)
        total = FLAWS_WEIGHT * mse_loss(flaws.float(), amounts)
        for name, words in self.config["labels"].items():
            target = torch.tensor([words.index(str(truth[name])) if name in truth else -100 for truth in truths])
            if (target >= 0).any():
                target = target.to(clips.device)
                total = total + cross_entropy(read[name].float(), target)
                total = total + 0.3 * cross_entropy(plain[name].float(), target)
        return total

    def _outputs(self, clips: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Logits of the words, logits from the pooled features only, and amounts of the degradations."""
        hidden = self._hidden(clips)
        pooled = hidden.mean((2, 3, 4))
        placed = relu(self.squeeze(hidden.mean(2))).flatten(1)
        words, amounts = self.told(pooled).split([self.told.out_features - self.flaws, self.flaws], 1)
        return self._named(self.head(torch.cat([placed, pooled], 1))), self._named(words), amounts

    def _named(self, logits: Tensor) -> dict[str, Tensor]:
        # In order of name: a saved configuration does not keep the order of its keys.
        names = sorted(self.config["labels"])
        sizes = [len(self.config["labels"][name]) for name in names]
        return dict(zip(names, logits.split(sizes, 1), strict=True))

    def _hidden(self, clips: Tensor) -> Tensor:
        if clips.ndim != 5 or clips.shape[2] != 3 or clips.shape[1] < FEWEST_FRAMES:
            shape = tuple(clips.shape)
            raise ValueError(f"clips must be (B, F, 3, H, W) of at least {FEWEST_FRAMES} frames, not {shape}")
        size = (self.config["input_size"],) * 2
        frames = clips.flatten(0, 1)
        if frames.shape[-2:] != size:
            frames = interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)
        x = frames.unflatten(0, clips.shape[:2]).transpose(1, 2)  # (B, 3, F, H, W)
        hidden = silu(self.stem(x * 2 - 1))
        for level, (down, norm) in enumerate(self.levels):  # type: ignore[misc]
            hidden = norm(down(hidden))
            hidden = hidden + self.inner[level - 1](silu(hidden)) if level else silu(hidden)
        return silu(hidden)
