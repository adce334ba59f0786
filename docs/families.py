"""The table of pipeline classes: which are supported, how each is tested, and why others are not.

    python docs/families.py

writes docs/families.md.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import diffusers
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

from selfcascade.base_models import FAMILIES, UNSERVED, Family
from selfcascade.base_models.image_prompts import EMBEDS_ONLY

PAGE = Path(__file__).with_suffix(".md")
TESTS = Path(__file__).parents[1] / "tests"
# Entries of AutoPipelineForText2Image only where sentencepiece is installed.
KOLORS = ("KolorsPipeline", "KolorsPAGPipeline")
IMAGES = tuple(dict.fromkeys((*(kind.__name__ for kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()), *KOLORS)))
# What `text_to_video` finds in diffusers 0.42.1.
CLIPS = (
    "AllegroPipeline",
    "AnimateDiffControlNetPipeline",
    "AnimateDiffPAGPipeline",
    "AnimateDiffPipeline",
    "AnimateDiffSDXLPipeline",
    "AnimateDiffSparseControlNetPipeline",
    "AnyFlowFARPipeline",
    "AnyFlowPipeline",
    "CogVideoXPipeline",
    "Cosmos2_5_PredictBasePipeline",
    "Cosmos3OmniPipeline",
    "CosmosTextToWorldPipeline",
    "EasyAnimateControlPipeline",
    "EasyAnimatePipeline",
    "HeliosPipeline",
    "HeliosPyramidPipeline",
    "HunyuanVideo15Pipeline",
    "HunyuanVideoPipeline",
    "Kandinsky5T2VPipeline",
    "Kandinsky6TI2VAPipeline",
    "LTX2ConditionPipeline",
    "LTX2DFRPipeline",
    "LTX2DFRTemporalRefinePipeline",
    "LTX2HDRPipeline",
    "LTX2InContextPipeline",
    "LTX2Pipeline",
    "LTXConditionPipeline",
    "LTXPipeline",
    "LattePipeline",
    "MochiPipeline",
    "MotifVideoPipeline",
    "SanaVideoPipeline",
    "SkyReelsV2DiffusionForcingPipeline",
    "SkyReelsV2Pipeline",
    "TextToVideoSDPipeline",
    "TextToVideoZeroPipeline",
    "TextToVideoZeroSDXLPipeline",
    "WanPipeline",
    "WanVACEPipeline",
)
OWN = """## A class of your own

A family states what differs from plain latents, (B, C, h, w), with the `scaling_factor` and `shift_factor` of the \
VAE: the attributes and methods of `selfcascade.Family`. Here a pipeline is told one side, and returns drawings:

```python
from types import SimpleNamespace

import torch
from diffusers import StableDiffusionPipeline
from selfcascade import Family, SelfCascade, register_family


class SquarePipeline(StableDiffusionPipeline):
    def __call__(self, prompt, side=512, **arguments):
        made = super().__call__(prompt, height=side, width=side, **arguments)
        return SimpleNamespace(drawings=made.images)


@register_family
class Squares(Family):
    classes = ("SquarePipeline",)
    least_multiple = 8
    output_name = "drawings"

    def size_arguments(self, size):
        return {"side": size.height}


pipe = SquarePipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5").to("cuda")
cascade = SelfCascade(pipe)
made = cascade("a red house at night", scale=2, num_inference_steps=10, generator=torch.Generator().manual_seed(0))
made.images[0].save("house.png")
```

`register_family` makes it serve the classes that it names from then on, before any family that served them. \
`SelfCascade(pipe, family=Squares)` uses it for one cascade, registered or not.
"""
LENGTHS = {"num_frames", "frames", "video_length"}
NOT_OF_TEXT = re.compile("ImageToVideo|Image2Video|VideoToVideo|VideoToWorld|(?<!T)I2V|Inpaint|Upsample")
# Of published models, for families that read positions from a table, in native sides.
POSITIONS = {
    "StableDiffusion3": "3 native sides (SD 3) or 6 (SD 3.5)",
    "AuraFlow": "1.5 native sides",
    "Lumina2": "8 native sides",
    "ZImage": "8 native sides",
    "CogView3Plus": "2 native sides",
    "Lumina": "6 native sides",
    "Kandinsky5Image": "2 native sides",
    "Kandinsky5Video": "2048 pixels a side",
    "CogVideoX": "2400 pixels a side (CogVideoX 1.5)",
}


if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))
TINY = importlib.import_module("tiny.everything")


def tiny_pipelines() -> dict[str, list[Any]]:
    """The entries of the tests' registry by the class of their pipeline."""
    found: dict[str, list[Any]] = {}
    for entry in TINY.EACH:
        found.setdefault(TINY.class_name(entry), []).append(entry)
    return found


