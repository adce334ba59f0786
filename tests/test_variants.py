"""Every class: its family makes what it makes alone, goes beyond, and leaves it as it was."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch

from cascade_runs import run, seeded
from selfcascade import SelfCascade
from tiny import TinyPipeline
from tiny.everything import EACH, ENDING

FAMILIES = pytest.mark.parametrize("family", EACH, ids=lambda family: family.name)


def plain(pipe: Any, family: TinyPipeline) -> np.ndarray:
    """Latents of the pipeline's own call at its native size."""
    height, width = family.native
    settings = {**family.inputs, **family.alone, "output_type": "latent", "return_dict": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=seeded(5))))  # as stages seed global draws
        made = pipe(**settings, num_inference_steps=family.steps, height=height, width=width, generator=seeded(5))
    return np.asarray(made[0])


def result(out: Any) -> Any:
    return out.images if out.frames is None else out.frames


@FAMILIES
def test_a_class_makes_what_it_makes_alone_goes_beyond_and_stays_as_it_was(family: TinyPipeline) -> None:
    pipe: Any = family.shared()
    height, width = family.native
    before, components = plain(pipe, family), {name: id(part) for name, part in pipe.components.items()}
    settings = {**family.inputs, "num_inference_steps": family.steps, "output_type": "latent", "generator": seeded(5)}
    alone = SelfCascade(pipe, native_size=family.native)(**settings, height=height, width=width)
    assert len(alone.stages) == 1
    assert np.array_equal(np.asarray(result(alone)), before)

    steps = {"num_inference_steps": family.steps}
    wide = run(pipe, family, height=3 * height // 2, width=2 * width, preset="rgb", output_type="pt", **steps)
    assert result(wide).shape[-2:] == (3 * height // 2, 2 * width)
    twice = run(pipe, family, preset="quality", **steps)
    assert all(stage.latents.isfinite().all() for stage in twice.stages)
    _four_times(pipe, family)
    _stopped(pipe, family)
    assert {name: id(part) for name, part in pipe.components.items()} == components
    assert np.array_equal(plain(pipe, family), before)


def _four_times(pipe: Any, family: TinyPipeline) -> None:
    """The paper's preset, as far as positions reach."""
    if family.name in ENDING:
        with pytest.raises(ValueError, match=f"whose positions end at {ENDING[family.name]}"):
            run(pipe, family, scale=4)
        return
    out = run(pipe, family, scale=4, num_inference_steps=family.steps)
    assert [stage.size.height // family.native[0] for stage in out.stages] == [1, 2, 4]
    assert all(stage.latents.isfinite().all() for stage in out.stages)


def _stopped(pipe: Any, family: TinyPipeline) -> None:
    """The fast preset, to its end where nothing can stop it; else by an error within, and by an interruption."""
    if "callback_on_step_end" not in inspect.signature(pipe.__call__).parameters:
        assert len(run(pipe, family, preset="fast", num_inference_steps=2 * family.steps).stages) == 2
        return

    def failing(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if kwargs["stage"].index == 1:
            raise RuntimeError("from the callback")
        return {}

    def interrupting(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = kwargs["stage"].index == 1
        return {}

    for callback in (failing, interrupting):
        fast = {"preset": "fast", "num_inference_steps": 2 * family.steps, "callback_on_step_end": callback}
        if callback is failing:
            with pytest.raises(RuntimeError, match="from the callback"):
                run(pipe, family, **fast)
        else:
            assert run(pipe, family, **fast).interrupted
