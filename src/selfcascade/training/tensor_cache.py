"""Caches frozen networks' outputs for each picture or clip on disk: latents, and the pivot's skip features."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfcascade.media.whole_files import write_whole
from selfcascade.upsamplers.skip_features import SkipFeatures, read_skip_features

SAMPLED = 64


class TensorCache:
    """A folder of safetensors files, one per picture or clip; every network and setting has its own files.

    Args:
        folder: The folder, made if it is missing; processes and other caches may share it.
        network: The network; its settings, precision and some of its weights are part of every file's name.
        settings: What else the tensors depend on, besides the key; must be JSON.
    """

    def __init__(self, folder: Path, network: Any, *settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        own = {key: value for key, value in network.config.items() if not key.startswith("_")}
        digest = hashlib.sha256(json.dumps([*settings, own], sort_keys=True, default=str).encode())
        for name, weight in network.state_dict().items():
            flat = weight.detach().flatten()
            some = flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED].float().cpu()
            digest.update(f"{name} {weight.dtype}".encode() + some.numpy().tobytes())
        self.folder, self.digest = folder, digest.hexdigest()
        self.hits = self.misses = 0

    def get(self, keys: Sequence[str]) -> dict[str, Tensor] | None:
        """The stacked tensors of these samples; None if one is missing or damaged."""
        rows: list[dict[str, Tensor]] = []
        for key in keys:
            try:
                rows.append(load_file(self._path(key)))
            except (OSError, SafetensorError):
                self.misses += len(keys)
                return None
        self.hits += len(keys)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def put(self, keys: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Writes each sample's row of the tensors atomically."""
        for row, key in enumerate(keys):
            own = {name: value[row].cpu().contiguous() for name, value in tensors.items()}
            write_whole(self._path(key), functools.partial(save_file, own))

    def get_or_make(self, keys: Sequence[str], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of these samples; if one is missing, all are made and written."""
        known = self.get(keys)
        if known is None:
            known = make()
            self.put(keys, known)
        return known

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(f"{self.digest} {key}".encode()).hexdigest()
        return self.folder / f"{name}.safetensors"


class FeatureCache(TensorCache):
    """Caches pivots' skip features, which depend on the frozen U-Net, the pivot and the U-Net's conditions.

    The key is the *content* of these: the pivot's latents, the caption's embedding and, for SDXL, the sizes. So a
    dropped caption, another text encoder or another crop has its own features.
    """

    def read(self, unet: Any, pivot: Tensor, conditions: Mapping[str, Any]) -> SkipFeatures:
        """Like `read_skip_features`, but read from disk if the whole batch is cached.

        Args:
            unet: The network of the cache.
            pivot: (B, C, h, w), or (B, C, F, h, w) for clips.
            conditions: The U-Net's keyword arguments: tensors with B or B F rows, or dictionaries of them.
        """

        def by_sample(value: Tensor) -> Tensor:  # (B F, ...) -> (B, F, ...)
            return value if len(value) == len(pivot) else value.unflatten(0, (len(pivot), -1))

        def make() -> dict[str, Tensor]:
            features = read_skip_features(unet, pivot, **conditions)
            return {f"{n}.{s}": by_sample(h) for n, level in enumerate(features.levels) for s, h in enumerate(level)}

        inputs = [by_sample(value) for value in (pivot, *_tensors(conditions))]
        mixed = torch.is_autocast_enabled(pivot.device.type) and torch.get_autocast_dtype(pivot.device.type)
        keys = [f"{mixed} {content_of([value[row] for value in inputs])}" for row in range(len(pivot))]
        levels: dict[int, dict[int, Tensor]] = {}
        for name, value in self.get_or_make(keys, make).items():
            level, _, skip = name.partition(".")
            levels.setdefault(int(level), {})[int(skip)] = value.to(pivot.device).flatten(0, pivot.ndim - 4)
        return SkipFeatures(tuple(tuple(own[skip] for skip in sorted(own)) for _, own in sorted(levels.items())))


def content_of(tensors: Sequence[Tensor]) -> str:
    """A digest of the tensors' shapes, types and values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        data = tensor.detach().cpu().contiguous().flatten()  # with channels last, strides of 1 x 1 kernels remain
        digest.update(f"{tuple(tensor.shape)} {data.dtype}".encode() + data.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(conditions: Mapping[str, Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for _, value in sorted(conditions.items()):
        found += _tensors(value) if isinstance(value, Mapping) else [value]
    return found
