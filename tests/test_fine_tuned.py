"""Weights that are lent to a pipeline for one call: it has its own again, whatever happens in between."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.utils import get_peft_model_state_dict

from cascade_runs import SD, sampled, seeded
from tiny import add_tiny_lora


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of weights for each method that is fine-tuned."""
    tmp_path = tmp_path_factory.mktemp("weights")
    whole: Any = SD.build()
    adapted: Any = add_tiny_lora(SD.build())  # type: ignore[arg-type]
    for parameter in whole.unet.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=seeded(5))
    whole.unet.save_pretrained(tmp_path / "full-ft/unet")
    layers = get_peft_model_state_dict(adapted.unet)
    type(adapted).save_lora_weights(tmp_path / "lora", unet_lora_layers=layers)
    return {name: tmp_path / name for name in ("full-ft", "lora")}


@pytest.mark.parametrize("in_cascade", [False, True])
@pytest.mark.parametrize("name", ["full-ft", "lora"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_lent_weights_are_given_back_after_an_error(
    error: type[BaseException], name: str, in_cascade: bool, fine_tuned: dict[str, Path]
) -> None:
    pipe: Any = SD.shared()
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    seen: list[bool] = []

    def fail(pipe: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        held = pipe.unet.state_dict()
        if held.keys() != before.keys() or any(not torch.equal(held[key], value) for key, value in before.items()):
            seen.append(True)  # the weights are lent now, and not in the cascade's base stage
            raise error("stop here")
        return inputs

    options: dict[str, Any] = {"weights": fine_tuned[name], "in_cascade": in_cascade, "callback_on_step_end": fail}
    with pytest.raises(error, match="stop here"):
        sampled(name, pipe, **options, **({"pivot_step": 700} if in_cascade else {}))
    after = pipe.unet.state_dict()
    assert seen and after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not getattr(pipe.unet, "peft_config", None)


@pytest.mark.parametrize("name", ["full-ft", "lora"])
def test_lent_weights_that_moved_meanwhile_are_given_back(name: str, fine_tuned: dict[str, Path]) -> None:
    pipe: Any = SD.shared()
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}

    def move(pipe: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        for weight in pipe.unet.parameters():  # as `enable_model_cpu_offload` does, to a device and back
            weight.data = weight.data.clone()
        return inputs

    sampled(name, pipe, weights=fine_tuned[name], callback_on_step_end=move)
    after = pipe.unet.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ["full-ft", "lora"])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"weights": "nowhere"}, "weights 'nowhere' hold no"),
        ({"pivot_step": [700, 400]}, "pivot_step"),
        ({"anchor": 0.5, "stage_scheduler": "nothing"}, "stage_scheduler"),
    ],
    ids=["weights", "pivot_step", "stage_scheduler"],
)
def test_what_cannot_be_done_is_refused_before_the_base_sample(
    wrong: dict[str, Any], words: str, name: str, fine_tuned: dict[str, Path]
) -> None:
    pipe: Any = SD.shared()
    hook = pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("something was computed"))
    try:
        with pytest.raises(ValueError, match=words):
            sampled(name, pipe, **{"weights": fine_tuned[name], "in_cascade": True, **wrong})
    finally:
        hook.remove()
    assert not getattr(pipe.unet, "peft_config", None)
