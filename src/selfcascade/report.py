"""The report of all results: tables as the paper's, pictures of every method, and a page to browse them."""

from __future__ import annotations

import base64
import html
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from PIL import Image

from selfcascade.files import write_whole

ORDER = (
    "direct",
    "attn-sf",
    "scalecrafter",
    "hidiffusion",
    "full-ft",
    "lora-r32",
    "lora-r4",
    "lanczos",
    "sr",
    "restart-late",
    "self-cascade-paper",
    "self-cascade-rgb",
    "tuned-micro",
    "tuned-full",
)
# Guo et al. 2024, Tables 1 and 2: FID_r, KID_r, pFID_r, pKID_r, FID_b, KID_b; Stable Diffusion 2.1 on LAION-5B.
PAPER: dict[str, dict[str, tuple[float, ...]]] = {
    "table1": {
        "direct": (29.89, 0.010, 20.88, 0.0070, 24.21, 0.007),
        "attn-sf": (29.95, 0.010, 21.07, 0.0072, 22.75, 0.007),
        "scalecrafter": (20.88, 0.008, 21.00, 0.0071, 16.67, 0.005),
        "self-cascade-paper": (12.25, 0.004, 19.59, 0.0071, 6.09, 0.001),
        "full-ft": (21.88, 0.007, 19.33, 0.0077, 17.14, 0.005),
        "lora-r32": (17.02, 0.005, 18.65, 0.0076, 11.33, 0.003),
        "lora-r4": (14.74, 0.005, 18.06, 0.0074, 9.47, 0.002),
        "tuned-micro": (12.40, 0.004, 15.35, 0.0058, 3.15, 0.0005),
    },
    "table2": {
        "direct": (104.70, 0.043, 104.10, 0.040),
        "attn-sf": (104.34, 0.043, 103.61, 0.041),
        "scalecrafter": (59.40, 0.021, 57.26, 0.018),
        "self-cascade-paper": (38.99, 0.015, 34.73, 0.013),
        "full-ft": (43.55, 0.014, 41.58, 0.012),
        "lora-r4": (50.72, 0.020, 51.99, 0.019),
        "tuned-micro": (18.46, 0.005, 8.99, 0.001),
    },
}
TEMPLATE = Path(__file__).with_name("report.html")
DISTANCES = ("fid", "kid", "patch_fid", "patch_kid", "fid_b", "kid_b")
TITLES = {"table1": "4x the pixels (the paper's Table 1)", "table2": "16x the pixels (the paper's Table 2)"}


@dataclass
class Row:
    """One method in one table: its result with each seed, and its pictures."""

    method: str
    results: list[dict[str, Any]] = field(default_factory=list)
    sheet: Path | None = None

    def figure(self, value: Any, digits: int = 3) -> str:
        """Mean over the seeds, and their standard deviation where there are several; `value` reads one result."""
        try:
            values = [float(value(result)) for result in self.results]
        except KeyError:
            return "-"
        spread = f" ± {stdev(values):.{digits}g}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}g}{spread}"


def read_rows(suite: Path) -> list[Row]:
    """The rows of a suite, those of the paper first and in its order: the last training step, the most pictures."""
    rows: dict[str, Row] = {}
    for folder in sorted((suite / "results").glob("*/seed-*")):
        last: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.glob("*.json")):
            result = json.loads(path.read_text())
            name, place = result["sampling"]["name"], (result["step"], result["pictures"])
            if name not in last or place > (last[name]["step"], last[name]["pictures"]):
                last[name] = result
        for name, result in last.items():
            several = len(last) > 1
            method = f"{folder.parent.name}, {name}" if several else folder.parent.name
            row = rows.setdefault(method, Row(method))
            row.results.append(result)
            sheet = folder / f"{name}-step{result['step']:06d}.webp"
            row.sheet = row.sheet or (sheet if sheet.exists() else None)
    known = {name: place for place, name in enumerate(ORDER)}
    return sorted(rows.values(), key=lambda row: (known.get(row.method.split(",")[0], len(known)), row.method))


