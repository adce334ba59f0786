"""How a pipeline runs: device, offloading, compilation and precision."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from selfcascade.base_models.autoencoders import is_upcast
from selfcascade.base_models.family import denoiser
from selfcascade.base_models.precision import has_bfloat16
from selfcascade.loading.reasons import reason_of
from selfcascade.options import Options
from selfcascade.options.checks import OptionError


def check_execution(options: Options, device: str) -> None:
    """Checks, before a model is loaded, that the device supports the options.

    Raises:
        OptionError: The device cannot do what an option asks for.
    """
    if options.offload is not None and device.split(":")[0] == "cpu":
        raise OptionError("{offload} spares the memory of a GPU, and the device is cpu; leave it out")
    if options.autocast and not has_bfloat16(device):
        raise OptionError(
            "{autocast} needs bfloat16, which this {device} does not compute; leave it out", device=device
        )


def placed(pipe: Any, options: Options, device: str) -> Any:
    """The pipeline on the device, with the options' memory format, compilation and offloading.

    Raises:
        OptionError: The network cannot be compiled block by block, or the pipeline cannot be offloaded.
    """
    if options.channels_last:
        parts: list[Any] = [denoiser(pipe), pipe.vae]
        for part in parts:
            part.to(memory_format=torch.channels_last)
    if options.offload is None:
        pipe = pipe.to(device)
    else:
        _offload(pipe, options.offload, device)
    if options.compile:
        network: Any = denoiser(pipe)
        try:
            network.compile_repeated_blocks(dynamic=True)  # stages differ in size
        except ValueError as error:
            kind = type(network).__name__
            raise OptionError("{compile} is not for a {kind}: {reason}", kind=kind, reason=reason_of(error)) from error
    return pipe


def computing(options: Options, device: str) -> contextlib.AbstractContextManager[Any]:
    """A context in which matrix products and convolutions are computed in bfloat16, if the options say so."""
    if not options.autocast:
        return contextlib.nullcontext()
    return torch.autocast(device.split(":")[0], torch.bfloat16)


def _offload(pipe: Any, kind: str, device: str) -> None:
    try:
        if kind == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif kind == "sequential":
            pipe.enable_sequential_cpu_offload(device=device)
        else:
            # With a stream the weights' copies keep their precision, so an autoencoder that is to work in float32
            # for a while cannot be among them.
            vae, stream = getattr(pipe, "vae", None), device.startswith("cuda")
            excluded = ["vae"] if stream and vae is not None and is_upcast(vae) else None
            pipe.enable_group_offload(
                torch.device(device), offload_type="leaf_level", use_stream=stream, exclude_modules=excluded
            )
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise OptionError(
            "{offload} {kind} does not go with this model: {reason}", kind=kind, reason=reason_of(error)
        ) from error
