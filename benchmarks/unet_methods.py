"""FLOPs of what changes how a U-Net runs: methods at the target size, and feature upsamplers. Nothing has weights."""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import hidiffusion_peer
import torch

from selfcascade import FeatureUpsamplers, Size
from selfcascade.cost.forward import count
from selfcascade.methods.hidiffusion import attending_in_windows, resized_shares, resizing_deep_features
from selfcascade.methods.scalecrafter import Factor, default_share, redilating
from selfcascade.upsamplers.skip_features import SkipFeatures, adding_skip_features, read_skip_features

STEPS, TIMESTEPS = 50, 1000
GUIDANCE = 7.5
HIDIFFUSION_PACKAGE = "hidiffusion (package)"
PEERS = ("tomesd", HIDIFFUSION_PACKAGE)  # packages that are no dependencies, counted where they are installed


def inputs(unet: Any) -> dict[str, Any]:
    """Conditions of a guided pass."""
    config = unet.config
    found: dict[str, Any] = {"encoder_hidden_states": torch.empty(2, 77, config.cross_attention_dim, device="meta")}
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        found["added_cond_kwargs"] = {
            "text_embeds": torch.empty(2, pooled, device="meta"),
            "time_ids": torch.empty(2, 6, device="meta"),
        }
    return found


def flops_of_pass(pipe: Any, size: Size, timestep: int = 1) -> int:
    """FLOPs of a guided step's pass at a size."""

    def forward(unet: Any, shape: tuple[int, ...]) -> None:
        unet(torch.empty(2, unet.config.in_channels, *shape[1:], device="meta"), timestep, **inputs(unet))

    return count(pipe.unet, forward, (2, *(length // pipe.vae_scale_factor for length in size))).flops


def changed(pipe: Any, size: Size, kind: Callable[[int], Any], *contexts: Any) -> float:
    """TFLOPs of all steps at a size with a U-Net changed by contexts.

    Args:
        pipe: The pipeline.
        size: Size of the picture.
        kind: What tells steps that cost the same, from their timestep.
        contexts: Make contexts.
    """
    known, total = dict[Any, int](), 0
    pipe.scheduler.set_timesteps(STEPS)
    pipe._guidance_scale, pipe._num_timesteps = GUIDANCE, STEPS  # those of a running call
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context())
        for timestep in pipe.scheduler.timesteps.tolist():
            if kind(timestep) not in known:
                known[kind(timestep)] = flops_of_pass(pipe, size, timestep)
            total += known[kind(timestep)]
    return total / 1e12


@contextlib.contextmanager
def merging(pipe: Any) -> Iterator[None]:
    """The package tomesd, which merges half of the tokens; its random choice, which costs nothing, is left out."""
    tomesd = importlib.import_module("tomesd")
    tomesd.apply_patch(pipe, ratio=0.5, use_rand=False)
    try:
        yield
    finally:
        tomesd.remove_patch(pipe)


def of_unets(pipe: Any, native: Size, size: Size) -> dict[str, float]:
    """TFLOPs of methods that change how the U-Net of this native size runs at the target size."""
    whole = Factor(*(length / own for length, own in zip(size, native, strict=True)))
    scale = math.sqrt(size.area / native.area)
    shares, dilated = resized_shares(scale), default_share(max(whole))
    windows = functools.partial(attending_in_windows, pipe, scale)
    resized = functools.partial(resizing_deep_features, pipe, scale)
    dilating = functools.partial(redilating, pipe, whole, dilated)
    until = TIMESTEPS * (1 - dilated)

    def halved(timestep: int) -> tuple[bool, ...]:
        return tuple(timestep >= TIMESTEPS * (1 - share) for share in shares)

    def dilation(timestep: int) -> tuple[bool, int]:
        """Beyond 2x a side it falls with the timestep, from step to step by whole numbers."""
        return timestep >= until, math.ceil(max(whole) * max(0, timestep - until) / (TIMESTEPS - until))

    found = {
        "hidiffusion": changed(pipe, size, halved, resized, windows),
        "scalecrafter": changed(pipe, size, dilation, dilating),
    }
    if find_spec("tomesd") is not None:
        found["tomesd"] = changed(pipe, size, lambda t: None, functools.partial(merging, pipe))
    if hidiffusion_peer.is_installed():
        applied = functools.partial(hidiffusion_peer.applied, pipe)
        found[HIDIFFUSION_PACKAGE] = changed(pipe, size, functools.partial(switched, pipe), applied)
    return found


def switched(pipe: Any, timestep: int) -> tuple[bool, ...]:
    """Which of the steps at which the package may change lie behind; it counts steps, not noise levels."""
    step = pipe.scheduler.timesteps.tolist().index(timestep)
    return tuple(step >= switch for switch in sorted(hidiffusion_peer.switches(STEPS)))


def upsampling_adds(pipe: Any, upsamplers: FeatureUpsamplers, stages: tuple[tuple[Size, int], ...]) -> float:
    """TFLOPs of reading the pivots' skip features, once a stage, and of adding residuals at each step."""
    total = 0
    for (small, _), (large, steps) in itertools.pairwise(stages):
        features: list[SkipFeatures] = []

        def read(unet: Any, shape: tuple[int, ...], into: list[SkipFeatures] = features) -> None:
            z_0 = torch.empty(2, unet.config.in_channels, *shape[1:], device="meta")
            into.append(read_skip_features(unet, z_0, **inputs(unet)))

        total += count(pipe.unet, read, (2, *(length // pipe.vae_scale_factor for length in small))).flops
        with adding_skip_features(pipe.unet, upsamplers, features[0]):
            tuned = flops_of_pass(pipe, large)
        total += steps * (tuned - flops_of_pass(pipe, large))
    return total / 1e12