def text_to_video() -> tuple[str, ...]:
    """Classes of diffusers that make a clip of a prompt, and need no picture or clip for it; takes half a minute."""
    names = [name for name in dir(diffusers) if name.endswith("Pipeline") and not NOT_OF_TEXT.search(name)]
    found: list[str] = []
    for name in names:
        call = inspect.signature(getattr(diffusers, name).__call__).parameters
        needed = {key for key, value in call.items() if value.default is inspect.Parameter.empty} - {"self", "prompt"}
        if "prompt" in call and LENGTHS & call.keys() and not needed - {"kwargs"}:
            found.append(name)
    return tuple(found)


def reads_positions(family: type[Family]) -> bool:
    """Whether a family refuses sizes that its model has no positions for."""
    return family.position_tokens is not Family.position_tokens or family.check_size is not Family.check_size


def checks(name: str, entries: list[Any]) -> str:
    """Which of the contract's checks a class passes."""
    if not entries:
        return "-"
    but = ["4x"] if all(entry.name in TINY.ENDING for entry in entries) else []
    call = inspect.signature(getattr(diffusers, name).__call__).parameters
    but += [] if "callback_on_step_end" in call else ["stops"]
    return f"all but {' and '.join(but)}" if but else "all"


def limits(family: type[Family], entries: list[Any]) -> str:
    """What a class makes no larger or longer than."""
    found = [f"at most {POSITIONS[family.__name__]}"] if reads_positions(family) else []
    if family.video and entries:
        bound = family(entries[0].shared())
        if bound.only_frames is not None:
            found.append("clips of the model's own length")
        elif bound.frame_step > 1:
            found.append(f"clips of {bound.frame_step} k + 1 frames")
        if bound.most_frames is not None:
            found.append("at most the motion adapter's frames")
    return ", ".join(found) or "-"


def notes(family: type[Family], entries: list[Any]) -> str:
    """Where its twin differs, and what sets its guidance."""
    found = [f"twin: {entry.twin_note}" if entry.twin else entry.twin_note for entry in entries if entry.twin_note]
    found += [] if family.guided_by is None else [f"guided by `{family.guided_by}`"]
    return "; ".join(found) or "-"


def ip_adapter(name: str) -> str:
    """What a class's call takes for an IP-Adapter."""
    if "ip_adapter_image" not in inspect.signature(getattr(diffusers, name).__call__).parameters:
        return "-"
    return "embeddings" if name in EMBEDS_ONLY else "yes"


def page() -> str:
    """The whole page."""
    ours = [family for family in FAMILIES if family.__module__.startswith("selfcascade.")]
    served = {name: family for family in ours for name in family.classes}
    tiny = tiny_pipelines()
    images, clips = (sum(name in served for name in names) for names in (IMAGES, CLIPS))
    lines = [
        "# Pipelines",
        "",
        "`SelfCascade(pipe)` drives a pipeline of diffusers through a family, a small class that states what differs. "
        f"{len(served)} classes are supported: {images} of the {len(IMAGES)} in `AutoPipelineForText2Image`, and "
        f"{clips} of the {len(CLIPS)} that make clips from a prompt alone.",
        "",
        "The latter are counted by a rule: the class name ends in `Pipeline` and does not mention a picture or clip to "
        "start from, and its call has a `prompt` and a length (`num_frames`, `frames` or `video_length`) and requires "
        "nothing else.",
        "",
        "Each class is built with random weights from a small copy of its own configuration, with tables of positions "
        "as tight as the published ones (but for AuraFlow's), and checked (`tests/test_variants.py`):",
        "",
        "- One stage is the plain pipeline, bit for bit.",
        '- Presets `rgb` to 1.5 x 2 native sides, `quality` to 2 x 2, `fast`, and `paper` to 4 x 4 ("4x") run.',
        '- The pipeline is as it was before, after successes, an error and an interruption within a stage ("stops": '
        "only where its call takes `callback_on_step_end`).",
        "",
        "The twin is the pipeline of diffusers that starts from a picture or clip with a `strength`. A stage above the "
        "base is the same as that, bit for bit (`tests/test_twins.py`, `tests/test_parity.py`).",
        "",
        "An IP-Adapter's picture, or its embeddings, act at every stage: one stage is the plain pipeline with them, "
        "and a stage above the base is the twin with them, if that takes them (`tests/test_ip_adapters.py`).",
        "",
        "A class that is not in the table takes a few lines: see [below](#a-class-of-your-own).",
        "",
        "| class | family | makes | checks passed | twin | IP-Adapter | limits | notes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, family in sorted(served.items()):
        entries = tiny.get(name, [])
        twin = next((f"`{entry.twin.__name__}`" for entry in entries if entry.twin), "-")
        cells = (f"`{name}`", f"`{family.__name__}`", "clips" if family.video else "pictures")
        cells += (checks(name, entries), twin, ip_adapter(name), limits(family, entries), notes(family, entries))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Not supported", "", "| class | why, and what to use |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in sorted(UNSERVED.items())]
    return "\n".join(lines) + f"\n\n{OWN}"


if __name__ == "__main__":
    PAGE.write_text(page())
