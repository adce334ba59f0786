"""Seconds of passes on machines of every speed, whose clocks are made up: what is foretold is what they would take."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from selfcascade.cost import timing
from selfcascade.cost.timing import TIMING_SECONDS, PassTimes, Shape

SHAPES = [(2, 8, 8), (2, 16, 16), (2, 32, 32), (2, 64, 64), (2, 64, 128), (2, 128, 64), (2, 256, 256)]
MACHINES = {
    "slow core": (0.05, 1e-5),
    "very slow core": (0.3, 2e-4),
    "quick core": (0.004, 1e-7),
    "accelerator": (0.03, 1e-9),
    "all overhead": (0.02, 0.0),
    "no overhead": (0.0, 1e-6),
}


@pytest.fixture(autouse=True)
def the_package_s_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TIMING_SECONDS", TIMING_SECONDS)


def flops(shape: Shape) -> int:
    """Mirrored shapes have equally many."""
    batch, h, w = shape
    return batch * h * w


class Machine:
    """Runs passes in no time, and says what they would have taken."""

    def __init__(self, overhead: float, pace: float) -> None:
        self.overhead, self.pace, self.spent, self.ran = overhead, pace, 0.0, Counter[Shape]()

    def takes(self, shape: Shape) -> float:
        return self.overhead + self.pace * flops(shape)

    def __call__(self, shape: Shape) -> float:
        seconds = self.takes(shape)
        self.spent, self.ran[shape] = self.spent + seconds, self.ran[shape] + 1
        return seconds


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_foretold_is_what_the_machine_takes(machine: str) -> None:
    run = Machine(*MACHINES[machine])
    found = PassTimes(run, flops).seconds(SHAPES)
    assert found == pytest.approx({shape: run.takes(shape) for shape in SHAPES}, rel=1e-6)
    smallest = run.takes(SHAPES[0])
    assert run.spent < 2 * TIMING_SECONDS + max(3 * smallest, 10 * TIMING_SECONDS)


def test_a_pass_at_small_sizes_is_not_taken_for_the_pace_of_large_ones() -> None:
    run = Machine(0.25, 1e-5)  # two runs of the smallest use up what there is
    (large,) = PassTimes(run, flops).seconds([(2, 8, 8), (2, 256, 256)]).keys() - {(2, 8, 8)}
    assert PassTimes(run, flops).seconds([(2, 8, 8), (2, 16, 16), large])[large] == pytest.approx(run.takes(large))


@pytest.mark.parametrize("wanted", [[(1, 16, 32), (1, 32, 16)], [(1, 32, 16), (1, 16, 32), (1, 64, 64)], [(1, 8, 8)]])
def test_mirrored_passes_of_equal_flops_are_alike(wanted: list[Shape]) -> None:
    for overhead, pace in MACHINES.values():
        run = Machine(overhead, pace)
        found = PassTimes(run, flops).seconds(wanted)
        assert found.keys() == set(wanted)
        assert found == pytest.approx({shape: run.takes(shape) for shape in wanted}, rel=1e-6)


def test_noise_that_makes_the_larger_pass_the_quicker_does_not_turn_time_back() -> None:
    takes = {(1, 8, 8): 0.3, (1, 16, 16): 0.2}
    times = PassTimes(takes.__getitem__, flops, dict(takes))
    assert times.foretold((1, 64, 64)) == pytest.approx(0.2 * 16)
    assert times.foretold((1, 8, 16)) == pytest.approx(0.1)


def test_passes_below_those_timed_never_take_less_than_nothing() -> None:
    times = PassTimes(Machine(0, 0), flops, {(1, 16, 16): 0.1, (1, 64, 64): 6.0})
    assert 0 < times.foretold((1, 8, 8)) <= 0.1


def runs_out_at(most: int) -> Callable[[Shape], float]:
    def run(shape: Shape) -> float:
        if flops(shape) > most:
            raise torch.OutOfMemoryError
        return 1e-3 * flops(shape) / 128

    return run


def test_a_pass_that_memory_has_no_room_for_is_foretold() -> None:
    found = PassTimes(runs_out_at(2048), flops).seconds(SHAPES)
    assert found[(2, 256, 256)] == pytest.approx(1e-3 * 1024)
    with pytest.raises(torch.OutOfMemoryError):
        PassTimes(runs_out_at(10), flops).seconds(SHAPES)


def test_what_was_timed_is_not_run_again() -> None:
    run, timed = Machine(0.001, 1e-9), dict[Shape, float]()
    first = PassTimes(run, flops, timed).seconds(SHAPES)
    before = run.ran.total()
    assert PassTimes(run, flops, timed).seconds(SHAPES) == first and run.ran.total() == before
