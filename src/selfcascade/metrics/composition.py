"""Reading a scene's composition off a picture: how many objects, which, what colour, where, on what background.

Axis letters: B pictures, C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, relu

Reading = Mapping[str, str | int]


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)])
        self.skip = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = relu(self.norms[0](self.first(x)))
        return relu(self.norms[1](self.second(hidden)) + self.skip(x))


class CompositionReader(ModelMixin, ConfigMixin):
    """A small network that reads each attribute of a scene.

    Objects are named by position: `first` from the left and `last`; with one object they are the same. `count` stops at
    the last of its labels ("3" means three or more).

    Args:
        labels: For each attribute, the words it can have, in the order of the network's outputs for it.
        widths: Channels of the four resolution levels.
        input_size: Side to which pictures of any size are resized before they are read.
    """

    @register_to_config
    def __init__(
        self,
        labels: dict[str, list[str]],
        widths: Sequence[int] = (32, 64, 96, 128),
        input_size: int = 96,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 5, 2, 2)
        channels = (widths[0], *widths)
        self.blocks = nn.ModuleList(
            _Block(a, b, 1 if level == 0 else 2) for level, (a, b) in enumerate(pairwise(channels))
        )
        self.squeeze = nn.Conv2d(widths[-1], 24, 1)
        cells = (input_size // 16) ** 2
        total = sum(len(words) for words in labels.values())
        self.head = nn.Sequential(nn.Linear(24 * cells + widths[-1], 256), nn.ReLU(), nn.Linear(256, total))

    def features(self, images: Tensor) -> Tensor:
        """Pooled features of the deepest level, (B, widths[-1]), of images (B, 3, H, W) in [0, 1]."""
        return self._hidden(images).mean((2, 3))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, words) of each attribute, of images (B, 3, H, W) in [0, 1], any size."""
        hidden = self._hidden(images)
        flat = torch.cat([relu(self.squeeze(hidden)).flatten(1), hidden.mean((2, 3))], 1)
        # In order of name: a saved configuration does not keep the order of its keys.
        names = sorted(self.config["labels"])
        sizes = [len(self.config["labels"][name]) for name in names]
        return dict(zip(names, self.head(flat).split(sizes, 1), strict=True))

    @torch.no_grad()
    def read(self, images: Tensor) -> list[dict[str, str]]:
        """The most likely word for each attribute, one mapping a picture."""
        best = {name: logits.argmax(1).tolist() for name, logits in self(images).items()}
        labels = self.config["labels"]
        return [{name: labels[name][best[name][row]] for name in labels} for row in range(len(images))]

    def loss(self, images: Tensor, truths: Sequence[Reading]) -> Tensor:
        """Cross-entropy summed over attributes; an attribute that a truth lacks does not count."""
        total = torch.zeros((), device=images.device)
        for name, logits in self(images).items():
            words = self.config["labels"][name]
            target = [words.index(str(truth[name])) if name in truth else -100 for truth in truths]
            if any(index >= 0 for index in target):
                total = total + cross_entropy(logits.float(), torch.tensor(target, device=logits.device))
        return total

    def places(self, images: Tensor, level: int = 2) -> Tensor:
        """Features that keep positions, (B, D, h, w): those after `level` blocks, of images (B, 3, H, W) in [0, 1]."""
        return self._hidden(images, level)

    def _hidden(self, images: Tensor, level: int | None = None) -> Tensor:
        size = (self.config["input_size"],) * 2
        x = interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        x = relu(self.stem(x * 2 - 1))
        for block in self.blocks[:level]:
            x = block(x)
        return x


def accuracy(readings: Sequence[Reading], truths: Sequence[Reading]) -> dict[str, float]:
    """Share of pictures read as their truth says: each attribute, and `all` of them at once.

    An attribute counts over the pictures whose truth has it.

    Raises:
        ValueError: The lists differ in length or are empty.
    """
    if len(readings) != len(truths) or not truths:
        raise ValueError(f"readings and truths must be as many, at least one: {len(readings)} and {len(truths)}")
    right = [
        {name: str(reading[name]) == str(value) for name, value in truth.items()}
        for reading, truth in zip(readings, truths, strict=True)
    ]
    names = sorted({name for row in right for name in row})
    shares = {
        name: sum(row[name] for row in right if name in row) / sum(name in row for row in right) for name in names
    }
    return {"all": sum(all(row.values()) for row in right) / len(right), **shares}
