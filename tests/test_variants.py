"""Other classes on the registry's networks: the same family serves each, and leaves it as it was."""

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from cascade_runs import run, seeded
from selfcascade import SelfCascade
from tiny import TinyPipeline
from tiny.everything import CONTRACT

EACH = pytest.mark.parametrize("family", CONTRACT, ids=lambda family: family.name)
# Published ones have positions for less than four times the native side.
ENDING = {"cogview3-plus": 128}


@pytest.fixture(autouse=True)
def own_global_draws() -> Iterator[None]:
    """Some pipelines draw from PyTorch's global generator to encode their condition; other tests are not to see it."""
    with torch.random.fork_rng(devices=[]):
        yield


def plain(pipe: Any, family: TinyPipeline) -> np.ndarray:
    """Latents of the pipeline's own call at its native size."""
    height, width = family.native
    settings = {**family.inputs, "num_inference_steps": 3, "output_type": "latent", "return_dict": False}
    torch.manual_seed(0)
    return np.asarray(pipe(**settings, height=height, width=width, generator=seeded(5))[0])


@EACH
def test_one_stage_is_the_plain_pipeline_and_two_leave_it_as_it_was(family: TinyPipeline) -> None:
    pipe: Any = family.shared()
    height, width = family.native
    before, components = plain(pipe, family), {name: id(part) for name, part in pipe.components.items()}
    settings = {**family.inputs, "num_inference_steps": 3, "output_type": "latent", "generator": seeded(5)}
    torch.manual_seed(0)
    out = SelfCascade(pipe, native_size=family.native)(**settings, height=height, width=width)
    assert len(out.stages) == 1
    assert np.array_equal(np.asarray(out.frames if family.video else out.images), before)
    wide = run(pipe, family, height=3 * height // 2, width=2 * width, preset="rgb", output_type="pt")
    assert (wide.frames if family.video else wide.images).shape[-2:] == (3 * height // 2, 2 * width)
    if "callback_on_step_end" in inspect.signature(pipe.__call__).parameters:

        def failing(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            if kwargs["stage"].index == 1:
                raise RuntimeError("from the callback")
            return {}

        with pytest.raises(RuntimeError, match="from the callback"):
            run(pipe, family, callback_on_step_end=failing)
    assert {name: id(part) for name, part in pipe.components.items()} == components
    assert np.array_equal(plain(pipe, family), before)


@EACH
def test_four_times_a_side_with_the_papers_preset(family: TinyPipeline) -> None:
    if family.name in ENDING:
        most = ENDING[family.name]
        with pytest.raises(ValueError, match=f"whose positions end at {most} pixels a side"):
            run(family.shared(), family, scale=4, preset="paper")
        return
    out = run(family.shared(), family, scale=4, preset="paper")
    assert [stage.size.height // family.native[0] for stage in out.stages] == [1, 2, 4]
    assert all(stage.latents.isfinite().all() for stage in out.stages)
