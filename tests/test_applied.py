"""`selfcascade.apply(pipe)`: the pipeline's own call makes what `SelfCascade` makes, and `remove` takes it back."""

import copy
import inspect
from typing import Any

import pytest
import torch

import selfcascade
from cascade_runs import FAMILIES, SD, run, seeded
from selfcascade.options.checks import OptionError
from tiny import TinyPipeline, add_tiny_lora

SHORT: dict[str, Any] = {"num_inference_steps": 4, "output_type": "latent"}


def size_of(family: TinyPipeline, scale: int = 2) -> dict[str, int]:
    return {"height": scale * family.native[0], "width": scale * family.native[1]}


def latents_of(output: Any) -> torch.Tensor:
    return output.images if output.frames is None else output.frames


@FAMILIES
def test_the_own_call_of_every_family_is_the_cascade_until_it_is_removed(family: TinyPipeline) -> None:
    pipe: Any = family.build()
    kind, expected = type(pipe), latents_of(run(pipe, family, **SHORT))
    held = {name: id(part) for name, part in pipe.components.items()}
    assert selfcascade.apply(pipe, native_size=family.native, preset="paper") is pipe
    assert isinstance(pipe, kind) and type(pipe).__name__ == kind.__name__
    assert list(inspect.signature(type(pipe).__call__).parameters) == list(inspect.signature(kind.__call__).parameters)
    made = pipe(**{**family.inputs, **SHORT, **size_of(family), "generator": seeded()})
    assert torch.equal(latents_of(made), expected)
    assert selfcascade.remove(pipe) is pipe
    assert type(pipe) is kind and {name: id(part) for name, part in pipe.components.items()} == held


@pytest.fixture
def pipe() -> Any:
    return SD.build()


def test_places_none_and_sizes_mean_what_they_mean_to_the_pipeline(pipe: Any) -> None:
    selfcascade.apply(pipe, preset="paper", scale=3, **SHORT)
    assert pipe("a house", generator=seeded())[0].shape[-1] == 48
    by_place = pipe("a house", 256, 192, negative_prompt=None, generator=seeded())
    assert by_place["images"].shape[-2:] == (32, 24)
    pictures, stages = pipe("a house", 256, 192, generator=seeded(), return_dict=False)
    assert torch.equal(pictures, by_place.images) and len(stages) == 2
    assert len(pipe("a house", 128, 128).stages) == 1
    with pytest.raises(OptionError, match="height is given twice"):
        pipe("a house", 256, height=256)
    with pytest.raises(OptionError, match="preset_name is a keyword of neither"):
        pipe("a house", preset_name="paper")


def test_applied_again_the_new_settings_replace_the_old(pipe: Any) -> None:
    kind = type(pipe)
    selfcascade.apply(pipe, preset="paper", scale=2, **SHORT)
    selfcascade.apply(pipe, preset="rgb", **SHORT)
    assert type(pipe).__mro__[1] is kind
    expected = run(pipe, preset="rgb", num_inference_steps=4)
    assert torch.equal(pipe(**SD.inputs, generator=seeded()).images, expected.images)
    selfcascade.remove(pipe)
    with pytest.raises(ValueError, match=r"nothing to remove: selfcascade.apply\(pipe\) was not called"):
        selfcascade.remove(pipe)


def test_what_is_wrong_is_refused_at_once_and_leaves_the_pipeline(pipe: Any) -> None:
    kind = type(pipe)
    for options in ({"preset": "best"}, {"anchor": 2}, {"presets": "paper"}, {"scale": 2, "height": 256}):
        with pytest.raises(OptionError):
            selfcascade.apply(pipe, **options)
    with pytest.raises(ValueError, match="upsamplers must be"):
        selfcascade.apply(pipe, upsamplers="full")  # type: ignore[arg-type]
    assert type(pipe) is kind


def test_a_copy_is_told_to_be_applied_itself(pipe: Any) -> None:
    selfcascade.apply(pipe, **SHORT)
    with pytest.raises(ValueError, match="apply it to the copy too"):
        copy.copy(pipe)("a house")


def test_after_an_exception_and_with_a_lora_it_goes_on(pipe: Any) -> None:
    add_tiny_lora(pipe)
    selfcascade.apply(pipe, preset="paper", **SHORT)

    def stop(*_: Any) -> Any:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        pipe("a house", callback_on_step_end=stop)
    made = pipe(**SD.inputs, generator=seeded()).images
    assert torch.equal(made, run(pipe, num_inference_steps=4).images), "the class goes on working beside it"
    selfcascade.remove(pipe)
    assert torch.equal(made, run(pipe, num_inference_steps=4).images)


def test_a_calls_own_k_replaces_a_strength_that_was_applied(pipe: Any) -> None:
    selfcascade.apply(pipe, preset="paper", strength=0.5, scale=2, **SHORT)
    stages = pipe("a house", pivot_step=300, generator=seeded()).stages
    assert stages[-1].stage.pivot_step == 300
    with pytest.raises(OptionError, match="strength cannot be given with pivot_step"):
        pipe("a house", pivot_step=300, strength=0.4)
    selfcascade.apply(pipe, preset="paper", scale=2, max_memory="1GB", **SHORT)
    with pytest.raises(OptionError, match="pivot_upscaler"):  # which is looked for: the limit gave way
        pipe("a house", pivot_upscaler="nowhere.safetensors")
