"""What stages above the base have of their own: equal to the cascade done by hand, with each value in its place."""

from typing import Any

import pytest
import torch

from cascade_runs import QUICK, run, seeded
from selfcascade import SelfCascade
from selfcascade.base_models.named_schedulers import scheduler_named
from selfcascade.options.checks import OptionError
from tiny import add_tiny_lora

WORDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "prompt": ({"stage_prompt": "bricks"}, {"prompt": "bricks"}),
    "negative prompt": ({"stage_negative_prompt": "fog"}, {"negative_prompt": "fog"}),
    "both": (
        {"stage_prompt": "bricks", "stage_negative_prompt": "fog"},
        {"prompt": "bricks", "negative_prompt": "fog"},
    ),
    "steps and guidance": (
        {"num_inference_steps": [4, 3], "guidance_scale": [7.5, 2.0]},
        {"num_inference_steps": 3, "guidance_scale": 2.0},
    ),
}


def by_hand(pipe: Any, above: dict[str, Any]) -> Any:
    """The base stage by one call, and what is above it by another, from the generator that the first has left."""
    generator = seeded()
    base = run(pipe, QUICK, scale=1, generator=generator).stages[0].latents
    return run(pipe, QUICK, generator=generator, pivot=base, **above).stages[-1].latents


@pytest.mark.parametrize("case", WORDS)
def test_words_steps_and_guidance(case: str) -> None:
    own, above = WORDS[case]
    made = run(QUICK.shared(), QUICK, **own).stages
    plain = run(QUICK.shared(), QUICK).stages
    assert torch.equal(made[0].latents, plain[0].latents)
    assert not torch.equal(made[1].latents, plain[1].latents)
    assert torch.equal(made[1].latents, by_hand(QUICK.shared(), above))


def test_a_scheduler() -> None:
    pipe: Any = QUICK.build()
    made = run(pipe, QUICK, stage_scheduler="dpm++ 2m karras").stages
    generator = seeded()
    base = run(pipe, QUICK, scale=1, generator=generator).stages[0].latents
    assert torch.equal(made[0].latents, base)
    pipe.scheduler = scheduler_named(pipe.scheduler, "dpm++ 2m karras")
    above = run(pipe, QUICK, pivot=base, generator=generator).stages[-1].latents
    assert torch.equal(made[1].latents, above)
    assert not torch.equal(above, run(QUICK.shared(), QUICK).stages[-1].latents)


def test_the_strength_of_loras() -> None:
    pipe: Any = add_tiny_lora(QUICK.build())
    (name,) = pipe.get_active_adapters()
    made = run(pipe, QUICK, stage_lora_scale=0.5).stages
    generator = seeded()
    base = run(pipe, QUICK, scale=1, generator=generator).stages[0].latents
    assert torch.equal(made[0].latents, base)
    full = run(pipe, QUICK).stages[-1].latents
    pipe.set_adapters(name, 0.5)
    above = run(pipe, QUICK, pivot=base, generator=generator).stages[-1].latents
    assert torch.equal(made[1].latents, above) and not torch.equal(above, full)


def test_one_value_a_stage_and_several_prompts() -> None:
    prompts: dict[str, Any] = {"prompt": ["a house", "a tree"], "negative_prompt": ["fog"] * 2}
    made = run(QUICK.shared(), QUICK, 4, num_inference_steps=2, **prompts, stage_prompt=["bricks", "leaves"]).stages
    generator = seeded()
    prompts = {**prompts, "num_inference_steps": 2, "generator": generator}
    first = run(QUICK.shared(), QUICK, 2, **prompts, stage_prompt="bricks").stages
    assert torch.equal(made[1].latents, first[1].latents)
    above: dict[str, Any] = {**prompts, "prompt": ["leaves"] * 2, "pivot": first[1].latents}
    last = run(QUICK.shared(), QUICK, 4, **above).stages
    assert torch.equal(made[2].latents, last[0].latents)


def test_a_strength_is_a_share_of_the_training_timesteps() -> None:
    cascade = SelfCascade(QUICK.shared(), native_size=QUICK.native)
    assert cascade.plan(scale=4, strength=[0.7, 0.25]) == cascade.plan(scale=4, pivot_step=[700, 250])
    ours = run(QUICK.shared(), QUICK, strength=0.55).stages[-1].latents
    assert torch.equal(ours, run(QUICK.shared(), QUICK, pivot_step=550).stages[-1].latents)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "strength and K": ({"strength": 0.5, "pivot_step": 500}, "strength cannot be given with pivot_step"),
    "no strength": ({"strength": 0.0}, "strength must be a number over 0 up to 1, not 0.0"),
    "too many": ({"stage_prompt": ["a", "b"]}, "stage_prompt has 2 values, and there are 1 stages"),
    "no scheduler": ({"stage_scheduler": "heun 3"}, "stage_scheduler 'heun 3' ends in '3'"),
    "no LoRA": ({"stage_lora_scale": 0.5}, "stage_lora_scale is for LoRAs, and the pipeline has none"),
    "no stage above": ({"stage_prompt": "a", "scale": 1}, "stage_prompt, here 'a', is for stages above the base"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str) -> None:
    given, sentence = REFUSED[case]
    with pytest.raises(OptionError, match=sentence):
        SelfCascade(QUICK.shared(), native_size=QUICK.native)("a", num_inference_steps=2, **given)


def test_words_are_refused_with_embeddings() -> None:
    embeds = torch.zeros(1, 77, 16)
    with pytest.raises(OptionError, match="stage_prompt cannot be given with embeddings; give prompt as text"):
        SelfCascade(QUICK.shared(), native_size=QUICK.native)(
            prompt_embeds=embeds, negative_prompt_embeds=embeds, num_inference_steps=2, stage_prompt="a"
        )
