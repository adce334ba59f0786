"""How much a visitor of the page may ask for: by what the plan says that it takes, and what the machine has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from selfcascade.cost.plan import StageCost
from selfcascade.options.checks import OptionError, is_whole

GIB = 2**30
KEPT_FREE = 0.1


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
        memory: Bytes that a run may hold; None: nine tenths of what is free when it is asked for.
        samples: Base samples of a request.
        compared: Ways that one comparison has.
        steps: Steps of a stage's whole schedule.
        growth: Pixels, as a multiple of the native ones.
        frames: Frames of a clip.
        upload_bytes: Bytes of an uploaded file.
        cache_bytes: Bytes of all files that the page holds for its visitors.
        waiting: Requests that wait; further ones are refused.
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
        """Refuses a plan that takes too much, before any of it runs.

        Raises:
            OptionError: The sentence names what to lower.
        """
        for cost in costs:
            if cost.stage.num_inference_steps > self.steps:
                found = cost.stage.num_inference_steps
                raise OptionError(f"{{num_inference_steps}} must be at most {self.steps} on this page, not {found}")
        last = costs[-1].size
        if last.area > self.growth * cascade.native_size.area:
            most = f"{self.growth:g} times the pixels of {cascade.native_size}"
            raise OptionError(f"size must have at most {most} on this page, and {last} has more")
        if frames is not None and frames > self.frames:
            raise OptionError(f"{{num_frames}} must be at most {self.frames} on this page, not {frames}")
        peak = max((cost.peak_bytes or 0) for cost in costs)
        most = self.memory if self.memory is not None else free_memory(cascade.pipe)
        if peak > most:
            raise OptionError(f"{last} takes {peak / GIB:.3g} GiB, and {most / GIB:.3g} GiB are free; lower the size")

    def check_samples(self, count: object) -> int:
        """The number of base samples, as one.

        Raises:
            OptionError: There are none, or too many.
        """
        if not is_whole(count, 1, self.samples):
            raise OptionError(
                f"base samples must be a whole number from 1 to {self.samples}, not {{found}}", found=count
            )
        return count


def free_memory(pipe: Any) -> int:
    """Bytes that a run of this pipeline may hold on its device, the weights that are there already among them."""
    import torch

    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = sum(tensor.nbytes for part in parts for tensor in part.parameters())
    device = torch.device(pipe.device)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return round((1 - KEPT_FREE) * (free + weights))
