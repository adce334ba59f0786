"""Writes the whole report into one folder, from committed files only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from selfcascade.media.save_pictures import WEBP_SIDE, check_place
from selfcascade.media.whole_files import write_whole
from selfcascade.options.checks import joined
from selfcascade.report.claims import verdicts
from selfcascade.report.frontier import quality_beside_cost
from selfcascade.report.made_how import conditions, ladder
from selfcascade.report.page import page
from selfcascade.report.paper import PAPER, TITLES, paper_rows
from selfcascade.report.pictures import Shown, grid, hardest, moments, of_one_size, shown, shown_size
from selfcascade.report.plots import clips_against_training, quality_against_cost, quality_against_training
from selfcascade.report.results import ReportConfig, Row, read_config, read_result, read_splits, read_tables
from selfcascade.report.statements import HOW as HOW_TOLD
from selfcascade.report.statements import compare_all, in_worlds, split_table, statements, truth_table
from selfcascade.report.tables import Costs, read_costs, seeds_table, table

GRID_WIDTH, FEWEST, MOST = 1100, 4, 6  # approximate width of a grid in pixels, and range of its number of pictures
FIRST = 10  # statements that are not folded
CURVES, FREE = "training-curves", ("tuning-free", "K600-rgb")
FREE_OF_CLIPS, CLIPS_SHOWN = "self-cascade-rgb", 2
HEAD = """# Results

`make report` writes this page from the results in `experiments`. [Evaluation](../evaluation.md) defines
the figures. **Ours are for {models} on {data}. The paper's, in italics below ours, are for Stable
Diffusion 2.1 on LAION-5B: another model, other data, other detectors.** Compare only the *order* of the methods.
[index.html](index.html) shows the pictures of all methods side by side, and enlarges them.
"""
OURS = {"bundled": "the bundled model", "bundled-video": "the bundled model", "scenes": "procedural scenes"}
HOW = """Pictures: per seed x seeds. Figures: mean over the seeds ± standard deviation. A seed determines captions and
noise; in rows that were trained here, it is the training's, on the same captions. "-": not measured.
Repeats: share of pictures that repeat more than 95 % of real ones do. Detail: energy of the finest octave; 1 is right.
"""


def write_report(experiments: Path, output: Path, costs: Path | None = None) -> list[Path]:
    """Writes `README.md` with its plots and picture grids, and `index.html`; returns the files.

    Args:
        experiments: Folder of suites, optionally with `report.json` and `findings.md`.
        output: Output folder, made if it is missing.
        costs: JSON of `benchmarks/methods.py`, measured on the same model as the results.

    Raises:
        ValueError: There are no results, a file cannot be read or written, or matplotlib is missing.
    """
    check_place(output / "README.md")
    settings = read_config(experiments)
    splits = read_splits(experiments, settings)
    tables = read_tables(experiments, settings, may_lack=bool(splits))
    measured = None if costs is None else read_costs(costs)
    findings = experiments / "findings.md"
    lines = [_head([*tables.values(), *splits.values()]), *_first_page(experiments, settings, splits, measured)]
    lines += [findings.read_text() if findings.is_file() else "", "## Tables\n", HOW]
    pictures = {suite: shown(rows) for suite, rows in tables.items() if suite in (settings.page or tables)}
    written: list[Path] = []
    for suite, rows in tables.items():
        title = settings.titles.get(suite) or TITLES.get(suite, suite)
        lines += [f"## {title}\n", OF_CLIPS if rows[0].clips else "", table(suite, rows, measured), ""]
        if paper_rows(suite):
            lines += [_folded("Every seed, with 95 % intervals", SEEDS + seeds_table(rows)), ""]
        if suite == CURVES:
            lines += _curves(experiments, output, written)
        if rows[0].clips:
            lines += _clip_curves(experiments, suite, rows, output, written)
            lines += _clip_grids(suite, pictures.get(suite, []), output, written)
        else:
            lines += _grids(suite, pictures.get(suite, []), output, written)
    beside = output / "quality-beside-cost.webp"
    found = quality_beside_cost(splits or tables, measured, beside)
    written += [beside] if found else []
    lines += found
    if measured is not None:
        lines += _costs(tables, measured, output, written)
    texts = {"README.md": "\n".join(lines)}
    paged = {suite: rows for suite, rows in pictures.items() if rows}
    if paged:
        texts["index.html"] = page(paged)
    for name, text in texts.items():
        write_whole(output / name, lambda aside, text=text: aside.write_text(text))
        written.append(output / name)
    return written


def _head(tables: Sequence[Sequence[Row]]) -> str:
    """The first lines, with the models and data of all results."""
    results = [result for rows in tables for row in rows for result in row.results]
    settings = [result.get("settings", {}) for result in results]
    models = {OURS.get(model, model) for model in (str(own.get("model", "bundled")) for own in settings)}
    data = {OURS.get(name, name) for name in (str(own.get("data", "scenes")) for own in settings)}
    if "procedural scenes" in data:
        data -= {"moving-scenes"}
    return HEAD.format(models=joined(sorted(models), "and"), data=joined(sorted(data), "and"))


def _first_page(
    experiments: Path, settings: ReportConfig, splits: Mapping[str, Sequence[Row]], costs: Costs | None
) -> list[str]:
    """Statements, verdicts, how results were made, and tables of sets of captions; nothing of what there is none of."""
    lines: list[str] = []
    if settings.statements:
        found = compare_all(settings.statements, splits, settings.worlds)
        lines += [f"## Statements\n\n{HOW_TOLD}", statements(found[:FIRST])]
        if found[FIRST:]:
            lines += [_folded("More comparisons", statements(found[FIRST:])), ""]
        repeated = in_worlds(found)
        lines += ["## Which statements hold in which world\n", repeated] if repeated else []
        lines += ["## The paper's claims\n", verdicts(splits, costs), ""]
    for name, rows in splits.items():
        true = any("psnr" in result for result in rows[0].results)
        words = "True small pictures, enlarged, against the true large ones.\n" if true else UNBIASED
        lines += [f"## {name}\n", words, (truth_table if true else split_table)(rows), ""]
    seen = ladder(experiments / "damages.json")
    if seen:
        lines += ["## What the figures can see\n", seen]
    return [*lines, "## How results were made\n", conditions(experiments)]


UNBIASED = """The distances have no bias of small numbers. *Real samples* are renders of the captions' own scenes.
"""
SEEDS = """All right, or motion right: Wilson's interval. Others: the middle 95 % of a bootstrap over pictures or
clips. The fewer the pictures, the larger the distances.

