"""Writes the tables of docs/presets.md.

They come from the results in `levers`, and from `presets-4x` and `presets-16x`.

python experiments/levers.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curves import FLOORS

from selfcascade import SelfCascade, load_bundled
from selfcascade.evaluation import Sampling
from selfcascade.evaluation.tflops import planned_tflops
from selfcascade.media.whole_files import write_whole
from selfcascade.report.comparisons import NAMES, Rows, p_of
from selfcascade.report.results import ReportConfig, Row, read_splits

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "presets.md"
TITLES = {4: "16x the pixels (4x a side)", 2: "4x the pixels (2x a side)"}
HEAD = (
    "| | pictures | K | anchor | energy | steps | guidance | all right | FID | patch FID (95 %) | patch KID | FID_b "
    "| detail | repetition | TFLOPs | seconds |"
)
START, END = "<!-- tables: experiments/levers.py -->", "<!-- end of tables -->"
CHOSEN_START, CHOSEN_END = "<!-- presets: experiments/levers.py -->", "<!-- end of presets -->"
CHOSEN_TITLES = {"presets-4x": "4x the pixels", "presets-16x": "16x the pixels"}
CHOSEN = {
    "paper": "`paper`",
    "quality-full": "`quality` before",
    "quality-local-10": "**`quality`**",
    "fast-full": "`fast` before",
    "quality-local-4-unguided": "**`fast`**",
    "tuned-micro-700": "`micro` in `quality`, K = 700",
    "tuned-micro-850": "`micro` in `quality`, K = 850",
    "tuned-full-850": "`full` in `quality`, K = 850",
    **FLOORS,
}
CHOSEN_HEAD = (
    "| | all right | patch KID | detail | TFLOPs | against `quality` | against `quality` before "
    "| against `fast` before | against `paper` |"
)


def results(suite: str) -> list[dict[str, Any]]:
    """The results of a suite's first seed."""
    return [json.loads(path.read_text()) for path in sorted((HERE / suite / "results").glob("*/seed-0/*.json"))]


def row(cascade: SelfCascade, result: dict[str, Any]) -> str:
    """One line of the table."""
    how = result["sampling"]
    value, low, high = result["patch_fid"]
    cells = [
        f"`{how['name']}`",
        str(result["pictures"]),
        *settings(how),
        f"{100 * result['composition']['all']:.0f} %",
        f"{result['fid'][0]:.3f}",
        f"{value:.1f} ({low:.1f} to {high:.1f})",
        f"{result['patch_kid'][0]:.3f}",
        f"{result['fid_b'][0]:.3f}",
        " / ".join(f"{octave:.2f}" for octave in result["detail"]),
        f"{result['repetition']['mean']:.3f}" if "repetition" in result else "",
        counted(cascade, how),
        f"{result['seconds_per_picture']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def settings(how: dict[str, Any]) -> list[str]:
    """K, anchor, energy, steps and guidance; values from the preset or method are left empty."""
    return [
        _shown(how["pivot_step"]),
        _shown(how.get("anchor")),
        _shown(how.get("energy")),
        _shown(how["num_inference_steps"]),
        _shown(how["guidance_scale"]),
    ]


def counted(cascade: SelfCascade, how: dict[str, Any]) -> str:
    """TFLOPs of a sample, without the upsamplers' own work; for methods that are a cascade."""
    sampling = Sampling(**{name: value for name, value in how.items() if name != "name"})
    found = planned_tflops(cascade.pipe, sampling) if sampling.method == "self-cascade" else None
    return "" if found is None else f"{found:.3f}"


def table(cascade: SelfCascade, scale: int) -> str:
    """All rows at this scale, best patch KID first, since it is not biased for few pictures."""
    own = [result for result in results("levers") if result["sampling"]["scale"] == scale]
    found = sorted(own, key=lambda result: result["patch_kid"][0])
    lines = [f"### {TITLES[scale]}", "", HEAD, f"|{'---|' * (HEAD.count('|') - 1)}"]
    return "\n".join([*lines, *(row(cascade, result) for result in found)])


def tables(cascade: SelfCascade) -> str:
    """All tables of the page."""
    return "\n\n".join(table(cascade, scale) for scale in TITLES)


def chosen_table(cascade: SelfCascade, suite: str, split: str, rows: list[Row]) -> str:
    """The rows by which the presets were chosen on one set of captions, with paired tests."""
    found, records = {row.method: row for row in rows}, Rows.of(rows)
    count = rows[0].results[0]["pictures"]
    lines = [f"#### {CHOSEN_TITLES[suite]}, {count} {split} captions", "", CHOSEN_HEAD]
    lines.append(f"|{'---|' * (CHOSEN_HEAD.count('|') - 1)}")
    for name, shown in CHOSEN.items():
        if name not in found:
            continue
        (result,) = found[name].results
        cells = [
            shown,
            f"{100 * result['composition']['all']:.1f} %",
            f"{result['patch_kid'][0]:.3f}",
            " / ".join(f"{octave:.2f}" for octave in result["detail"]),
            counted(cascade, result["sampling"]),
            *(_told(records, name, other) for other in ("quality-local-10", "quality-full", "fast-full", "paper")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def chosen_tables(cascade: SelfCascade) -> str:
    """The tables of both suites, on every set of captions that was measured."""
    held = read_splits(HERE, ReportConfig())
    places = [(suite, split) for suite in CHOSEN_TITLES for split in ("validation", "test")]
    texts = [
        chosen_table(cascade, suite, split, list(held[f"{suite}/{split}"]))
        for suite, split in places
        if f"{suite}/{split}" in held
    ]
    return "\n\n".join(texts)


def with_tables(page: str, text: str, start: str = START, end: str = END) -> str:
    """The page with this text between two marks."""
    before, _, rest = page.partition(start)
    return f"{before}{start}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def written(page: str, cascade: SelfCascade) -> str:
    """The page with all its tables."""
    return with_tables(with_tables(page, tables(cascade)), chosen_tables(cascade), CHOSEN_START, CHOSEN_END)


def main() -> None:
    """Writes the tables."""
    text = written(PAGE.read_text(), SelfCascade(load_bundled()))
    write_whole(PAGE, lambda aside: aside.write_text(text))


def _told(records: Rows, name: str, other: str) -> str:
    told = (
        []
        if name in (other, "real")
        else [records.told(name, other, figure) for figure in ("composition", "patch_kid")]
    )
    return ", ".join(f"{NAMES[one.figure]} {one.word} (p {p_of(one.comparison)})" for one in told if one is not None)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{one:g}" for one in value)
    return "" if value is None else f"{value:g}"


if __name__ == "__main__":
    main()
