"""Stages above the base attend locally in every network of the pipeline, the base stage in full."""

import inspect
from typing import Any

import pytest
import torch

from cascade_runs import SD
from selfcascade import Size
from selfcascade.base_models import family_of
from selfcascade.base_models.stage_attention import attending_locally, check_local_attention, grids, networks
from selfcascade.base_models.windows import Grid
from selfcascade.cascade import Stage
from tiny import TINY, tiny_controlnet

PIVOT = torch.zeros(1, 4, 16, 16)


@pytest.mark.parametrize(
    ("native", "size", "grid", "window"),
    [
        pytest.param((128, 128), (256, 256), (32, 32), (16, 16), id="4x"),
        pytest.param((128, 128), (512, 512), (64, 64), (16, 16), id="16x"),
        pytest.param((128, 128), (256, 512), (32, 64), (12, 23), id="wide: the native area in its ratio"),
        pytest.param((128, 128), (200, 200), (25, 25), (16, 16), id="no whole multiple"),
        pytest.param((128, 128), (128, 128), (16, 16), (16, 16), id="native"),
    ],
)
def test_windows_have_the_native_area_in_the_stages_ratio(native: Any, size: Any, grid: Any, window: Any) -> None:
    family = family_of(SD.build())
    assert grids(family, Size(*native), Size(*size), PIVOT) == (Grid(1, *grid), Grid(1, *window))


def test_patches_are_counted_and_a_long_clip_has_windows_as_long_as_the_model_is_made_for() -> None:
    flux, wan, motion = (family_of(TINY[name].build()) for name in ("flux", "wan", "animatediff"))
    assert grids(flux, Size(64, 64), Size(128, 256), PIVOT) == (Grid(1, 8, 16), Grid(1, 3, 6))
    assert inspect.signature(wan.pipe.__call__).parameters["num_frames"].default == 81  # 21 latent frames
    clips = [torch.zeros(1, 16, frames, 8, 8) for frames in (2, 30)]
    for clip, frames in zip(clips, (2, 30), strict=True):
        assert grids(wan, Size(64, 64), Size(128, 128), clip) == (Grid(frames, 8, 8), Grid(21, 4, 4))
    assert grids(motion, Size(64, 64), Size(128, 128), clips[0]) == (Grid(1, 16, 16), Grid(1, 8, 8))


def test_the_base_stage_and_a_stage_of_the_native_size_are_left_alone() -> None:
    family = family_of(SD.build())
    modules = [module for module in family.denoiser.modules() if hasattr(module, "processor")]
    for size, pivot, local in (((256, 256), PIVOT, True), ((256, 256), None, False), ((128, 128), PIVOT, False)):
        with attending_locally(family, Size(128, 128), Stage(1, 2, Size(*size), 4, 500), pivot):
            assert any("forward" in vars(module) for module in modules) == local
        assert not any("forward" in vars(module) for module in modules)


def test_controlnets_and_second_denoisers_are_networks_too() -> None:
    pipe = tiny_controlnet(SD.build())
    assert networks(family_of(pipe)) == [pipe.unet, pipe.controlnet]
    wan: Any = TINY["wan"].build()
    wan.transformer_2 = wan.transformer
    assert networks(family_of(wan)) == [wan.transformer, wan.transformer]


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="attention 'local' does not know where Lumina2Transformer2DModel"):
        check_local_attention(family_of(TINY["lumina2"].build()))
