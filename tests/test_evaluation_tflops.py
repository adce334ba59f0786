"""Results state the TFLOPs of a sample that a plan tells, and none where it tells none."""

from typing import Any

import pytest

from cascade_runs import QUICK
from selfcascade import SelfCascade
from selfcascade.cost import timing
from selfcascade.cost.plan import estimate
from selfcascade.evaluation import Sampling
from selfcascade.evaluation.tflops import planned_tflops


def stated(pipe: Any, tuned: bool = False, **given: Any) -> float | None:
    return planned_tflops(pipe, Sampling(**given).sized(pipe), tuned)


def test_a_cascade_takes_what_its_plan_says_and_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = QUICK.shared()
    plan = SelfCascade(pipe).plan(128, 128, [25, 10], pivot_step=600, guidance_scale=[3.0, 1.0], preset="paper")
    expected = sum(cost.tflops or 0 for cost in estimate(pipe, plan))
    monkeypatch.setattr(timing, "clock", lambda: pytest.fail("a network was timed"))
    given = {"num_inference_steps": [25, 10], "pivot_step": 600, "guidance_scale": [3.0, 1.0]}
    assert stated(pipe, **given) == pytest.approx(expected, rel=1e-9)
    local = stated(pipe, **given, attention="local")
    assert local is not None and local < expected
    whole = stated(pipe, method="direct", num_inference_steps=25, guidance_scale=3.0)
    late = stated(pipe, method="restart-late", num_inference_steps=25)
    assert whole is not None and late is not None and late < whole


def test_what_no_plan_tells_is_left_out() -> None:
    pipe: Any = QUICK.shared()
    assert stated(pipe, tuned=True) is None and stated(pipe, method="hidiffusion") is None
