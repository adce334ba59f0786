"""Writes the tables of docs/upsamplers.md from the results; the curves themselves are in docs/results.

python experiments/curves.py
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from selfcascade.media.whole_files import write_whole
from selfcascade.report.comparisons import COMPOSITION, NAMES, Rows, p_of
from selfcascade.report.results import Row, read_config, read_splits

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"


def results(suite: str) -> list[dict[str, Any]]:
    """All results of a suite."""
    return [json.loads(path.read_text()) for path in sorted((HERE / suite / "results").rglob("*.json"))]


def end_points(found: list[dict[str, Any]]) -> str:
    """The methods at their last step, with the largest number of pictures, as Markdown; one line for each seed."""
    last: dict[tuple, dict[str, Any]] = {}
    for row in found:
        key = (row["experiment"], row["sampling"]["name"], row["seed"])
        if key not in last or (row["step"], row["pictures"]) > (last[key]["step"], last[key]["pictures"]):
            last[key] = row
    lines = [
        "| method | how sampled | K, pivot | seed | steps | pictures | all right "
        "| FID | patch FID (95 % interval) | patch KID |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, _, seed), row in sorted(last.items(), key=lambda item: item[1]["patch_fid"][0]):
        if row["pictures"] < 200:
            continue
        how = row["sampling"]
        pivot = "-" if how["method"] == "direct" else f"{how['pivot_step']}, {how['upsampling']}"
        method = "tuning-free" if name == "pivot" else name
        kind = "direct" if how["method"] == "direct" else "cascade"
        value, low, high = row["patch_fid"]
        lines.append(
            f"| {method} | {kind} | {pivot} | {seed if row['step'] else '-'} | {row['step']} | {row['pictures']} "
            f"| {100 * row['composition']['all']:.1f} % | {row['fid'][0]:.3f} | {value:.2f} ({low:.2f} to {high:.2f}) "
            f"| {row['patch_kid'][0]:.4f} |"
        )
    return "\n".join(lines)


def seeds(found: list[dict[str, Any]], step: int = 400, pictures: int = 100) -> str:
    """The methods after this many steps with each training seed, as Markdown."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        if (row["step"], row["pictures"]) == (step, pictures):
            rows[row["experiment"], row["sampling"]["name"]].append(row)
    lines = ["| method | how sampled | all right, each seed | patch FID, each seed | mean |", "|---|---|---|---|---|"]
    distance = {key: mean(row["patch_fid"][0] for row in own) for key, own in rows.items()}
    for name, sampling in sorted(rows, key=lambda key: distance[key]):
        own = sorted(rows[name, sampling], key=lambda row: row["seed"])
        right = ", ".join(f"{100 * row['composition']['all']:.0f}" for row in own)
        each = ", ".join(f"{row['patch_fid'][0]:.2f}" for row in own)
        lines.append(f"| {name} | {sampling} | {right} % | {each} | {distance[name, sampling]:.2f} |")
    return "\n".join(lines)


def pivot_steps(found: list[dict[str, Any]]) -> str:
    """Composition and patch FID at each K, tuning-free and tuned, as Markdown."""
    names = {"pivot-step-rgb": "tuning-free", "tuned-micro": "`micro`", "tuned-full": "`full`"}
    cells: dict[int, dict[str, str]] = defaultdict(dict)
    for row in found:
        right, distance = 100 * row["composition"]["all"], row["patch_fid"][0]
        cells[row["sampling"]["pivot_step"]][row["experiment"]] = f"{right:.0f} %, {distance:.2f}"
    lines = [f"| K | {' | '.join(names.values())} |", "|---" * (1 + len(names)) + "|"]
    lines += [f"| {step} | {' | '.join(own.get(name, '-') for name in names)} |" for step, own in sorted(cells.items())]
    return "\n".join(lines)


def designs(found: list[dict[str, Any]]) -> str:
    """The designs of `micro` that were tried, best first, as Markdown."""
    lines = ["| design | parameters | all right | patch FID (95 % interval) | patch KID |", "|---|---|---|---|---|"]
    for row in sorted(found, key=lambda row: row["patch_fid"][0]):
        value, low, high = row["patch_fid"]
        name = f"**{row['experiment']}**" if row["experiment"] == "micro" else row["experiment"]
        lines.append(
            f"| {name} | {row['trained_parameters']:,} | {100 * row['composition']['all']:.0f} % "
            f"| {value:.2f} ({low:.2f} to {high:.2f}) | {row['patch_kid'][0]:.3f} |"
        )
    return "\n".join(lines)


