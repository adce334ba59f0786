"""Turns samples into a result: its figures, the record of each sample, and how it was made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models.family import denoiser
from selfcascade.base_models.precision import has_bfloat16
from selfcascade.cascade import Size
from selfcascade.evaluation.parts import Parts
from selfcascade.evaluation.per_picture import PerPicture, per_picture
from selfcascade.evaluation.provenance import levels_of, made_by, preset_name, weight_files
from selfcascade.evaluation.revisions import CASCADE, TUNED
from selfcascade.evaluation.true_pivots import against_truth
from selfcascade.experiments.experiment import Experiment
from selfcascade.experiments.prepared import Prepared
from selfcascade.metrics.video import mean_estimate


def measured(
    experiment: Experiment, prepared: Prepared, name: str, parts: Parts, count: int
) -> tuple[dict[str, Any], PerPicture | None]:
    """The figures of the first `count` samples of a sampling, and their record if the captions are a named set."""
    evaluator, base = prepared.evaluator(name), prepared.base(name)
    prompts = prepared.prompts.head(count)
    judged = evaluator.judge(parts.pictures(count), prompts, base)
    figures, values = judged.figures, dict[str, Tensor]()
    if experiment.pivots == "true":
        values = _truths(prepared, name, parts, count)
        estimates = {own: mean_estimate(value, draws=evaluator.draws) for own, value in values.items()}
        figures |= {own: [one.value, one.low, one.high] for own, one in estimates.items()}
    if experiment.split is None:
        return figures, None
    values["seconds"] = torch.cat(list(parts.each("seconds", count)))
    return figures, per_picture(judged, prompts, evaluator, None if base is None else base.features, values)


def _truths(prepared: Prepared, name: str, parts: Parts, count: int) -> dict[str, Tensor]:
    found, begin, size = list[dict[str, Tensor]](), 0, Size(*prepared.evaluator(name).size)
    for made in parts.pictures(count):
        true = prepared.true_samples(range(begin, begin + len(made)), size)
        found.append(against_truth(true, made, prepared.evaluator(name)))
        begin += len(made)
    return {own: torch.cat([part[own] for part in found]) for own in found[0]}


def how_made(
    experiment: Experiment, prepared: Prepared, name: str, upsamplers: Any, trained: list[str]
) -> dict[str, Any]:
    """What a result says about how it was made.

    Args:
        experiment: Names the model and weights.
        prepared: Holds the loaded model and weights.
        name: Name of the sampling.
        upsamplers: `FeatureUpsamplers` that are used; None without.
        trained: Digests of weights that were trained in this run and are in no file.
    """
    pipe, sampling = prepared.pipe, prepared.samplings[name]
    weights = weight_files(experiment.model, experiment.upsamplers, sampling.weights, sampling.pivot_upscaler)
    if trained:
        weights["trained"] = trained[0][:16]
    dtype = str(denoiser(pipe).dtype).removeprefix("torch.")
    method = TUNED if upsamplers is not None and sampling.method == CASCADE else sampling.method
    preset = preset_name(pipe, sampling, upsamplers)
    made = made_by(method, preset, weights, torch.device(pipe.device), dtype, has_bfloat16(str(pipe.device)))
    levels = levels_of(pipe, sampling, upsamplers)
    return {**made, **({"K": levels} if levels else {})}
