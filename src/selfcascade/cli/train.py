"""`train`: trains feature upsamplers, a LoRA or the whole U-Net; the options are the fields of `TrainingConfig`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import ValidationError

from selfcascade.cli.console import Debug, note, tell
from selfcascade.training.config import TrainingConfig


def _train(debug: bool = False, **given: Any) -> None:
    """Train upsamplers, a LoRA or the U-Net for a larger size. Ctrl-C saves a checkpoint and ends the run."""
    chosen = {name: value for name, value in given.items() if value is not None and value != []}
    config = make_config(chosen)

    from selfcascade.making import quiet_libraries
    from selfcascade.training.launch import run_training

    quiet_libraries()
    trainer = run_training(config, note)
    if not trainer.accelerator.is_main_process:
        return
    note(f"data: {trainer.stream.report}")
    if trainer.step < config.max_train_steps:
        again = "continue with --resume_from_checkpoint latest"
        note(f"stopped by {trainer.stop.asked_by} after step {trainer.step}; {again}")
    tell(config.folder)


def make_config(given: dict[str, Any]) -> TrainingConfig:
    """The training configuration from options.

    Raises:
        ValueError: An option is out of range; the message names it.
    """
    if "resolution" in given:
        sides = given["resolution"]
        given = {**given, "resolution": sides * 2 if len(sides) == 1 else sides}
    try:
        return TrainingConfig(**given)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # settings that do not go together, which the message names
            raise ValueError(first["msg"].removeprefix("Value error, ")) from error
        name, words = str(first["loc"][0]), first["msg"].replace("Input should be", "must be", 1)
        raise ValueError(f"{name} {words}, not {given.get(name)!r}") from error


def _as_command(function: Callable[..., None]) -> Callable[..., None]:
    """The function as a command with one option per field, with dashes or, like diffusers' examples, underscores."""
    parameters = []
    for name, field in TrainingConfig.model_fields.items():
        dashed = f"--{name.replace('_', '-')}"
        spelled = [dashed] if "_" not in name else [dashed, f"--{name}"]
        shown = "" if field.default in (None, (), False) else f" {_shown(field.default)} unless given."
        option = typer.Option(None, *spelled, help=f"{field.description}{_choices(field.annotation)}{shown}")
        kind = _option_type(field.annotation)
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind))
    parameters.append(inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug))

    def command(**given: Any) -> None:
        function(**given)

    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _option_type(annotation: Any) -> Any:
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) is tuple:
        inner = str if str in kinds else int
        return list[inner] | None
    if get_origin(annotation) is Literal:
        return str | None
    if get_origin(annotation) is Union or (kinds and type(None) in get_args(annotation)):
        return _option_type(kinds[0])
    plain = {bool: bool, float: float, str: str}.get(annotation, int)
    return plain | None


def _choices(annotation: Any) -> str:
    return f" One of {', '.join(get_args(annotation))}." if get_origin(annotation) is Literal else ""


def _shown(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


train = _as_command(_train)
