"""Latents on disk, so that each picture is encoded once: for models whose VAE costs more than reading a file."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfcascade.files import write_whole


class LatentCache:
    """A folder of safetensors files, one a crop by its content; another VAE or scale has files of its own.

    Args:
        folder: Made if it is missing; processes may share it.
        vae: Its settings and its weights' fingerprint are part of every name.
        scale: Of the crops to their pivots.
    """

    def __init__(self, folder: Path, vae: Any, scale: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        own = {key: value for key, value in vae.config.items() if not key.startswith("_")}
        digest = hashlib.sha256(json.dumps([scale, own], sort_keys=True, default=str).encode())
        for name, parameter in vae.state_dict().items():
            digest.update(name.encode())
            digest.update(parameter.detach().flatten()[:16].float().cpu().numpy().tobytes())
        self.folder, self.digest = folder, digest.hexdigest()
        self.hits = self.misses = 0

    def get(self, keys: Sequence[str]) -> dict[str, Tensor] | None:
        """The latents of all these pictures, stacked; None if one of them is missing or damaged."""
        rows: list[dict[str, Tensor]] = []
        for key in keys:
            try:
                rows.append(load_file(self._path(key)))
            except (OSError, SafetensorError):
                self.misses += len(keys)
                return None
        self.hits += len(keys)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def put(self, keys: Sequence[str], latents: dict[str, Tensor]) -> None:
        """Writes each picture's latents, whole or not at all."""
        for row, key in enumerate(keys):
            tensors = {name: value[row].cpu().contiguous() for name, value in latents.items()}
            write_whole(self._path(key), functools.partial(save_file, tensors))

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(f"{self.digest} {key}".encode()).hexdigest()
        return self.folder / f"{name}.safetensors"
