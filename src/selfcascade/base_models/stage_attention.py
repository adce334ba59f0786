"""Chooses a stage's attention: full, or local in every network of the pipeline that works on its latents."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Generator

from torch import Tensor, nn

from selfcascade.base_models.family import Family
from selfcascade.base_models.local_attention import Steps, local_attention
from selfcascade.base_models.self_attention import why_not_local
from selfcascade.base_models.windows import Grid
from selfcascade.cascade import Size, Stage


def attention_of(family: Family, wanted: str, asked: bool) -> str:
    """Attention of the stages above the base, "full" or "local".

    Args:
        family: The pipeline's family.
        wanted: "full" or "local".
        asked: Whether the caller asked for it, rather than a preset: unsupported local attention is then an error.

    Raises:
        ValueError: The caller asked for local attention, and a network of the pipeline does not support it.
    """
    reasons = [why_not_local(network) for network in networks(family)] if wanted == "local" else []
    reason = next((reason for reason in reasons if reason is not None), None)
    if reason is not None and asked:
        raise ValueError(reason)
    return wanted if reason is None else "full"


def networks(family: Family) -> list[nn.Module]:
    """Networks that work on a stage's latents at each step: denoisers and ControlNets."""
    controls = getattr(family.pipe, "controlnet", None)
    second = getattr(family.pipe, "transformer_2", None)  # Wan 2.2 has one for high noise, and one for low
    found = [family.denoiser, second, *getattr(controls, "nets", [controls])]
    return [network for network in found if network is not None]


@contextlib.contextmanager
def attending_locally(family: Family, native: Size, stage: Stage, pivot: Tensor | None) -> Generator[None]:
    """Gives a stage with a pivot local attention within this context; other stages keep full attention.

    Windows have the native area in the stage's ratio. In time they are as long as the pipeline's default clip,
    `num_frames`; a shorter clip is attended to as a whole.

    Args:
        family: The pipeline's family.
        native: Size in pixels that the model was trained at.
        stage: The stage.
        pivot: Latents of the stage before, (B, C, h, w) or (B, C, F, h, w); None for the base stage.
    """
    with contextlib.ExitStack() as stack:
        if pivot is not None:
            # Second-order schedulers such as Heun's visit a timestep twice.
            steps = Steps(lambda: len(family.pipe.scheduler.timesteps.unique_consecutive()))
            for network in networks(family):
                stack.enter_context(local_attention(network, *grids(family, native, stage.size, pivot), steps))
        yield


def grids(family: Family, native: Size, size: Size, pivot: Tensor | None = None) -> tuple[Grid, Grid]:
    """Tokens of a stage of this size, and of a window; one frame if the model attends to frames one by one.

    The pivot says how many frames there are; U-Nets attend to them one by one, and need none.
    """
    height, width = (side // family.patch for side in family.latent_size(size))
    window = window_sides(native, size, height, width)
    if pivot is None or pivot.ndim == 4 or family.framewise:
        return Grid(1, height, width), Grid(1, *window)
    frames = pivot.shape[2]
    stated = inspect.signature(family.pipe.__call__).parameters[family.frames_name].default
    made_for = family.latent_frames(stated) if isinstance(stated, int) else frames
    return Grid(frames // family.frame_patch, height, width), Grid(made_for // family.frame_patch, *window)


def window_sides(native: Size, size: Size, height: int, width: int) -> tuple[int, int]:
    """Sides, in tokens, of a window with the native area and the ratio of a stage of height x width tokens."""
    ratio = math.sqrt(native.area / size.area)
    return math.ceil(ratio * height - 1e-6), math.ceil(ratio * width - 1e-6)
