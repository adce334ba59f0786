"""Experiments as files that hold only differences from the defaults.

experiments/defaults.json              settings of all experiments, and under "suites" those of each suite
experiments/SUITE/NAME.json            one experiment: its differences
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from selfcascade.evaluation import COLLAGES, MOVING, STILL, Sampling, Split, check_detector
from selfcascade.evaluation.make_samples import REAL
from selfcascade.experiments.floors import FLOORS, SAMPLES, SAMPLES_AT_LAST, floor_settings
from selfcascade.media.frame_rates import DEFAULT_FPS
from selfcascade.options import uses
from selfcascade.options.checks import no_truth_in
from selfcascade.options.json_files import read_object
from selfcascade.options.methods import method_options, takers

# A fiftieth seed would use the scenes that real samples are rendered from.
Seed = Annotated[int, Field(ge=0, lt=50)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]
Steps = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
Counts = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class Experiment(BaseModel):
    """One method, trained or not, with how it is sampled and measured.

    Raises:
        ValueError: A setting is out of range (pydantic's `ValidationError` is one); the message names it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("bundled", description="'bundled', a folder in diffusers' format, or a Hub id.")
    dtype: str = Field("float32", description="The model's; auto: as `selfcascade generate` chooses it.")
    frames: PositiveInt | None = Field(None, description="Frames per clip; none: the model makes pictures.")
    fps: float = Field(DEFAULT_FPS, gt=0, description="Frame rate of the clips.")
    data: str = Field(
        "scenes", description="'scenes', 'collages', 'moving-scenes', or as `selfcascade train` takes them."
    )
    train_data: str | None = Field(
        None, description="Training data; none: the benchmark's own, other samples than its prompts'."
    )
    detector: str = Field("scenes", description="For real data: 'inception:FILE', 'clip:FOLDER_OR_HUB_ID', 'i3d:FILE'.")
    training: dict[str, Any] | None = Field(None, description="Differences from TrainingConfig; none: not trained.")
    upsamplers: str | None = Field(None, description="Trained upsamplers, by name or folder.")
    samplings: dict[str, dict[str, Any]] = Field(
        min_length=1,
        description="Name of each way to sample: its settings, and its own at_steps where those are fewer.",
    )
    at_steps: Steps = Field((0,), description="Training steps at which it is measured.")
    seeds: Seeds = Field((0,), description="Seeds of the training; without one, of captions and noise.")
    more_seeds: tuple[Seed, ...] = Field((), description="More of them, trained to one step and measured there.")
    more_seeds_at: int | None = Field(None, description="That step; the last unless given.")
    samples: Counts = Field(
        SAMPLES,
        description="Pictures or clips at each step, one result for each count.",
        validation_alias=AliasChoices("samples", "questions"),  # files up to version 0.1 say questions
    )
    samples_at_last: Counts = Field(
        SAMPLES_AT_LAST,
        description="The same at the last step.",
        validation_alias=AliasChoices("samples_at_last", "questions_at_last"),
    )
    samples_of: dict[Split, NonNegativeInt] = Field(
        {}, description="Pictures of a set of captions, instead of those; 0: nothing is chosen on it."
    )
    real_pictures: PositiveInt = Field(1000, description="Real pictures or clips to compare with.")
    base_pictures: PositiveInt = Field(300, description="Base samples of other captions, for FID_b and KID_b.")
    split: Split | None = Field(None, description="Set of captions and seeds; none: as before there were sets.")
    pivots: Literal["sampled", "true"] = Field(
        "sampled", description="What is enlarged; true: real small pictures, measured against the real large ones."
    )
    shared: dict[str, Any] = Field({}, description="Settings of all samplings.")
    shared_training: dict[str, Any] = Field({}, description="Settings of all trainings.")

    @field_validator(
        *("frames", "fps", "at_steps", "seeds", "more_seeds", "more_seeds_at"),
        *("samples", "samples_at_last", "real_pictures", "base_pictures"),
        mode="before",
    )
    @classmethod
    def _is_no_truth(cls, value: Any) -> Any:
        no_truth_in(value)
        return value

    @model_validator(mode="after")
    def _is_measured_where_it_is_trained_to(self) -> Experiment:
        asked = {"more_seeds_at": [self.more_seeds_at] if self.more_seeds_at is not None else []}
        asked |= {f"at_steps of sampling {name!r}": own.get("at_steps", []) for name, own in self.samplings.items()}
        for name, steps in asked.items():
            others = [step for step in steps if step not in self.at_steps]
            if others:
                raise ValueError(f"{name} must be among at_steps, {list(self.at_steps)}, not {others[0]!r}")
        return self

    @model_validator(mode="after")
    def _is_not_measured_on_what_it_learns(self) -> Experiment:
        if self.training is None or self.data in (STILL, MOVING, COLLAGES):
            return self
        if self.train_data in (None, self.data):
            words = "must be other pictures than data, which methods are measured against"
            raise ValueError(f"train_data {words}, not {self.train_data!r}, where a method is trained")
        return self

    def counts(self, is_last: bool) -> tuple[int, ...]:
        """Numbers of pictures of the results at a step.

        Args:
            is_last: Whether it is the last step of a first seed.
        """
        if self.split in self.samples_of:
            return (self.samples_of[self.split],) if self.samples_of[self.split] else ()
        return self.samples_at_last if is_last else self.samples

    def sampling(self, name: str) -> Sampling:
        """The settings of one way to sample."""
        own = {key: value for key, value in self.samplings[name].items() if key != "at_steps"}
        sampling = replace(Sampling(), **{**self.shared, **own})
        if sampling.method == REAL:
            return sampling
        for option, value in own.items():
            if value is not None and option in uses() and not method_options(sampling.method).accepts(option):
                raise ValueError(f"sampling {name!r}: {option} is for {takers(option)}, not for {sampling.method}")
        return sampling


def read_experiment(suite: Path, name: str, changes: dict[str, Any] | None = None) -> Experiment:
    """Reads an experiment: the defaults next to the suite, its own differences, and the given changes.

    Raises:
        ValueError: The file does not exist, or a setting is out of range.
    """
    path, own = suite / f"{name}.json", {}
    if path.is_file():
        own = read_object(path, "experiment")
    elif name in FLOORS and names_of(suite):
        others = [read_object(suite / f"{other}.json", "experiment") for other in names_of(suite)]
        own = floor_settings(name, [{**_defaults(suite), **other, **(changes or {})} for other in others])
    else:
        raise ValueError(f"experiment {name!r} is not in {suite}; it must be one of {', '.join(names_of(suite))}")
    try:
        experiment = Experiment(**{**_defaults(suite), **own, **(changes or {})})
        for sampling in experiment.samplings:
            experiment.sampling(sampling)
        check_detector(experiment.data, experiment.detector, experiment.frames)
    except (ValidationError, TypeError) as error:
        raise ValueError(f"experiment {path} cannot be read: {error}") from error
    return experiment


def read_shared(suite: Path) -> dict[str, Any]:
    """Settings of all samplings of a suite."""
    return _defaults(suite).get("shared", {})


def names_of(suite: Path) -> list[str]:
    """Names of a suite's experiments."""
    return sorted(path.stem for path in suite.glob("*.json"))


def _defaults(suite: Path) -> dict[str, Any]:
    path = suite.parent / "defaults.json"
    held = read_object(path, "defaults") if path.is_file() else {}
    own = held.pop("suites", {}).get(suite.name, {})
    return {**held, **own}
