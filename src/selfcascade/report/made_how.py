"""How the results were made: by which protocol, which would be different now, and what their figures can see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfcascade.evaluation.provenance import OLD, protocol_of, unlike, weight_files
from selfcascade.evaluation.revisions import PROTOCOL
from selfcascade.options.json_files import read_object
from selfcascade.report.results import read_result
from selfcascade.report.tables import markdown

PLACES = ("results", "tuning", "validation", "test")
LADDER_HEAD = ("damage", "all right, %", "repeats, %", "repetition", "KID", "patch KID", "detail, finest first")


def conditions(experiments: Path) -> str:
    """Counts the results of each protocol, and lists those that the present code or weights would not make.

    Raises:
        ValueError: A result cannot be read.
    """
    counts: dict[str, int] = {}
    lines, unknown = [], 0
    for path in sorted(path for place in PLACES for path in experiments.glob(f"*/{place}/*/seed-*/*.json")):
        result = read_result(path)
        counts[protocol_of(result)] = counts.get(protocol_of(result), 0) + 1
        present = _present_weights(result)
        unknown += bool(_weights_of(result) - set(present))
        differs = unlike(result, present)
        if differs is not None:
            lines.append([f"`{path.relative_to(experiments)}`", differs])
    words = ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
    text = f"{words}. {WHICH.format(old=OLD, now=PROTOCOL)}"
    if unknown:
        text += f"\nThe weights of {unknown} results are not here, and were not compared.\n"
    if not lines:
        return f"{text}\nNo result is known to differ from what the present code and weights would make.\n"
    return f"{text}\n\n{markdown(['made otherwise than now; delete it and make it again', 'by'], lines)}\n"


WHICH = """Results of {old} are from before there were sets of captions. Presets were chosen on the captions that they
are of, no real samples stand beside them, and nothing is kept of single pictures, so no test can be made. Under
"Tables", those without a row of real samples are of these. Those of protocol {now} are above.
"""


def ladder(path: Path) -> str:
    """What each figure says of damaged real renders, as `experiments/damages.py` measured it. "" if it did not.

    Raises:
        ValueError: The file cannot be read.
    """
    if not path.is_file():
        return ""
    held = read_object(path, "damages")
    lines = []
    for name, own in held["damages"].items():
        detail = ", ".join(f"{octave:.2f}" for octave in own["detail"])
        read = [f"{100 * own['composition']:.0f}", f"{100 * own['share_over_real']:.0f}", f"{own['repetition']:.3f}"]
        lines.append([name, *read, f"{own['kid']:.4f}", f"{own['patch_kid']:.3f}", detail])
    return f"{LADDER.format(**held)}\n{markdown(LADDER_HEAD, lines)}\n"


LADDER = """{pictures} real renders of {side} pixels, damaged (`python experiments/damages.py`). Blur: sigma in pixels.
Noise and mesh: standard deviation and amplitude, of 1. Shreds: strips moved by that share of the width. Repeats: the
picture so many times a side. A figure that a kind of damage does not move cannot see that flaw.
"""


def _weights_of(result: dict[str, Any]) -> set[str]:
    """Files that the result names; weights that it was trained with are in none."""
    return set((result.get("made_by") or {}).get("weights", {})) - {"trained"}


def _present_weights(result: dict[str, Any]) -> dict[str, str]:
    settings = result.get("settings", {})
    given = (result["sampling"].get(name) for name in ("weights", "pivot_upscaler"))
    return weight_files(settings.get("model", ""), settings.get("upsamplers"), *given)
