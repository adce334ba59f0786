"""Which settings upsamplers bring: their own K and upsampling, and the rest of a preset."""

from typing import Any

import pytest
import torch
from diffusers import KDPM2DiscreteScheduler

from cascade_runs import SD, SMALL, seeded
from command_line import WITH_MODEL, record, succeed
from command_line import run as run_command
from selfcascade import PRESETS, FeatureUpsamplers, SelfCascade
from selfcascade.base_models.last_timesteps import SchedulerSchedules
from selfcascade.options import Options
from selfcascade.pipeline.preset_choice import tuned_preset

LEVERS = ("anchor", "energy", "step_share", "guided", "attention")


def upsamplers_for(pipe: Any, **settings: Any) -> FeatureUpsamplers:
    """Upsamplers that do change the picture."""
    made = FeatureUpsamplers.from_unet(pipe.unet, pivot_step=850, upsampling="rgb", **settings)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=seeded()))
    return made


@pytest.mark.parametrize("name", PRESETS)
def test_upsamplers_bring_their_k_and_the_other_settings_of_their_preset(name: str) -> None:
    pipe: Any = SD.build()
    cascade = SelfCascade(pipe, upsamplers_for(pipe, sampling_preset=name, sampling_pivot_step=800), SD.native)
    chosen, own = cascade.chosen_preset(Options()), PRESETS[name]
    assert cascade.default_preset == name
    assert (chosen.pivot_share, chosen.later_pivot_share, chosen.upsampling) == (0.8, 0.4, "rgb")
    assert [getattr(chosen, lever) for lever in LEVERS] == [getattr(own, lever) for lever in LEVERS]
    replaced = cascade.chosen_preset(Options(anchor=0.25, upsampling="latent-bilinear"))
    assert (replaced.anchor, replaced.upsampling, replaced.energy) == (0.25, "latent-bilinear", own.energy)
    assert cascade.chosen_preset(Options(preset="paper")) == PRESETS["paper"]


def test_upsamplers_of_earlier_versions_are_sampled_as_they_were() -> None:
    schedules = SchedulerSchedules(SD.shared().scheduler)
    old = {"pivot_step": 850, "sampling_pivot_step": 700, "upsampling": "rgb"}
    chosen = tuned_preset(old, schedules)
    assert (chosen.pivot_share, chosen.later_pivot_share, chosen.anchor, chosen.energy) == (0.7, 0.4, 0.0, 0.0)
    assert (chosen.step_share, chosen.guided, chosen.attention) == (1.0, True, "full")
    assert tuned_preset({**old, "attention": "local"}, schedules).attention == "local"


def test_a_scheduler_that_cannot_anchor_takes_the_unanchored_preset_and_a_k_no_higher_than_its_own() -> None:
    pipe: Any = SD.build()
    pipe.scheduler = KDPM2DiscreteScheduler.from_config(pipe.scheduler.config)
    cascade = SelfCascade(pipe, upsamplers_for(pipe, sampling_preset="quality"), SD.native)
    chosen = cascade.chosen_preset(Options())
    assert cascade.default_preset == "rgb"
    assert (chosen.anchor, chosen.energy, chosen.pivot_share) == (0.0, 0.0, PRESETS["rgb"].pivot_share)
    cascade = SelfCascade(pipe, upsamplers_for(pipe, sampling_preset="paper"), SD.native)
    assert cascade.chosen_preset(Options()).pivot_share == 0.85  # asks for no anchor, so nothing has to give way


def test_the_picture_is_that_of_the_preset_with_the_k_of_the_upsamplers() -> None:
    pipe: Any = SD.build()
    cascade = SelfCascade(pipe, upsamplers_for(pipe, sampling_preset="quality"), SMALL.native)

    def pixels(**options: Any) -> torch.Tensor:
        given: dict[str, Any] = {"num_inference_steps": 10, "output_type": "pt", "generator": seeded()}
        return cascade("a house", **given, **options).images

    named = pixels(preset="quality", pivot_step=850)
    assert torch.equal(pixels(), named)
    assert not torch.equal(pixels(anchor=0.0), named)


@pytest.mark.usefixtures("workplace")
def test_a_record_of_the_tuned_version_makes_the_same_pixels() -> None:
    upsamplers_for(SD.shared(), sampling_preset="quality").save_pretrained("trained")
    (path,) = succeed(
        "generate", "a house", *WITH_MODEL, "--upsamplers", "trained", "--num-inference-steps", "10",
        "--output", "tuned.png",
    )  # fmt: skip
    settings = record(path)["settings"]
    assert (settings["preset"], settings["pivot_step"], settings["anchor"]) == ("quality", [850], 0.5)
    again = run_command("generate", "--from", "tuned.json", "--output", "again.png")
    assert again.exit_code == 0 and "the pixels are the same" in again.stderr


def test_another_preset_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="sampling_preset must be one of paper, rgb, quality, fast, not 'best'"):
        upsamplers_for(SD.shared(), sampling_preset="best")
