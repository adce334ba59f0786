"""Bytes of a pipeline's weights, and of what is on the device while each of its parts runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from torch import nn

from selfcascade.base_models.autoencoders import is_upcast
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
        upcast: What the VAE takes besides while it works, where it works in float32.
    """

    networks: int
    vae: int
    others: int
    largest: int
    upcast: int = 0

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
            return self.all + max(denoising, self.upcast + coding)
        return max(self.networks + denoising, self.vae + self.upcast + coding, self.largest)

    def least_for(self, denoises: bool, offload: bool) -> int:
        """Bytes of weights beside the activations of the networks that denoise, or of the VAE."""
        held = self.all if not offload else self.networks if denoises else self.vae
        return held if denoises else held + self.upcast


def weights_of(family: Family) -> Weights:
    """The weights of a family's pipeline."""
    parts = [part for part in family.pipe.components.values() if isinstance(part, nn.Module)]
    denoising = set(networks(family))
    others = [_nbytes(part) for part in parts if part not in denoising and part is not family.vae]
    vae = sum(_nbytes(part) for part in parts if part is family.vae)
    upcast = vae if is_upcast(family.vae) else 0
    return Weights(sum(map(_nbytes, denoising)), vae, sum(others), max(others, default=0), upcast)


def _nbytes(network: nn.Module) -> int:
    tensors: Iterable[nn.Parameter] = chain(network.parameters(), network.buffers())  # pyright: ignore[reportAssignmentType]
    return sum(tensor.nbytes for tensor in tensors)
