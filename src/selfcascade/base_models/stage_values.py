"""Values of a single stage: its prompt, scheduler and LoRA strength."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfcascade.base_models.named_schedulers import scheduler_named
from selfcascade.base_models.protocols import Pipeline, Scheduler
from selfcascade.base_models.request import Request
from selfcascade.cascade import Stage
from selfcascade.options.checks import OptionError

# Keywords of diffusers' pipelines that take a factor for the strengths of LoRAs during a call.
LORA_KEYWORDS = ("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs")


@dataclass(frozen=True)
class DistinctStage(Stage):
    """A stage that differs from the base stage in more than size, steps and guidance.

    Attributes:
        prompt, negative_prompt: The stage's texts; None uses the call's.
        scheduler: Name of the stage's scheduler; None uses the pipeline's.
        lora_scale: Factor for the strengths of the pipeline's LoRAs; None leaves them unchanged.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    scheduler: str | None = None
    lora_scale: float | None = None


def scheduler_of(pipe: Pipeline, stage: Stage) -> Scheduler:
    """The stage's scheduler, with the configuration of the pipeline's, or the pipeline's itself."""
    own = stage.scheduler if isinstance(stage, DistinctStage) else None
    return pipe.scheduler if own is None else scheduler_named(pipe.scheduler, own, "stage_scheduler")


def values_of(pipe: Pipeline, request: Request, stage: Stage, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords for the pipeline in which a stage differs from the base stage.

    Args:
        pipe: The pipeline.
        request: The call's arguments; each prompt is replaced.
        stage: The stage.
        arguments: Keywords that the pipeline gets at every stage.
    """
    if not isinstance(stage, DistinctStage):
        return {}
    words = {name: word for name, word in _words(stage).items() if word is not None}
    several = isinstance(request.prompt, list)
    values: dict[str, Any] = {name: [word] * request.prompts if several else word for name, word in words.items()}
    if stage.lora_scale is not None:
        keyword = _lora_keyword(pipe)
        assert keyword is not None  # `check_values` has made sure of it
        values[keyword] = {**(arguments.get(keyword) or {}), "scale": stage.lora_scale}
    return values


def check_values(pipe: Pipeline, request: Request, stages: Sequence[Stage]) -> None:
    """Checks, before anything runs, that the pipeline and the call support the stages' own values.

    Raises:
        OptionError: They do not; the message names the option.
    """
    named = inspect.signature(pipe.__call__).parameters
    for stage in stages:
        if not isinstance(stage, DistinctStage):
            continue
        for name, word in _words(stage).items():
            if word is None:
                continue
            if name not in named:
                raise OptionError(f"{{stage_{name}}} is not for a {type(pipe).__name__}, which takes no {{{name}}}")
            if request.prompt is None or request.arguments.get(f"{name}_embeds") is not None:
                raise OptionError(f"{{stage_{name}}} cannot be given with embeddings; give {{{name}}} as text")
        if stage.lora_scale is None:
            continue
        parts: Sequence[Any] = tuple(getattr(pipe, "components", {}).values())
        if not any(getattr(part, "peft_config", None) for part in parts):
            raise OptionError("{stage_lora_scale} is for LoRAs, and the pipeline has none")
        if _lora_keyword(pipe) is None:
            raise OptionError(
                f"{{stage_lora_scale}} is not for a {type(pipe).__name__}, whose calls take no factor for LoRAs"
            )


def _words(stage: DistinctStage) -> dict[str, str | None]:
    return {"prompt": stage.prompt, "negative_prompt": stage.negative_prompt}


def _lora_keyword(pipe: Pipeline) -> str | None:
    named = inspect.signature(pipe.__call__).parameters
    return next((name for name in LORA_KEYWORDS if name in named), None)
