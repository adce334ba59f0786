"""Stages above the base attend locally in every network of the pipeline, the base stage in full."""

import inspect
from typing import Any

import pytest
import torch

from cascade_runs import SD, SETTINGS, run, seeded
from masked_attention import masks_of
from selfcascade import FeatureUpsamplers, SelfCascade, Size
from selfcascade.base_models import family_of
from selfcascade.base_models.local_attention import OneStep, Steps, local_attention
from selfcascade.base_models.stage_attention import attending_locally, attention_of, grids, networks
from selfcascade.base_models.windows import Grid
from selfcascade.cascade import Stage
from selfcascade.options.presets import Preset
from selfcascade.upsamplers.skip_features import read_skip_features
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
    family = family_of(SD.shared())
    assert grids(family, Size(*native), Size(*size), PIVOT) == (Grid(1, *grid), Grid(1, *window))


def test_patches_are_counted_and_a_long_clip_has_windows_as_long_as_the_model_is_made_for() -> None:
    flux, wan, motion = (family_of(TINY[name].shared()) for name in ("flux", "wan", "animatediff"))
    assert grids(flux, Size(64, 64), Size(128, 256), PIVOT) == (Grid(1, 8, 16), Grid(1, 3, 6))
    assert inspect.signature(wan.pipe.__call__).parameters["num_frames"].default == 81  # 21 latent frames
    clips = [torch.zeros(1, 16, frames, 8, 8) for frames in (2, 30)]
    for clip, frames in zip(clips, (2, 30), strict=True):
        assert grids(wan, Size(64, 64), Size(128, 128), clip) == (Grid(frames, 8, 8), Grid(21, 4, 4))
    assert grids(motion, Size(64, 64), Size(128, 128), clips[0]) == (Grid(1, 16, 16), Grid(1, 8, 8))


def test_the_base_stage_and_a_stage_of_the_native_size_are_left_alone() -> None:
    family = family_of(SD.shared())
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


def test_an_unknown_network_is_refused_where_the_caller_insists_and_has_full_attention_where_a_preset_says_so() -> None:
    family = family_of(TINY["lumina2"].shared())
    with pytest.raises(ValueError, match="attention 'local' does not know where Lumina2Transformer2DModel"):
        attention_of(family, "local", asked=True)
    assert attention_of(family, "local", asked=False) == "full" == attention_of(family, "full", asked=True)
    assert attention_of(family_of(SD.shared()), "local", asked=False) == "local"


def test_a_cascade_is_local_above_the_base_and_says_so() -> None:
    pipe: Any = SD.shared()
    full, local = (run(pipe, attention=attention) for attention in ("full", "local"))
    assert [out.pivot_settings.attention for out in (full, local)] == ["full", "local"]
    assert torch.equal(local.stages[0].latents, full.stages[0].latents)
    steps = full.stages[1].sample.steps
    both = grids(family_of(pipe), Size(*SD.native), Size(256, 256), PIVOT)
    mask = masks_of(pipe.unet, *both, last=steps - 1)

    def moved(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        mask.step += 1
        return {}

    pivot = full.stages[0].latents
    with mask:
        masked = run(pipe, pivot=pivot, callback_on_step_end=moved)
    assert mask.step == steps > 1
    torch.testing.assert_close(run(pipe, pivot=pivot, attention="local").images, masked.images, atol=2e-5, rtol=1e-4)


def test_pivots_of_the_tuned_version_are_read_with_windows_of_their_own() -> None:
    pipe: Any = SD.shared()
    words = torch.zeros(1, 7, pipe.unet.config.cross_attention_dim)

    def skips(side: int) -> list[torch.Tensor]:
        latents = torch.randn(1, 4, side, side, generator=seeded())
        features = read_skip_features(pipe.unet, latents, encoder_hidden_states=words)
        return [skip for level in features.levels for skip in level]

    native, middle, stage = (Grid(1, side, side) for side in (16, 32, 64))
    full = {side: skips(side) for side in (16, 32)}
    with local_attention(pipe.unet, middle, native, OneStep(3)):
        in_stage = skips(32)
    with local_attention(pipe.unet, stage, native, OneStep(1)):
        read = {side: skips(side) for side in (16, 32)}
    assert all(map(torch.equal, read[16], full[16])), "a pivot of the native size has full attention"
    assert all(map(torch.equal, read[32], in_stage)) and not all(map(torch.equal, read[32], full[32]))


def test_reading_the_pivot_is_no_step_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[tuple[int, bool]] = []
    see = Steps.see

    def seen(self: Steps, timestep: torch.Tensor) -> None:
        see(self, timestep)
        places.append((self.quarters, self.last))

    monkeypatch.setattr(Steps, "see", seen)
    pipe: Any = SD.shared()
    cascade = SelfCascade(pipe, FeatureUpsamplers.from_unet(pipe.unet), native_size=SD.native)
    size = {"height": 256, "width": 256, "attention": "local", "generator": seeded()}
    steps = cascade(**{**SD.inputs, **SETTINGS, **size}).stages[1].sample.steps
    assert places == [(step % 4, step == steps - 1) for step in range(steps)] and steps > 1


def test_a_preset_of_ones_own_can_be_local() -> None:
    preset = Preset("mine", "local", 0.5, 0.5, "latent-bilinear", attention="local")
    pipe = SD.shared()
    pairs = ({"preset": preset}, {"attention": "local"}), ({"preset": preset, "attention": "full"}, {})
    for own, same in pairs:
        assert torch.equal(run(pipe, **own).images, run(pipe, pivot_step=500, **same).images)
