"""Reads a scene's composition from a picture: number, kinds, colours and places of objects, and the background.

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


class _ObjectHead(nn.Module):
    """Reads the attributes of several objects with the same weights, each from its own place in the picture.

    An object's place is a softmax over the cells of a feature map. It depends on the cells and on the whole picture,
    since only the latter distinguishes the first object from the last.

    Args:
        channels: Channels of the feature map.
        code: Width of the vector that describes the whole picture.
        cells: Number of cells of the feature map.
        objects: Number of objects.
        outputs: Number of logits per object.
    """

    def __init__(self, channels: int, code: int, cells: int, objects: int, outputs: int) -> None:
        super().__init__()
        self.there = nn.Conv2d(channels, objects, 1)
        self.where = nn.Linear(code, objects * cells)
        self.read = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, outputs))

    def forward(self, hidden: Tensor, code: Tensor) -> Tensor:
        """Logits (B, objects, outputs) of a feature map (B, C, h, w) and the code (B, D)."""
        there = self.there(hidden).flatten(2)  # (B, objects, h w)
        looks = (there + self.where(code).view_as(there)).softmax(2)
        return self.read(looks @ hidden.flatten(2).transpose(1, 2))


class CompositionReader(ModelMixin, ConfigMixin):
    """A small network that reads the attributes of a scene or a collage.

    Objects are named by position: `first` from the left and `last`; with one object they are the same. The last label
    of `count` includes higher counts ("3" means three or more).

    Args:
        labels: Words of each attribute, in the order of the network's outputs.
        widths: Channels of the four resolution levels.
        input_size: Side to which pictures of any size are resized before they are read.
        objects: Objects whose attributes "<object>_..." are read with shared weights, which need far fewer training
            pictures if there are many kinds; they must have the same labels.
        squeezed, hidden_size: Channels of the squeezed feature map, and width of the layer that reads all of it.
    """

    @register_to_config
    def __init__(
        self,
        labels: dict[str, list[str]],
        widths: Sequence[int] = (32, 64, 96, 128),
        input_size: int = 96,
        objects: Sequence[str] = (),
        squeezed: int = 24,
        hidden_size: int = 256,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 5, 2, 2)
        channels = (widths[0], *widths)
        self.blocks = nn.ModuleList(
            _Block(a, b, 1 if level == 0 else 2) for level, (a, b) in enumerate(pairwise(channels))
        )
        self.squeeze = nn.Conv2d(widths[-1], squeezed, 1)
        cells = (input_size // 16) ** 2
        self.whole, self.shared = _divided(labels, objects)
        total = sum(len(labels[name]) for name in self.whole)
        code = nn.Linear(squeezed * cells + widths[-1], hidden_size)
        self.head = nn.Sequential(code, nn.ReLU(), nn.Linear(hidden_size, total))
        outputs = sum(len(labels[f"{objects[0]}_{name}"]) for name in self.shared) if objects else 0
        self.object_head = _ObjectHead(widths[-1], hidden_size, cells, len(objects), outputs) if objects else None

    def features(self, images: Tensor) -> Tensor:
        """Pooled features of the deepest level, (B, widths[-1]), for images (B, 3, H, W) in [0, 1]."""
        return self._hidden(images).mean((2, 3))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, words) of each attribute, for images (B, 3, H, W) in [0, 1] of any size."""
        hidden = self._hidden(images)
        flat = torch.cat([relu(self.squeeze(hidden)).flatten(1), hidden.mean((2, 3))], 1)
        code = self.head[:2](flat)
        labels, objects = self.config["labels"], self.config["objects"]
        found = self.head[2](code).split([len(labels[name]) for name in self.whole], 1)
        logits = dict(zip(self.whole, found, strict=True))
        if self.object_head is not None:
            sizes = [len(labels[f"{objects[0]}_{name}"]) for name in self.shared]
            for row, own in zip(objects, self.object_head(hidden, code).unbind(1), strict=True):
                logits |= {f"{row}_{name}": part for name, part in zip(self.shared, own.split(sizes, 1), strict=True)}
        return logits

    @torch.no_grad()
    def read(self, images: Tensor) -> list[dict[str, str]]:
        """The most likely word for each attribute, one mapping per picture."""
        best = {name: logits.argmax(1).tolist() for name, logits in self(images).items()}
        labels = self.config["labels"]
        return [{name: labels[name][best[name][row]] for name in labels} for row in range(len(images))]

    def loss(self, images: Tensor, truths: Sequence[Reading]) -> Tensor:
        """Cross-entropy summed over attributes; attributes missing from a truth do not count."""
        total = torch.zeros((), device=images.device)
        for name, logits in self(images).items():
            words = self.config["labels"][name]
            target = [words.index(str(truth[name])) if name in truth else -100 for truth in truths]
            if any(index >= 0 for index in target):
                total = total + cross_entropy(logits.float(), torch.tensor(target, device=logits.device))
        return total

    def places(self, images: Tensor, level: int = 2) -> Tensor:
        """Features with positions, (B, D, h, w), after `level` blocks, for images (B, 3, H, W) in [0, 1]."""
        return self._hidden(images, level)

    def _hidden(self, images: Tensor, level: int | None = None) -> Tensor:
        size = (self.config["input_size"],) * 2
        x = interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        x = relu(self.stem(x * 2 - 1))
        for block in self.blocks[:level]:
            x = block(x)
        return x


def _divided(labels: dict[str, list[str]], objects: Sequence[str]) -> tuple[list[str], list[str]]:
    """Attributes of the whole picture, and attributes that each object has, both sorted by name.

    A saved configuration does not keep the order of its keys.

    Raises:
        ValueError: The objects differ in their attributes or labels.
    """
    own = [{name.partition("_")[2]: labels[name] for name in labels if name.startswith(f"{row}_")} for row in objects]
    if any(other != own[0] or not other for other in own):
        raise ValueError(f"objects {', '.join(objects)} must have the same attributes with the same labels")
    whole = [name for name in sorted(labels) if not any(name.startswith(f"{row}_") for row in objects)]
    return whole, sorted(own[0]) if own else []


def accuracy(readings: Sequence[Reading], truths: Sequence[Reading]) -> dict[str, float]:
    """Share of pictures read correctly: for each attribute, and under `all` for all of them at once.

    An attribute is averaged over the pictures whose truth has it.

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
