"""The package `hidiffusion` 0.1.10, by the method's authors, made to run with today's diffusers.

It is no dependency: `pip install --no-deps --target FOLDER hidiffusion==0.1.10`, and FOLDER on PYTHONPATH. Three things
differ from what it expects: a module of diffusers has moved, a pipeline made of parts has no name, and here not every
step has a pass, by which it counts steps.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

from torch import nn

MOVED = {"diffusers.pipelines.controlnet.multicontrolnet": "diffusers.models.controlnets.multicontrolnet"}


def is_installed() -> bool:
    """Whether the package can be imported."""
    return find_spec("hidiffusion") is not None


def package() -> Any:
    """The package's module."""
    for old, new in MOVED.items():
        sys.modules.setdefault(old, importlib.import_module(new))
    return importlib.import_module("hidiffusion.hidiffusion")


def switches(steps: int) -> set[int]:
    """All steps at which the package may change how a U-Net runs; a model and size uses some of them."""
    peer = package()
    shares = {share for ratios in peer.switching_threshold_ratio_dict.values() for share in ratios.values()}
    return {int(steps * share) for share in (*shares, peer.aggressive_step / 50)}


@contextlib.contextmanager
def applied(pipe: Any) -> Iterator[None]:
    """Within this context the U-Net runs as the package has it, each pass at the step of its timestep.

    Args:
        pipe: A pipeline of Stable Diffusion 1, 2 or XL. Outside its own call it needs that call's `_num_timesteps`.
    """
    peer = package()
    owners = (pipe, *pipe.unet.modules())
    before = {owner: dict(vars(owner)) for owner in owners}
    with patch.object(type(pipe), "name_or_path", ""):  # it then tells the model from the names of its modules
        peer.apply_hidiffusion(pipe)
    changed = [module for module in pipe.unet.modules() if hasattr(type(module), "_parent")]

    def begin(unet: nn.Module, positional: tuple[Any, ...]) -> None:
        step = pipe.scheduler.timesteps.tolist().index(int(positional[1]))
        for module in changed:
            module.timestep = step

    hook = pipe.unet.register_forward_pre_hook(begin)
    try:
        yield
    finally:
        hook.remove()
        peer.remove_hidiffusion(pipe)
        for owner in owners:  # the package leaves its attributes, and `num_upsamplers` changed
            for name in set(vars(owner)) - set(before[owner]):
                del vars(owner)[name]
        pipe.unet.num_upsamplers = before[pipe.unet]["num_upsamplers"]
