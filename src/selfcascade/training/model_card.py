"""Writes the README.md of trained weights: what they are, how they were trained, and their figures."""

from __future__ import annotations

from selfcascade.data import Report
from selfcascade.training.config import TrainingConfig
from selfcascade.upsamplers.shared_card import LICENCE, front_matter, loading, snippet

KINDS = {"upsamplers": "feature upsamplers", "lora": "a LoRA", "full": "a fine-tuned U-Net"}


def write_model_card(
    config: TrainingConfig, step: int, weights: int, unet: str, report: Report, curve: list[dict[str, float]]
) -> None:
    """Writes README.md into the output folder; the licence is left to the publisher.

    Its snippet runs where the training ran. `FeatureUpsamplers.push_to_hub` puts the Hub id in the folder's place.

    Args:
        config: Settings of the run.
        step: Number of optimizer steps done.
        weights: Number of trained parameters.
        unet: Class name of the base model's U-Net.
        report: Counts of used and skipped samples.
        curve: The run's logged figures.
    """
    height, width = config.resolution
    length = "" if config.frames is None else f", {config.frames} frames"
    losses = [row["loss"] for row in curve if "loss" in row]
    lines = [
        *front_matter(config.model),
        "",
        f"# {KINDS[config.method].capitalize()} for {config.model} at {width} x {height} pixels{length}",
        "",
        *_snippet(config, unet),
        "",
        f"{weights:,} parameters, trained for {step} steps on `{config.train_data}` ({report}).",
        f"Loss: {losses[0]:.4f} at first, {losses[-1]:.4f} at last." if losses else "",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in config.model_dump(mode="json").items()),
        "",
        LICENCE,
        "",
    ]
    (config.folder / "README.md").write_text("\n".join(lines))


def _snippet(config: TrainingConfig, unet: str) -> list[str]:
    """A program that loads the weights and makes a picture, or a clip's first frame, of the trained size."""
    height, width = config.resolution
    place = str(config.folder)
    load = {
        "upsamplers": [loading(place)],
        "lora": [f'pipe.load_lora_weights("{place}")'],
        "full": [
            f'unet = diffusers.{unet}.from_pretrained("{place}", subfolder="unet")',
            "pipe.unet = unet.to(pipe.device, pipe.dtype)",
        ],
    }
    call, result = f"height={height}, width={width}", "images[0]"
    if config.attention == "local" and config.method != "upsamplers":  # which say it themselves
        call += ', attention="local"'
    if config.frames is not None:
        call, result = f"{call}, num_frames={config.frames}", "frames[0][0]"
    parts = "pipe, upsamplers" if config.method == "upsamplers" else "pipe"
    lines = snippet(config.model, load[config.method], call, result, parts)
    return [*lines[:1], "import diffusers", *lines[1:]] if config.method == "full" else lines
