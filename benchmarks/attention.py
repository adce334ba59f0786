"""TFLOPs of full attention and of attention in windows of the native size, from 512 to 4096, without weights.

    python benchmarks/attention.py

writes attention.json and, from it, attention.md beside this file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (  # pyright: ignore[reportPrivateImportUsage]
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
)
from flops import SD_21_BASE, SDXL_BASE

from selfcascade import Size
from selfcascade.base_models.local_attention import Steps, local_attention
from selfcascade.base_models.windows import Grid
from selfcascade.cost.forward import Shape, count, unet_forward

HERE = Path(__file__).parent
STEPS = 50
FRAMES = 21  # latent frames of a clip of 81
LATENT_FACTOR = 8
SQUARES = tuple(Size(side, side) for side in (512, 1024, 2048, 4096))
WIDE = (Size(480, 832), Size(720, 1280), Size(1088, 1920), Size(2160, 3840))


def sd_3() -> Any:
    """Stable Diffusion 3 medium, with positions for 4096 pixels a side."""
    return SD3Transformer2DModel(
        num_layers=24,
        num_attention_heads=24,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        pos_embed_max_size=256,
    )


def sd_3_forward(network: Any, shape: Shape) -> Any:
    """A step with 77 + 256 tokens of text."""
    batch, h, w = shape
    z_t, text, pooled = torch.empty(batch, 16, h, w), torch.empty(batch, 333, 4096), torch.empty(batch, 2048)
    return network(z_t, text, pooled, torch.ones(batch))


def flux_forward(network: Any, shape: Shape) -> Any:
    """A step with 512 tokens of text."""
    batch, h, w = shape
    tokens, text, pooled = torch.empty(batch, h * w // 4, 64), torch.empty(batch, 512, 4096), torch.empty(batch, 768)
    places = {"img_ids": torch.empty(h * w // 4, 3), "txt_ids": torch.empty(512, 3)}
    return network(tokens, text, pooled, torch.ones(batch), **places, guidance=torch.ones(batch))


def wan() -> Any:
    """Wan 2.1 with 1.3 billion weights."""
    return WanTransformer3DModel(num_attention_heads=12, ffn_dim=8960, num_layers=30)


def wan_forward(network: Any, shape: Shape) -> Any:
    """A step of a clip with 512 tokens of text."""
    batch, h, w = shape
    return network(torch.empty(batch, 16, FRAMES, h, w), torch.ones(batch), torch.empty(batch, 512, 4096))


@dataclass(frozen=True)
class Model:
    """A network of public proportions, made and run on the meta device.

    Attributes:
        name: Name of the published model.
        make: Makes the network.
        forward: Runs the network on one latent.
        sizes: Sizes in pixels, including the native one.
        native: Index of the native size.
        grid: Latent frames, and latent pixels of a token's side.
    """

    name: str
    make: Callable[[], Any]
    forward: Callable[[Any, Shape], Any]
    sizes: tuple[Size, ...]
    native: int
    grid: tuple[int, int]


MODELS = (
    Model("SD 2.1-base", lambda: UNet2DConditionModel.from_config(SD_21_BASE), unet_forward(), SQUARES, 0, (1, 1)),
    Model("SDXL-base-1.0", lambda: UNet2DConditionModel.from_config(SDXL_BASE), unet_forward(), SQUARES, 1, (1, 1)),
    Model("SD 3-medium", sd_3, sd_3_forward, SQUARES, 1, (1, 2)),
    Model("Flux.1-dev", lambda: FluxTransformer2DModel(guidance_embeds=True), flux_forward, SQUARES, 1, (1, 2)),
    Model("Wan 2.1 1.3B, 81 frames", wan, wan_forward, WIDE, 0, (FRAMES, 2)),
)


def measure(model: Model) -> list[dict[str, Any]]:
    """A row a size: TFLOPs of a pass with full attention, with local, and so at a stage's last step."""
    native, (frames, side) = model.sizes[model.native], model.grid
    rows = []
    with torch.device("meta"):
        network = model.make()
        for size in model.sizes:
            height, width = (length // LATENT_FACTOR for length in size)
            ratio = math.sqrt(native.area / size.area)
            grid = Grid(frames, height // side, width // side)
            window = Grid(frames, *(math.ceil(ratio * length - 1e-6) for length in grid[1:]))
            full = count(network, model.forward, (1, height, width))
            steps = Steps()
            with local_attention(network, grid, window, steps):
                local = count(network, model.forward, (1, height, width))
                steps.last = True
                last = count(network, model.forward, (1, height, width))
            row = {"model": model.name, "height": size.height, "width": size.width, "native": size == native}
            row |= {"full": full.flops / 1e12, "full_attention": full.attention_flops / full.flops}
            row |= {"local": local.flops / 1e12, "local_attention": local.attention_flops / local.flops}
            rows.append(row | {"last": last.flops / 1e12})
    return rows


def run() -> dict[str, Any]:
    """All figures."""
    return {"torch": torch.__version__, "forwards": [row for model in MODELS for row in measure(model)]}


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# Attention in windows of the native size: FLOPs",
        "",
        "Written by `python benchmarks/attention.py`: networks of the public proportions, on meta tensors, so no",
        f"weights. Counted by `torch.utils.flop_counter` (torch {results['torch']}), two operations a multiply-add;",
        "windows as stages above the base have them with `attention='local'` (docs/attention.md).",
        "",
        "## One pass, one latent or clip, TFLOP",
        "",
        "| model | size | full | of it in the kernel | local | of it in the kernel | a pixel, local | last step |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def of_a_pixel(row: dict[str, Any]) -> float:
        return row["local"] / (row["height"] * row["width"])

    natives = {row["model"]: of_a_pixel(row) for row in results["forwards"] if row["native"]}
    for row in results["forwards"]:
        size = f"{row['height']}x{row['width']}" + (", native" if row["native"] else "")
        figures = f"{_figure(row['full'])} | {row['full_attention']:.0%} | {_figure(row['local'])}"
        relative = of_a_pixel(row) / natives[row["model"]]
        figures += f" | {row['local_attention']:.0%} | {relative:.2f} | {_figure(row['last'])}"
        lines.append(f"| {row['model']} | {size} | {figures} |")
    lines += [
        "",
        "A pixel is relative to one of the native size. The last step of a stage has windows in two places.",
        "Whole pictures, with each preset's steps, are in [costs.md](costs.md).",
    ]
    return "\n".join([*lines, ""])


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def main() -> None:
    """Writes both files."""
    (HERE / "attention.json").write_text(json.dumps(run(), indent=1) + "\n")
    (HERE / "attention.md").write_text(report(json.loads((HERE / "attention.json").read_text())))


if __name__ == "__main__":
    main()