def table(suite: str, rows: list[Row]) -> str:
    """The rows as Markdown, ours beside the paper's."""
    paper = PAPER.get(suite, {})
    direct = next((row for row in rows if row.method == "direct"), None)
    head = ["method", "trained", "pictures", "all right, %", "repeats, %", "detail", "FID", "KID"]
    head += ["patch FID", "patch KID", "FID_b", "KID_b", "s a picture", *(["FID, paper"] if paper else [])]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [
            row.method,
            f"{row.results[0]['trained_parameters']:,}" if row.results[0]["trained_parameters"] else "-",
        ]
        cells.append(" + ".join(str(result["pictures"]) for result in row.results))
        cells.append(row.figure(lambda result: 100 * result["composition"]["all"]))
        cells.append(row.figure(lambda result: 100 * result["repetition"]["share_over_real"]))
        cells.append(row.figure(lambda result: result["detail"][0]))
        cells += [row.figure(lambda result, name=name: result[name][0]) for name in DISTANCES]
        seconds = row.figure(lambda result: result["seconds_per_picture"], 2)
        if direct is not None and seconds != "-":
            own, base = (mean(r["seconds_per_picture"] for r in one.results) for one in (row, direct))
            seconds += f" ({own / base:.2f}x)"
        cells.append(seconds)
        if paper:
            cells.append(f"{paper[row.method][0]:.4g}" if row.method in paper else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def grid(rows: list[Row], columns: int, side: int) -> Image.Image | None:
    """One method a row, one caption a column, from the methods' sheets."""
    shown = [row for row in rows if row.sheet is not None]
    if not shown:
        return None
    picture = Image.new("RGB", (columns * side, len(shown) * side), "white")
    for line, row in enumerate(shown):
        sheet, count = _sheet(row)
        width = sheet.width // count
        factor = side / max(width, sheet.height)
        for column in range(min(columns, count)):
            part = sheet.crop((column * width, 0, (column + 1) * width, sheet.height))
            size = (round(factor * width), round(factor * sheet.height))
            picture.paste(part.resize(size, Image.Resampling.LANCZOS), (column * side, line * side))
    return picture


def _sheet(row: Row) -> tuple[Image.Image, int]:
    """A method's pictures side by side, and how many they are."""
    path: Any = row.sheet
    return Image.open(path), len(path.with_suffix(".txt").read_text().splitlines())


def page(tables: dict[str, list[Row]]) -> str:
    """One self-contained HTML page: method x caption, each picture to be looked at in its own pixels."""
    sections, styles = [], []
    for suite, rows in tables.items():
        shown = [row for row in rows if row.sheet is not None]
        if not shown:
            continue
        captions = shown[0].sheet.with_suffix(".txt").read_text().splitlines()  # type: ignore[union-attr]
        head = "".join(f"<th>{html.escape(words)}</th>" for words in captions)
        body = []
        for number, row in enumerate(shown):
            sheet, count = _sheet(row)
            ratio = f"{sheet.width / count / sheet.height:.4f}"
            data = base64.b64encode(row.sheet.read_bytes()).decode()  # type: ignore[union-attr]
            styles.append(f".{suite}-{number}{{background-image:url(data:image/webp;base64,{data})}}")
            score = row.figure(lambda result: 100 * result["composition"]["all"])
            cells = "".join(
                f'<td><button class="{suite}-{number}" style="--column:{column};--count:{count};--ratio:{ratio}" '
                f'aria-label="{html.escape(row.method)}: {html.escape(words)}"></button></td>'
                for column, words in enumerate(captions)
            )
            body.append(f"<tr><th>{html.escape(row.method)}<small>{score} % right</small></th>{cells}</tr>")
        title = html.escape(TITLES.get(suite, suite))
        sections.append(
            f"<section><h2>{title}</h2><div class=scroll><table><thead><tr><th></th>{head}</tr></thead>"
            f"<tbody>{''.join(body)}</tbody></table></div></section>"
        )
    return TEMPLATE.read_text().replace("STYLES", "\n".join(styles)).replace("SECTIONS", "\n".join(sections))


def write_report(experiments: Path, output: Path) -> list[Path]:
    """Writes `README.md`, a picture grid a table and `index.html`; the files are returned.

    Args:
        experiments: Folder of suites.
        output: Made if it is missing.

    Raises:
        ValueError: There is no result in it.
    """
    tables: dict[str, list[Row]] = defaultdict(list)
    for suite in sorted(path.parent for path in experiments.glob("*/results")):
        tables[suite.name] = read_rows(suite)
    if not any(tables.values()):
        raise ValueError(f"experiments {str(experiments)!r} hold no results; make them with `selfcascade evaluate`")
    output.mkdir(parents=True, exist_ok=True)
    lines, written = [HEAD], []
    for suite, rows in tables.items():
        lines += [f"## {TITLES.get(suite, suite)}", "", table(suite, rows), ""]
        picture = grid(rows, 8, 128)
        if picture is not None:
            path = output / f"{suite}.webp"
            write_whole(path, lambda aside, picture=picture: picture.save(aside, format="WEBP", quality=80, method=6))
            names = ", ".join(row.method for row in rows if row.sheet is not None)
            lines += [f"![First pictures of each method]({suite}.webp)", "", f"From the top: {names}.", ""]
            written.append(path)
    for name, text in (("README.md", "\n".join(lines)), ("index.html", page(tables))):
        write_whole(output / name, lambda aside, text=text: aside.write_text(text))
        written.append(output / name)
    return written


HEAD = """# Results

Written by `make report` from the JSON files in `experiments/*/results`; what each figure means is in
[evaluation.md](../evaluation.md). Ours are of the *bundled model* on procedural scenes, the paper's of Stable Diffusion
2.1 on LAION-5B: another model, other data, other detectors, so only the *order* of the methods compares. Several seeds:
mean ± standard deviation. [index.html](index.html) shows all methods side by side.
"""
