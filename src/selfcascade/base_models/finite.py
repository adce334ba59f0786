"""Checks that no pivot and no picture has values that are not finite."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn

from selfcascade.base_models.borrowing import replacing_attributes
from selfcascade.base_models.family import Family
from selfcascade.base_models.protocols import Pipeline
from selfcascade.cascade import Size


def check_finite(values: Tensor, pipe: Pipeline, what: str) -> None:
    """Raises FloatingPointError, with a remedy, if a value is not finite; `what` names where the values come from."""
    if not torch.isfinite(values).all():
        raise FloatingPointError(f"{what} has values that are not finite: {_remedy(pipe, values.dtype)}")


@contextlib.contextmanager
def checking_pixels(family: Family) -> Generator[None]:
    """Checks within this context that decoded pixels are finite; in a picture they would silently turn black.

    Raises:
        FloatingPointError: A pixel is not finite; the message says what to try.
    """
    vae, pipe = family.vae, family.pipe
    if vae is None:
        yield
        return
    decode = vae.decode

    def checked(*args: Any, **kwargs: Any) -> Any:
        made, given = decode(*args, **kwargs), [value for value in args if isinstance(value, Tensor)]
        if all(bool(torch.isfinite(latents).all()) for latents in given):  # otherwise the stage's latents are named
            check_finite(made[0], pipe, f"what the VAE decoded to {Size(*made[0].shape[-2:])}")
        return made

    with replacing_attributes(vae, {"decode": checked}):
        yield


def _remedy(pipe: Pipeline, dtype: torch.dtype) -> str:
    """The likely cause: weights that are not finite, float16's small range, or an input of the caller."""
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module) and (weight := _broken_weight(part)):
            return f"weight {weight} of the {name} has such too; load the model from whole files"
    if dtype == torch.float16:
        # Only pipelines that can upcast their VAE heed what its configuration says.
        more = "; for the VAE alone, force_upcast in its configuration" if hasattr(pipe, "upcast_vae") else ""
        return f"try dtype float32 or bfloat16, as float16 overflows{more}"
    return "an adapter, an embedding or a control image may hold such, or guidance_scale be too high"


def _broken_weight(part: nn.Module) -> str | None:
    weights = ((name, weight) for name, weight in part.named_parameters() if weight.is_floating_point())
    return next((name for name, weight in weights if not weight.is_meta and not torch.isfinite(weight).all()), None)
