"""The model that enlarges the pivots of a call: as given, or loaded by its name."""

from __future__ import annotations

import functools

import torch

from selfcascade.base_models.family import Family
from selfcascade.base_models.pixel_upscaling import PixelUpscaler, check_upscaler
from selfcascade.base_models.request import Request
from selfcascade.loading.upscaler_files import find_upscaler, read_upscaler
from selfcascade.models import load_super_resolver
from selfcascade.options import Options
from selfcascade.options.checks import OptionError


def load_upscaler(name: str, device: str = "cpu", dtype: str = "float32") -> object:
    """Loads a model for `pivot_upscaler`.

    Args:
        name: A .safetensors file that spandrel reads, a folder or Hub id of a StableDiffusionUpscalePipeline, or
            "bundled".
        device, dtype: For a pipeline; what spandrel reads stays in float32 on the CPU until it is used.

    Raises:
        OptionError: The model does not exist, or does not enlarge pictures.
    """
    path = find_upscaler(name)
    if path is not None:
        model: object = read_upscaler(path)
    else:
        try:
            model = load_super_resolver(name, device, dtype)
        except ValueError as error:
            reason = str(error).removeprefix("weights ").replace(" are a ", " is a ")
            raise OptionError("{pivot_upscaler} {reason}", reason=reason) from error
    check_upscaler(model, name)
    return model


def held_upscaler(name: str, device: str = "cpu", dtype: str = "float32") -> object:
    """Like `load_upscaler`, for those who make picture after picture: the last one stays loaded while its file does."""
    path = find_upscaler(name)
    stamp = None if path is None else (str(path.resolve()), path.stat().st_mtime_ns, path.stat().st_size)
    return _held(name, device, dtype, stamp)


@functools.lru_cache(maxsize=1)
def _held(name: str, device: str, dtype: str, stamp: tuple[str, int, int] | None) -> object:
    return load_upscaler(name, device, dtype)


def held_for(family: Family, name: str) -> object:
    """`held_upscaler`, where a family's pipeline runs and in its precision."""
    return held_upscaler(name, str(family.pipe._execution_device), dtype_name(family))


def upscaler_of(family: Family, request: Request, options: Options) -> PixelUpscaler | None:
    """What enlarges the pivots of a call instead of Lanczos windows; None if nothing is given.

    Raises:
        OptionError: It cannot be loaded, or not be used for this call.
    """
    model, device = options.pivot_upscaler, torch.device(family.pipe._execution_device)
    if model is None:
        return None
    if isinstance(model, str):
        model = load_upscaler(model, str(device), dtype_name(family))
    upscaler = PixelUpscaler(model, device, request)
    upscaler.check()
    return upscaler


def dtype_name(family: Family) -> str:
    """Precision of the denoiser, by its name: "float16"."""
    return str(family.denoiser.dtype).removeprefix("torch.")
