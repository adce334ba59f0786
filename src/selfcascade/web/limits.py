"""Limits for a visitor's requests, by their planned cost and the machine's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from selfcascade.cost.plan import StageCost
from selfcascade.options.checks import OptionError, is_whole
from selfcascade.web.form import across

GIB = 2**30
KEPT_FREE = 0.1


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Attributes:
        memory: Bytes of memory for a run; None means nine tenths of what is free at the time.
        samples: Number of base samples.
        compared: Number of ways in a comparison.
        steps: Steps of a stage's whole schedule.
        growth: Number of pixels, as a multiple of the native ones.
        frames: Number of frames in a clip.
        upload_bytes: Size of an uploaded file, in bytes.
        cache_bytes: Size of all files that the page keeps for visitors, in bytes.
        waiting: Number of waiting requests; further ones are refused.
    """

    memory: int | None = None
    samples: int = 8
    compared: int = 6
    steps: int = 200
    growth: float = 64.0
    frames: int = 64
    upload_bytes: int = 32 * 2**20
    cache_bytes: int = GIB
    waiting: int = 24

    def check(self, cascade: Any, costs: Sequence[StageCost], frames: int | None = None) -> None:
        """Refuses a plan that costs too much, before it runs.

        Raises:
            OptionError: The plan exceeds a limit; the message says what to lower.
        """
        for cost in costs:
            if cost.stage.num_inference_steps > self.steps:
                found = cost.stage.num_inference_steps
                raise OptionError(f"{{num_inference_steps}} must be at most {self.steps} on this page, not {found}")
        last = costs[-1].size
        if last.area > self.growth * cascade.native_size.area:
            most = f"{self.growth:g} times the pixels of {across(cascade.native_size)}"
            words = f"size must have at most {most} on this page, and {across(last)} has more"
            raise OptionError(f"{words}; lower the scale, or start from a smaller picture")
        if frames is not None and frames > self.frames:
            raise OptionError(f"{{num_frames}} must be at most {self.frames} on this page, not {frames}")
        peak = max((cost.peak_bytes or 0) for cost in costs)
        most = self.memory if self.memory is not None else free_memory(cascade.pipe)
        if peak > most:
            found = f"{across(last)} takes {peak / GIB:.3g} GiB"
            raise OptionError(f"{found}, and {most / GIB:.3g} GiB are free; lower the size")

    def check_samples(self, count: object) -> int:
        """The number of base samples, checked.

        Raises:
            OptionError: The number is not a whole number from 1 to the limit.
        """
        if not is_whole(count, 1, self.samples):
            raise OptionError(
                f"base samples must be a whole number from 1 to {self.samples}, not {{found}}", found=count
            )
        return count


def free_memory(pipe: Any) -> int:
    """Bytes available to a run of this pipeline on its device, including its loaded weights."""
    import torch

    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = sum(tensor.nbytes for part in parts for tensor in part.parameters())
    device = torch.device(pipe.device)
    if device.type == "cuda":  # what the allocator keeps of earlier runs is free for the next
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free = psutil.virtual_memory().available
    return round((1 - KEPT_FREE) * (free + weights))
