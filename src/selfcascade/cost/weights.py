"""Bytes of a pipeline's weights, and of what is on the device while each of its parts runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from torch import nn

from selfcascade.base_models.family import Family
from selfcascade.base_models.stage_attention import networks


@dataclass(frozen=True)
class Weights:
    """Bytes of weights.

    Attributes:
        networks: The networks that denoise, together.
        vae: The VAE.
        others: All others together, text encoders above all.
        largest: The largest of these others.
    """

    networks: int
    vae: int
    others: int
    largest: int

    @property
    def all(self) -> int:
        """The whole pipeline's."""
        return self.networks + self.vae + self.others

    def with_activations(self, denoising: int, coding: int, offload: bool = False) -> int:
        """The most bytes of weights and activations at once.

        Args:
            denoising: The most activations of the networks that denoise.
            coding: The most activations of the VAE.
            offload: Whether one model at a time is on the device.
        """
        if not offload:
            return self.all + max(denoising, coding)
        return max(self.networks + denoising, self.vae + coding, self.largest)

    def least_for(self, denoises: bool, offload: bool) -> int:
        """Bytes of weights beside the activations of the networks that denoise, or of the VAE."""
        if not offload:
            return self.all
        return self.networks if denoises else self.vae


def weights_of(family: Family) -> Weights:
    """The weights of a family's pipeline."""
    parts = [part for part in family.pipe.components.values() if isinstance(part, nn.Module)]
    denoising = set(networks(family))
    others = [_nbytes(part) for part in parts if part not in denoising and part is not family.vae]
    found = sum(map(_nbytes, denoising)), sum(_nbytes(part) for part in parts if part is family.vae)
    return Weights(*found, sum(others), max(others, default=0))


def _nbytes(network: nn.Module) -> int:
    tensors: Iterable[nn.Parameter] = chain(network.parameters(), network.buffers())  # pyright: ignore[reportAssignmentType]
    return sum(tensor.nbytes for tensor in tensors)
