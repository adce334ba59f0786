"""Begins or continues a batch: makes or finds its plan, and checks it against the command, the file and the model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from selfcascade.batch.batch_plan import MODEL, Job, Plan, Survey, check_same, survey
from selfcascade.batch.output_folder import PARTS, PLAN, OutputFolder
from selfcascade.batch.refusals import BatchError, RowsError
from selfcascade.making import OF_CLIPS, completed
from selfcascade.media.mp4_files import pyav
from selfcascade.media.save_clips import CLIP_OUTPUTS
from selfcascade.media.save_pictures import EXTENSIONS, check_place, publish, versions
from selfcascade.media.whole_files import temporary_file
from selfcascade.options import Options
from selfcascade.options.checks import OptionError, joined

if TYPE_CHECKING:
    from selfcascade.pipeline import SelfCascade

VERSIONS = "versions"
SAMPLED = 16


def find(job: Job) -> Plan | Survey:
    """The folder's plan, if it is this command's; otherwise the survey of the file for a new batch.

    Raises:
        BatchError: The folder holds something else, or a row cannot be made.
    """
    path = job.output / PLAN
    if path.is_file():
        plan = Plan.from_json(path.read_text("utf-8"), str(path))
        check_same(job, plan)
        check_place(path)
        return plan
    if job.output.is_dir() and any(not name.startswith(".") for name in os.listdir(job.output)):  # noqa: PTH208
        raise BatchError(f"output {str(job.output)!r} holds other files than a batch; give a new folder")
    if job.output.exists() and not job.output.is_dir():
        raise BatchError(f"output {str(job.output)!r} is a file; give a folder")
    check_place(job.output / PLAN)
    return survey(job)


def begin(job: Job, found: Plan | Survey, cascade: SelfCascade, note: Callable[[str], None]) -> OutputFolder:
    """The output folder, ready for parts, once the model is known. Every process calls this.

    Args:
        job: The command's settings.
        found: Result of `find`.
        cascade: Model from `making.load_cascade`.
        note: Called with a line for the user.

    Raises:
        BatchError: The model cannot make some rows, or differs from the one that the batch began with.
    """
    facts = model_facts(cascade)
    if isinstance(found, Survey):
        check_kinds(job, found, cascade)
        ending = job.ending or (".mp4" if cascade.family.video else ".png")
        check_ending(ending, cascade)
        own = {**job.facts(), MODEL: facts, VERSIONS: versions()}
        plan = Plan(found.sha256, found.rows, tuple(found.shards), own, ending)
        job.output.mkdir(parents=True, exist_ok=True)
        with temporary_file(job.output) as aside:
            aside.write_text(plan.as_json(), "utf-8")
            # Another process may have been quicker.
            found = plan if publish(aside, job.output / PLAN) else find(job)
    assert isinstance(found, Plan)
    _check_model(job, found, facts, note)
    (job.output / PARTS).mkdir(exist_ok=True)
    return OutputFolder(job.output, found)


def check_kinds(job: Job, found: Survey, cascade: SelfCascade) -> None:
    """Raises RowsError if the model cannot make some rows."""
    faults: list[tuple[int, str]] = []
    for options, line in found.kinds.values():
        try:
            complete(cascade, options)
        except (OptionError, ValueError) as error:
            faults.append((line, str(error)))
    if faults:
        raise RowsError(str(job.prompts), faults[:3], len(faults))


def complete(cascade: SelfCascade, options: Options) -> Options:
    """The options of a row with the model's defaults filled in.

    Raises:
        OptionError: The model cannot do what the options ask for.
    """
    if not cascade.family.video:
        for name in OF_CLIPS:
            if getattr(options, name) is not None:
                raise OptionError(f"{{{name}}} is for video, and model {{model}} makes pictures", model=options.model)
    # Another run cannot know which of several devices makes it.
    return completed(cascade, options).changed(device=_device(cascade.pipe))


def check_ending(ending: str, cascade: SelfCascade) -> None:
    """Raises BatchError if the model's files cannot have this ending."""
    known = CLIP_OUTPUTS if cascade.family.video else EXTENSIONS
    if ending not in known:
        makes = "video" if cascade.family.video else "pictures"
        raise BatchError(f"files of a model that makes {makes} end in {joined(known)}, not {ending}")
    if ending == ".mp4":
        pyav()


def model_facts(cascade: SelfCascade) -> dict[str, str]:
    """Facts that determine a model's pictures, as text: different models have different facts.

    The first values of every weight are hashed, since training changes all weights.
    """
    import torch

    pipe, digest = cascade.pipe, hashlib.sha256()
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    if cascade.upsamplers is not None:
        modules["upsamplers"] = cascade.upsamplers
    for name, module in sorted(modules.items()):
        for key, value in _values(module):
            first = value.detach().flatten()[:SAMPLED].cpu().contiguous().view(torch.uint8).numpy().tobytes()
            digest.update(f"{name} {key} {tuple(value.shape)} {value.dtype} ".encode() + first)
    config = {key: value for key, value in sorted(pipe.scheduler.config.items()) if not key.startswith("_")}
    scheduler = hashlib.sha256(repr((type(pipe.scheduler).__name__, config)).encode()).hexdigest()
    return {
        "pipeline": type(pipe).__name__,
        "device": _device(pipe),
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "weights": digest.hexdigest()[:16],
        "scheduler": scheduler[:16],
    }


def _device(pipe: Any) -> str:
    """The device that the pipeline computes on: where weights are offloaded, not the one that holds them."""
    return str(pipe._execution_device).partition(":")[0]


def _values(module: Any) -> Iterator[tuple[str, Any]]:
    """A module's weights by name, offloaded ones too."""
    for key, value in module.state_dict().items():
        if value.is_meta:  # accelerate's hook on the layer has them
            layer, _, name = key.rpartition(".")
            hook = module.get_submodule(layer)._hf_hook
            maps = (getattr(one, "weights_map", None) for one in getattr(hook, "hooks", (hook,)))
            value = next(held[name] for held in maps if held is not None)
        yield key, value


def _check_model(job: Job, plan: Plan, facts: Mapping[str, str], note: Callable[[str], None]) -> None:
    was: dict[str, Any] = plan.facts.get(MODEL, {})
    different = [f"{name} {value}, and was {was.get(name)}" for name, value in facts.items() if was.get(name) != value]
    if different:
        words = "; ".join(different)
        raise BatchError(f"output {str(job.output)!r} was begun with another model: {words}; give another output")
    old: dict[str, Any] = plan.facts.get(VERSIONS, {})
    changed = [f"{name} {value} (was {old.get(name)})" for name, value in versions().items() if old.get(name) != value]
    if changed:
        words = "pictures may differ from the earlier ones"
        note(f"these are not the versions that the batch began with: {', '.join(changed)}; {words}")
