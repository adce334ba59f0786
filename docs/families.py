"""The table of pipeline classes: which are served, how each is tested, and why the others are not.

    python docs/families.py

writes docs/families.md.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, get_type_hints

from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

from selfcascade.base_models import FAMILIES, UNSERVED

PAGE = Path(__file__).with_suffix(".md")
TESTS = Path(__file__).parents[1] / "tests"
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


def page() -> str:
    """The whole page."""
    served = {name: family for family in FAMILIES for name in family.classes}
    tiny = tiny_pipelines()
    images = [kind.__name__ for kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()]
    count = sum(name in served for name in images)
    lines = [
        "# Pipelines",
        "",
        "`SelfCascade(pipe)` drives a pipeline of diffusers through a family, a small class that says what differs. "
        f"{len(served)} classes are served; of the {len(images)} of `AutoPipelineForText2Image` it is {count}.",
        "",
        "Each class under contract is built with random weights from a small copy of its own configuration. One stage "
        "then is the plain pipeline, bit for bit; cascades to other ratios and to four times a side run, as far as its "
        "positions reach; the pipeline is left as it was. With a twin, a stage above the base is the image-to-image or "
        "video-to-video pipeline of diffusers, bit for bit. Any other class takes a few lines: see "
        "`selfcascade.Family` and `register_family`.",
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
    lines += ["", "## Not served", "", "| class | why, and what to use |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in sorted(UNSERVED.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
