"""Pictures an hour and their price on many cards, by the planner's FLOPs; what a disk must take, and what rows take.

    python benchmarks/scale.py [--peak 989] [--utilisation 0.4] [--price 2.5] [--measure] [--rows]

writes scale.json and the tables of docs/scale.md. Nothing here ran on a GPU: a card's peak, the share of it that is
used and its price are assumptions, given as options.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL  # pyright: ignore[reportPrivateImportUsage]
from PIL import Image

from selfcascade import Size
from selfcascade.cost.coding import PictureCoders
from selfcascade.media.save_pictures import sidecar_bytes, write_picture

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/scale.md"
MODEL, SIDES, CARDS = "SDXL-base-1.0", (2048, 4096), (1, 8, 64)
WRITES = 200
ROWS = (1_000, 100_000, 1_000_000)

SDXL_VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
}


def work() -> list[dict[str, Any]]:
    """A row a size: TFLOPs of the cascade's U-Net, from flops.json, and of the decoding in tiles."""
    counted = json.loads((HERE / "flops.json").read_text())
    with torch.device("meta"):
        vae = AutoencoderKL(**SDXL_VAE)
    coders = PictureCoders(SimpleNamespace(vae_scale_factor=8), vae, 1, None, tiled=True)
    rows: list[dict[str, Any]] = []
    for side in SIDES:
        total = next(row for row in counted["totals"] if (row["model"], row["side"]) == (MODEL, side))
        decoding = coders.decoding(Size(side, side)).flops / 1e12
        rows.append({"side": side, "unet_tflops": total["cascade_tflops"], "vae_tflops": decoding})
    return rows


def rates(row: dict[str, Any], peak: float, utilisation: float, price: float) -> list[dict[str, float]]:
    """For each number of cards: pictures an hour, and the price of 1,000. Pictures need nothing of each other."""
    seconds = (row["unet_tflops"] + row["vae_tflops"]) / (peak * utilisation)
    each = 1000 * seconds / 3600 * price
    return [{"cards": cards, "an_hour": 3600 / seconds * cards, "price": each} for cards in CARDS]


def measure() -> dict[str, Any]:
    """Seconds of one core, and bytes, for a picture's file of each size; for a record, seconds with the disk's."""
    found: dict[str, Any] = {}
    source = Image.open(HERE.parent / "docs/bundled.webp").convert("RGB")
    record = {"prompt": "a red apple on a table", "seed": 7, "stages": [{"steps": 50}, {"steps": 35}]}
    with tempfile.TemporaryDirectory() as place:
        for side in SIDES:
            picture = source.resize((side, side), Image.Resampling.LANCZOS)
            for ending in (".png", ".webp"):
                path = Path(place) / f"{side}{ending}"
                seconds = _timed(lambda path=path, picture=picture: write_picture(picture, record, path, "a"))
                found[f"{side}{ending}"] = {"seconds": seconds, "bytes": path.stat().st_size}
        data = sidecar_bytes(record)

        def records() -> None:
            for number in range(WRITES):
                with (Path(place) / f"{number}.json").open("wb") as file:
                    file.write(data)
                    os.fsync(file.fileno())

        found["json"] = {"seconds": _timed(records, time.perf_counter) / WRITES, "bytes": len(data)}
    return found


def plan_rows() -> dict[str, Any]:
    """For each number of rows, what a dry run of `selfcascade batch` takes: its peak of memory, and processor time."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "rows.jsonl"
        for count in ROWS:
            with path.open("w") as file:
                for number in range(count):
                    row = {"prompt": f"a red apple on a table, number {number}", "seed": number}
                    file.write(json.dumps(row | ({"scale": 2} if number % 3 == 0 else {})) + "\n")
            command = [sys.executable, "-m", "selfcascade", "batch", str(path), "--output", f"{place}/out", "--dry-run"]
            process = subprocess.Popen([*command, "--scale", "1"])
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0 and not Path(place, "out").exists()
            seconds = used.ru_utime + used.ru_stime
            found[str(count)] = {"peak_bytes": used.ru_maxrss * 1024, "seconds": seconds, "file": path.stat().st_size}
    return found


def tables(results: dict[str, Any]) -> str:
    """The tables of the page."""
    given = results["assumed"]
    lines = [
        f"Assumed: a peak of {given['peak']:,.0f} TFLOPS a card, of which {given['utilisation']:.0%} is used, and "
        f"{given['price']:.2f} an hour and card.",
        "",
        "| size | U-Net, TFLOP | VAE, TFLOP | cards | pictures an hour | price of 1,000 |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["work"]:
        for rate in rates(row, **given):
            size, figures = f"{row['side']}x{row['side']}", f"{row['unet_tflops']:,.0f} | {row['vae_tflops']:,.0f}"
            lines.append(f"| {size} | {figures} | {rate['cards']} | {rate['an_hour']:,.0f} | {rate['price']:.2f} |")
    lines += ["", "| written | bytes | seconds |", "|---|---|---|"]
    for name, one in results["measured"].items():
        words = (
            "record (.json), until it is on the disk"
            if name == "json"
            else f"{name.partition('.')[0]} pixels a side, .{name[5:]}"
        )
        lines.append(f"| {words} | {one['bytes']:,} | {one['seconds']:.4g} |")
    lines += ["", "| rows, `--dry-run` | file, MB | peak of memory, MiB | processor, s |", "|---|---|---|---|"]
    for name, one in results["rows"].items():
        file, peak = one["file"] / 1e6, one["peak_bytes"] / 2**20
        lines.append(f"| {int(name):,} | {file:.3g} | {peak:.0f} | {one['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def report(results: dict[str, Any], page: str) -> str:
    """The page with these tables."""
    before, rest = page.split("<!-- scale -->\n")
    return f"{before}<!-- scale -->\n{tables(results)}<!-- /scale -->\n{rest.split('<!-- /scale -->' + chr(10))[1]}"


def _timed(run: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds by a clock: processor time, which other programs do not lengthen, or with what waits for the disk."""
    began = clock()
    run()
    return clock() - began


def main() -> None:
    """Counts, and measures where it is asked for or was never done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOPS of a card in bfloat16, dense.")
    parser.add_argument("--utilisation", type=float, default=0.4, help="Share of the peak that a run reaches.")
    parser.add_argument("--price", type=float, default=2.5, help="Of a card and hour.")
    parser.add_argument("--measure", action="store_true", help="Measure writing again.")
    parser.add_argument("--rows", action="store_true", help="Measure the dry runs of many rows again.")
    given = vars(parser.parse_args())
    path = HERE / "scale.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    again, rows_again = given.pop("measure") or "measured" not in known, given.pop("rows") or "rows" not in known
    results = {"assumed": given, "work": work(), "measured": measure() if again else known["measured"]}
    results["rows"] = plan_rows() if rows_again else known["rows"]
    path.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(report(results, PAGE.read_text()))


if __name__ == "__main__":
    main()
