"""The plan and the loop, against an independent restatement."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from selfcascade.cascade import Sample, Size, Stage, plan_stages, self_cascade

SIDES = st.integers(8, 512).map(lambda n: 8 * n)


@given(native=SIDES, height=SIDES, width=SIDES)
def test_plan_ends_at_the_target_and_never_grows_much_more_than_fourfold(native: int, height: int, width: int) -> None:
    assume(height * width >= native * native)
    sizes = plan_stages((native, native), (height, width))
    assert sizes[-1] == (height, width)
    assert all(side % 8 == 0 for size in sizes for side in size)
    assert all(later.area > earlier.area for earlier, later in pairwise(sizes))
    expected = max(0, math.ceil(math.log(height * width / native**2, 4) - 1e-9))
    assert len(sizes) - 1 <= expected
    smallest = min(min(size) for size in sizes)
    for earlier, later in pairwise(sizes):
        assert later.area <= 4 * earlier.area * (1 + 8 / smallest) ** 2


@pytest.mark.parametrize(
    ("native", "target", "expected"),
    [
        ((512, 512), (512, 512), [(512, 512)]),
        ((512, 512), (1024, 1024), [(512, 512), (1024, 1024)]),
        ((512, 512), (2048, 2048), [(512, 512), (1024, 1024), (2048, 2048)]),
        ((1024, 1024), (4096, 4096), [(1024, 1024), (2048, 2048), (4096, 4096)]),
        ((512, 512), (3072, 1536), [(728, 360), (768, 384), (1536, 768), (3072, 1536)]),
        ((512, 512), (768, 768), [(512, 512), (768, 768)]),
        ((512, 512), (1536, 3072), [(360, 728), (384, 768), (768, 1536), (1536, 3072)]),
        ((64, 64), (128, 256), [(48, 88), (64, 128), (128, 256)]),
        ((512, 512), (520, 520), [(512, 512), (520, 520)]),
        ((1024, 1024), (832, 1216), [(832, 1216)]),
    ],
)
def test_plan_of_known_sizes(native: tuple, target: tuple, expected: list) -> None:
    assert list(plan_stages(native, target)) == expected


def test_base_stage_has_the_native_area_in_the_targets_ratio() -> None:
    base = plan_stages((512, 512), (3072, 1536))[0]
    assert base.height / base.width == pytest.approx(2, rel=0.03)
    assert base.area == pytest.approx(512 * 512, rel=0.03)


@given(native=SIDES, scale=st.floats(1, 6), ratio=st.floats(0.5, 2), multiple=st.sampled_from([8, 16, 32, 64]))
def test_earlier_stages_are_halves_of_the_target_on_the_models_grid(
    native: int, scale: float, ratio: float, multiple: int
) -> None:
    height, width = (max(multiple, round(native * scale * r / multiple) * multiple) for r in (ratio, 1 / ratio))
    assume(height * width >= native * native and max(height, width) <= 16384)
    sizes = plan_stages((native, native), (height, width), multiple)
    assert all(side % multiple == 0 for size in sizes for side in size)
    for r, size in enumerate(reversed(sizes[1:])):
        assert abs(size.height - height / 2**r) <= multiple / 2
        assert abs(size.width - width / 2**r) <= multiple / 2
    shrink = native / math.sqrt(height * width)
    if len(sizes) > 1:
        assert sizes[0].height == pytest.approx(height * shrink, abs=multiple)
        assert sizes[0].width == pytest.approx(width * shrink, abs=multiple)


def test_a_native_size_needs_one_stage_and_a_tenth_less_is_let_pass() -> None:
    assert plan_stages((512, 512), (512, 512)) == ((512, 512),)
    assert plan_stages((100, 100), (90, 100)) == ((90, 100),)
    with pytest.raises(ValueError, match="target 89x100 is smaller than the native size 100x100"):
        plan_stages((100, 100), (89, 100))


@pytest.mark.parametrize("bad", [512, (512,), (512, 512, 3), "512x512", None])
def test_plan_refuses_what_is_no_pair(bad: object) -> None:
    with pytest.raises(ValueError, match="native must be two whole numbers"):
        plan_stages(bad, (1024, 1024))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0, -8, 20_000, 64.0, float("nan"), float("inf"), "64", True])
def test_plan_refuses_bad_sides(bad: object) -> None:
    with pytest.raises(ValueError, match="target must be"):
        plan_stages((64, 64), (64, bad))  # type: ignore[arg-type]


def test_plan_refuses_a_target_below_the_native_size() -> None:
    with pytest.raises(ValueError, match="smaller than the native size 512x512"):
        plan_stages((512, 512), (256, 256))


class LinearModel:
    """A base model whose steps can be restated in a line: it denoises by a fixed share and enlarges by repeating."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.stopped_at, self.seen = None, []

    def sample(self, stage: Stage) -> Sample:
        shape = (1, 1, stage.size.height, stage.size.width)
        return Sample(torch.randn(shape, generator=self.generator, dtype=torch.float64), stage.num_inference_steps)

    def upsample(self, pivot: Sample, size: Size) -> Tensor:
        z_0 = pivot.latents
        return z_0.repeat_interleave(size.height // z_0.shape[2], 2).repeat_interleave(2, 3)

    def renoise(self, z_up: Tensor, stage: Stage, pivot: Sample) -> Tensor:
        assert stage.pivot_step is not None
        alpha = 1 - stage.pivot_step / 1000
        noise = torch.randn(z_up.shape, generator=self.generator, dtype=torch.float64)
        return alpha**0.5 * z_up + (1 - alpha) ** 0.5 * noise

    def denoise(self, z_K: Tensor, stage: Stage, pivot: Sample) -> Sample:
        self.seen.append(z_K)
        return Sample(0.5 * z_K, 7, interrupted=stage.index == self.stopped_at)


def stages(*sides: int) -> list[Stage]:
    return [Stage(r, len(sides), Size(side, side), 10, None if r == 0 else 700) for r, side in enumerate(sides)]


def test_each_stage_starts_from_the_diffused_pivot_of_the_one_before() -> None:
    model = LinearModel()
    results = list(self_cascade(model, stages(4, 8, 16)))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64)
    for side, seen in zip((8, 16), model.seen, strict=True):
        enlarged = torch.kron(z, torch.ones(2, 2, dtype=torch.float64))
        z_K = 0.3**0.5 * enlarged + 0.7**0.5 * torch.randn(1, 1, side, side, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(seen, z_K, rtol=0, atol=1e-15)
        z = 0.5 * z_K
    assert [result.steps for result in results] == [10, 7, 7]
    assert torch.equal(results[-1].latents, 0.5 * model.seen[-1])


def test_a_given_pivot_replaces_the_base_stage() -> None:
    model = LinearModel()
    plan = [Stage(0, 1, Size(8, 8), 10, 700)]
    (result,) = self_cascade(model, plan, pivot=Sample(torch.zeros(1, 1, 4, 4, dtype=torch.float64)))
    assert result.pivot_step == 700
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(model.seen[0], 0.7**0.5 * noise)


def test_results_arrive_as_they_are_made_and_an_interrupted_model_ends_the_cascade() -> None:
    model = LinearModel()
    model.stopped_at = 1
    arriving = self_cascade(model, stages(4, 8, 16))
    assert next(arriving).steps == 10 and not model.seen
    assert next(arriving).sample.interrupted and len(model.seen) == 1
    assert list(arriving) == []


def test_a_model_knows_nothing_of_the_stages_before() -> None:
    """Stages run one by one, by models that share nothing but the generator, are those of one run."""
    whole = list(self_cascade(LinearModel(), stages(4, 8, 16)))
    pivot, generator = None, torch.Generator().manual_seed(0)
    for stage, expected in zip(stages(4, 8, 16), whole, strict=True):
        model = LinearModel()
        model.generator = generator
        (result,) = self_cascade(model, [stage], pivot)
        assert torch.equal(result.latents, expected.latents)
        pivot = result.sample
