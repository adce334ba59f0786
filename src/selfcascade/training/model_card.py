"""The README.md beside trained weights: what they are, how they were made, what was measured."""

from __future__ import annotations

from selfcascade.data import Report
from selfcascade.training.config import TrainingConfig

LOADING = {
    "upsamplers": 'selfcascade.SelfCascade(pipe, upsamplers=selfcascade.FeatureUpsamplers.from_pretrained("."))',
    "lora": 'pipe.load_lora_weights(".")',
    "full": 'pipe.unet = diffusers.{unet}.from_pretrained(".", subfolder="unet")',
}
KINDS = {"upsamplers": "feature upsamplers", "lora": "a LoRA", "full": "a fine-tuned U-Net"}


def write_model_card(
    config: TrainingConfig, step: int, weights: int, unet: str, report: Report, curve: list[dict[str, float]]
) -> None:
    """Writes README.md in the output folder; the licence is left to whoever publishes.

    Args:
        config: Settings of the run.
        step: Optimizer steps done.
        weights: Numbers that were trained.
        unet: Class of the base model's U-Net.
        report: What became of the data.
        curve: The run's logged figures.
    """
    height, width = config.resolution
    length = "" if config.frames is None else f", {config.frames} frames"
    losses = [row["loss"] for row in curve if "loss" in row]
    lines = [
        "---",
        "library_name: diffusers",
        f"base_model: {config.model}",
        "tags: [selfcascade, high-resolution]",
        "---",
        "",
        f"# {KINDS[config.method].capitalize()} for {config.model} at {width} x {height} pixels{length}",
        "",
        "```python",
        LOADING[config.method].format(unet=unet),
        "```",
        "",
        f"{weights:,} parameters, trained for {step} steps on `{config.train_data}` ({report}).",
        f"Loss: {losses[0]:.4f} at first, {losses[-1]:.4f} at last." if losses else "",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in config.model_dump(mode="json").items()),
        "",
        "Licence: that of the base model and of the data, to be stated by whoever publishes these weights.",
        "",
    ]
    (config.folder / "README.md").write_text("\n".join(lines))
