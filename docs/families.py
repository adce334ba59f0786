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
from typing import Any, get_type_hints

import diffusers
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

from selfcascade.base_models import FAMILIES, UNSERVED

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
LENGTHS = {"num_frames", "frames", "video_length"}
NOT_OF_TEXT = re.compile("ImageToVideo|Image2Video|VideoToVideo|VideoToWorld|(?<!T)I2V|Inpaint|Upsample")
NETWORKS = {"unet": "U-Net", "dit": "transformer"}


def tiny_pipelines() -> dict[str, list[Any]]:
    """The entries of the tests' registries by the class of their pipeline."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    registry = importlib.import_module("tiny.everything").EVERYTHING
    found: dict[str, list[Any]] = {}
    for entry in registry:
        made = get_type_hints(entry.make)["return"].__name__
        found.setdefault(entry.name if made == "DiffusionPipeline" else made, []).append(entry)
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


def page() -> str:
    """The whole page."""
    served = {name: family for family in FAMILIES for name in family.classes}
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
        "The contract tests build each class with random weights from a small copy of its configuration. They check "
        "that one stage equals the plain pipeline, bit for bit; that cascades to other ratios and to 4x a side run, as "
        "far as the model has positions; and that the pipeline is left unchanged. If diffusers has an image-to-image "
        "or video-to-video pipeline for the model (a twin), a stage above the base must equal it, bit for bit. Support "
        "for another class takes a few lines: see `selfcascade.Family` and `register_family`.",
        "",
        "| class | family | makes | network | contract | twin |",
        "|---|---|---|---|---|---|",
    ]
    for name, family in sorted(served.items()):
        entries = tiny.get(name, [])
        network = NETWORKS[entries[0].kind] if entries else "-"
        contract, twin = (["-", "yes"][flag] for flag in (bool(entries), any(entry.twin for entry in entries)))
        makes = "clips" if family.video else "pictures"
        lines.append(f"| `{name}` | `{family.__name__}` | {makes} | {network} | {contract} | {twin} |")
    lines += ["", "## Not supported", "", "| class | why, and what to use |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in sorted(UNSERVED.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