def compared(tables: Mapping[str, list[Row]], suite: str, names: dict[str, str], other: str) -> str:
    """Rows of a suite on test captions, or until these are measured on validation captions, each against one of them.

    Args:
        tables: Rows by "SUITE/SPLIT".
        suite: Its name.
        names: The rows, and what the page calls them.
        other: The row that they are compared with.
    """
    split = next((split for split in ("test", "validation") if f"{suite}/{split}" in tables), None)
    if split is None:
        return "Not measured yet."
    found = {row.method: row for row in tables[f"{suite}/{split}"]}
    records = Rows.of(list(found.values()))
    against = next(word for word in names[other].split(", ") if "`" in word)
    lines = [f"| method | {split} captions | all right | KID | patch KID | against {against} |", "|---" * 6 + "|"]
    for name, title in names.items():
        if name not in found:
            continue
        row = found[name]
        right = row.figure(lambda result: 100 * result["composition"]["all"])
        kid = row.figure(lambda result: result["kid"][0], 2)
        patch_kid = row.figure(lambda result: result["patch_kid"][0])
        steps = f", {row.steps:,} steps" if row.steps else ""
        told = [] if name in (other, "real") else [records.told(name, other, one) for one in (COMPOSITION, "patch_kid")]
        words = [f"{NAMES[one.figure]} {one.word} (p {p_of(one.comparison)})" for one in told if one is not None]
        lines.append(
            f"| {title}{steps} | {row.results[0]['pictures']} | {right} % | {kid} | {patch_kid} | {', '.join(words)} |"
        )
    return "\n".join(lines)


FLOORS = {"lanczos": "base samples, enlarged", "real": "real renders"}
SIXTEEN = {
    "self-cascade-paper": "tuning-free, `paper`",
    "self-cascade-rgb": "tuning-free, `rgb`",
    "self-cascade-quality": "tuning-free, `quality`",
    "tuned-micro": "`micro`",
    "tuned-full": "`full`",
    "sr": "super-resolver",
    **FLOORS,
}
TRAINED = {
    "tuned-micro": "`micro`",
    "tuned-full": "`full`",
    "tuned-micro-again": "`micro`, two more trainings",
    "tuned-full-again": "`full`, two more trainings",
    "tuned-micro-200": "`micro`",
    "lora-r4, cascade, 400 steps": "LoRA r4 in the cascade",
    "lora-r4, cascade": "LoRA r4 in the cascade",
    "lora-r4-again, cascade": "LoRA r4 in the cascade, two more trainings",
    "full-ft, cascade, 400 steps": "whole U-Net in the cascade",
    "full-ft, cascade": "whole U-Net in the cascade",
    "lora-r4": "LoRA r4 sampled directly",
    "lora-r4-again": "LoRA r4 sampled directly, two more trainings",
    "full-ft": "whole U-Net sampled directly",
    "self-cascade-quality-K850": "not trained, `quality` at K = 850",
    "self-cascade-quality": "not trained, `quality`",
    **FLOORS,
}


def between(page: str, mark: str, text: str) -> str:
    """The page with this text between its marks."""
    before, after = page.split(f"<!-- {mark} -->")[0], page.split(f"<!-- /{mark} -->")[1]
    return f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}"


def blocks() -> dict[str, str]:
    """All tables by their marks."""
    curves, free = results("training-curves"), results("tuning-free")
    tables = read_splits(HERE, read_config(HERE))
    ablation = [row for row in results("ablation") if isinstance(row["sampling"]["pivot_step"], int)]
    return {
        "designs": designs(results("micro-designs")),
        "figures": end_points(curves + free),
        "seeds": seeds(curves),
        "pivot-steps": pivot_steps([row for row in ablation if row["sampling"]["upsampling"] == "rgb"]),
        "trained": compared(tables, "table1", TRAINED, "tuned-micro"),
        "sixteen": compared(tables, "table2", SIXTEEN, "self-cascade-quality"),
    }


def main() -> None:
    """Writes the tables."""
    page = (DOCS / "upsamplers.md").read_text()
    for mark, text in blocks().items():
        page = between(page, mark, text)
    write_whole(DOCS / "upsamplers.md", lambda aside: aside.write_text(page))


if __name__ == "__main__":
    main()