"""


def _grids(suite: str, rows: Sequence[Shown], output: Path, written: list[Path]) -> list[str]:
    """Grids of a suite's first captions, and of the hardest ones if the reader can tell."""
    lines: list[str] = []
    for (height, width), own in of_one_size(rows).items():
        wanted = max(FEWEST, min(MOST, GRID_WIDTH // shown_size(own[0])[0]))
        count = min(wanted, *(len(row.pictures) for row in own))
        place = f"{suite}-{height}x{width}"
        chosen = {"first": (list(range(count)), "The first captions; methods from top to bottom as in the table.")}
        if suite in PAPER and any(row.wrong is not None for row in own):
            words = f"The captions that most methods get wrong, worst first, of the first {len(hardest(own))}."
            chosen["hardest"] = (hardest(own)[:count], words)
        for name, (columns, words) in chosen.items():
            path = output / f"{place}-{name}.webp"
            _save(grid(own, columns), path)
            written.append(path)
            lines += [f"{words} {READ if own[0].wrong is not None else ''}\n", f"![{words}]({path.name})\n"]
    return lines


READ = "Under each picture: attributes that the composition reader reads otherwise than asked."


def _curves(experiments: Path, output: Path, written: list[Path]) -> list[str]:
    """The plot of quality over training, from all results of the suite."""
    suite, sampling = FREE
    path = output / f"{CURVES}.webp"
    if not quality_against_training(_results(experiments, CURVES), _results(experiments, suite, sampling), path):
        return []
    written.append(path)
    return [f"![Composition and patch FID over training steps and seconds]({path.name})\n"]


def _results(experiments: Path, suite: str, sampling: str = "*") -> list[dict[str, Any]]:
    """All results of a suite, for one sampling or all."""
    return [read_result(path) for path in sorted((experiments / suite / "results").rglob(f"{sampling}-step*.json"))]


OF_CLIPS = """[Metrics of clips](../video_metrics.md) defines these figures. The paper's are for LVDM on WebVid-10M, in
features of I3D; ours are in features of the bundled video detector. `base` is the native clips, against real clips of
their size; no method can be expected to keep more motion. Change, patch change, flicker: 1 is as in real clips. The
clips move, side by side, in [index.html](index.html).
"""


def _clip_curves(experiments: Path, suite: str, rows: Sequence[Row], output: Path, written: list[Path]) -> list[str]:
    """The plot of figures over training, if a training was measured more than once."""
    path = output / f"{suite}-training.webp"
    free = next((row for row in rows if row.method == FREE_OF_CLIPS), None)
    if not clips_against_training(_results(experiments, suite), free, path):
        return []
    written.append(path)
    return [f"![FVD, patch FID of frames and motion over training steps]({path.name})\n"]


def _clip_grids(suite: str, rows: Sequence[Shown], output: Path, written: list[Path]) -> list[str]:
    """Grids of the first clips' frames."""
    lines: list[str] = []
    for (height, width), own in of_one_size(rows).items():
        for index in range(min([CLIPS_SHOWN, *(len(row.captions) for row in own)])):
            path = output / f"{suite}-{height}x{width}-clip{index + 1}.webp"
            _save(grid([moments(row, index, MOST) for row in own], range(MOST)), path)
            written.append(path)
            words = f'Clip {index + 1}, "{own[0].captions[index]}"; methods from top to bottom as in the table.'
            lines += [f"{words}\n", f"![{words}]({path.name})\n"]
    return lines


def _costs(tables: Mapping[str, Sequence[Row]], costs: Costs, output: Path, written: list[Path]) -> list[str]:
    """The tables of costs, and the plot of quality over cost."""
    lines = ["## Cost\n", COST.format(**costs.measured)]
    for pixels in costs.pixels:
        lines += [f"### {pixels}x the pixels\n", costs.table(pixels), ""]
    path = output / "quality-against-cost.webp"
    plotted = {TITLES[suite]: rows for suite, rows in tables.items() if suite in PAPER}
    if quality_against_cost(plotted, costs, path):
        written.append(path)
        lines += [f"![Quality over TFLOPs of one picture]({path.name})\n"]
    return lines


COST = """One picture of the bundled model from prompt to pixels, {steps} steps, guidance {guidance_scale}, by
`python benchmarks/methods.py`, which says how each figure is measured.
"""


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _save(picture: Image.Image, path: Path) -> None:
    settings: dict[str, Any] = {"format": "WEBP", "quality": 60, "method": 6}
    picture.thumbnail((WEBP_SIDE, WEBP_SIDE))
    write_whole(path, lambda aside: picture.save(aside, **settings))
