"""Step 1: renders the bundled cut-outs, once each, from the npm package `fluentui-emoji`.

npm pack fluentui-emoji@1.3.0 && tar xzf fluentui-emoji-1.3.0.tgz
pip install -r recipes/collages/requirements.txt
python recipes/collages/sprites.py package
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from selfcascade.data.collages.sprites import SPRITES, VISIBLE
from selfcascade.media.whole_files import write_whole

SIDE, SUPERSAMPLE = 512, 2
LIMIT = 3_000_000  # bytes in all
KINDS = json.loads((Path(__file__).parent / "kinds.json").read_text())


def cut_out(svg: Path) -> Image.Image:
    """The drawing cropped to its visible part, its longer side 512 pixels, averaged from twice as many."""
    side = SIDE * SUPERSAMPLE
    drawn = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=str(svg), width=side, height=side))))
    box = drawn.convert("RGBA").getchannel("A").point(VISIBLE).getbbox()
    if box is None:
        raise SystemExit(f"{svg} is empty")
    width, height = box[2] - box[0], box[3] - box[1]
    scale = SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Pillow resizes RGBA with premultiplied colours, so the colour of transparent pixels does not bleed in.
    return drawn.convert("RGBA").resize(size, Image.Resampling.BOX, box=box)


def main(package: Path) -> None:
    """Writes every cut-out as WebP, the index and the licence."""
    total, index = 0, []
    for category, kinds in KINDS.items():
        for kind, source in kinds.items():
            picture = cut_out(package / "icons/modern" / f"{source}.svg")
            pixels = np.asarray(picture).copy()
            pixels[pixels[..., 3] == 0] = 0
            name = f"{kind.replace(' ', '-')}.webp"
            path = SPRITES / name
            image = Image.fromarray(pixels)
            write_whole(path, lambda aside, image=image: image.save(aside, "WEBP", quality=92, method=4))
            total += path.stat().st_size
            index.append({"kind": kind, "category": category, "file": name, "source": f"modern/{source}.svg"})
    text = json.dumps(index, indent=1) + "\n"
    write_whole(SPRITES / "index.json", lambda aside: aside.write_text(text))
    shutil.copyfile(package / "LICENSE", SPRITES / "LICENSE")
    print(f"{len(index)} cut-outs, {total / 1e6:.2f} MB")
    if total > LIMIT:
        raise SystemExit(f"the cut-outs weigh {total} bytes, and {LIMIT} are allowed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
