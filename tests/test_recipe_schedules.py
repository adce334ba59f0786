"""The bundled model's noise: the paper's K means for its small latents what it means for Stable Diffusion's."""

import pytest
import torch
from diffusers import DDIMScheduler

from schedules import build_scheduler, cosine_snr, equivalent_step, matched_snr, reference_snr


def test_the_reference_is_stable_diffusions() -> None:
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    alphas = scheduler.alphas_cumprod.double()
    assert torch.allclose(reference_snr(), alphas / (1 - alphas), rtol=1e-4)


@pytest.mark.parametrize("pixels", [256, 1024, 4096])
def test_a_timestep_means_the_same_per_native_picture(pixels: int) -> None:
    snr, reference = matched_snr(pixels), reference_snr()
    for step in (100, 300, 500, 700):
        assert equivalent_step(reference, float(snr[step - 1]) * pixels / 4096) == pytest.approx(step, abs=1)
    assert equivalent_step(reference, float(snr[849]) * pixels / 4096) == pytest.approx(850, abs=16)


def test_it_falls_all_the_way_and_ends_in_noise() -> None:
    snr = matched_snr(256)
    assert (snr.diff() < 0).all() and snr[-1] * 256 < 0.01 and snr[-1] > 0


def test_the_cosine_schedule_stood_for_other_timesteps() -> None:
    cosine, reference = cosine_snr(4.0, 1000), reference_snr()
    assert equivalent_step(reference, float(cosine[699]) / 16) == pytest.approx(740, abs=1)
    assert equivalent_step(cosine, float(reference[699]) * 16) == pytest.approx(655.6, abs=1)


def test_equivalent_steps_lie_between_timesteps_and_end_with_the_schedule() -> None:
    falling = torch.tensor([8.0, 4.0, 2.0], dtype=torch.float64)
    assert equivalent_step(falling, 4.0) == pytest.approx(2.0)
    assert equivalent_step(falling, 32**0.5) == pytest.approx(1.5)
    assert equivalent_step(falling, 100.0) == 1.0 and equivalent_step(falling, 0.1) == 3.0


@pytest.mark.parametrize("settings", [{"pixels": 256}, {"snr_shift": 4.0}])
def test_schedulers_hold_their_ratios(settings: dict) -> None:
    scheduler = build_scheduler({"prediction_type": "v_prediction", **settings})
    wanted = matched_snr(256) if "pixels" in settings else cosine_snr(4.0, 1000)
    alphas = scheduler.alphas_cumprod.double()
    assert torch.allclose((alphas / (1 - alphas)).log(), wanted.log(), atol=0.04)  # 1 - abar in float32
    assert scheduler.config["prediction_type"] == "v_prediction"
