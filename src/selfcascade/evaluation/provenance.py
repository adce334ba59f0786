"""How a result was made, and whether the present code and weights would make it.

What "the same code" is, is a number, `PROTOCOL`, with a number for each method in `REVISIONS`. A digest of the source
would change with every comment or new model family and make all results old at once, so nobody would heed it. The
numbers are raised by hand, and `tests/test_canaries.py` says when: small pictures of every method, their features and
figures must be what they were.
"""

from __future__ import annotations

import functools
import math
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from selfcascade.cascade import Size
from selfcascade.evaluation.make_samples import Sampling
from selfcascade.media.images import file_sha256
from selfcascade.models import BUNDLED, BUNDLED_MODELS, BUNDLED_SUPER_RESOLVER, BUNDLED_UPSAMPLERS
from selfcascade.pipeline import SelfCascade

PROTOCOL = 2  # raised when captions, seeds, sampling or figures of all methods change
REVISIONS: dict[str, int] = {}  # by method, where its samples alone changed; others are at 1
OLD = "protocol 1"
PACKAGES = ("selfcascade", "torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "pillow")
ROOT = Path(__file__).parents[3]


def made_by(
    method: str, weights: Mapping[str, str], device: torch.device, dtype: str, autocast: bool
) -> dict[str, Any]:
    """What a result says of its making.

    Args:
        method: Its name.
        weights: Digests by network or file, as `weight_files` gives them.
        device, dtype: The model's.
        autocast: Whether the denoiser ran in bfloat16 by autocast.
    """
    return {
        "protocol": PROTOCOL,
        "revision": REVISIONS.get(method, 1),
        "commit": commit(),
        "versions": {"Python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} {platform.machine()}",
        "dtype": dtype,
        "denoiser": "bfloat16, by autocast" if autocast else dtype,
        "threads": torch.get_num_threads(),
        "weights": dict(weights),
    }


def noise_levels(pivot_steps: list[int], scheduler: Any, pixels: list[float]) -> list[dict[str, float]]:
    """K of each stage as a training timestep and as the log signal-to-noise ratio of a native pixel.

    Noise of neighbouring pixels averages out, so at a stage of r times the native pixels a native pixel has r times the
    ratio of a latent one: log SNR = log(abar / (1 - abar)) + log r. Models with other schedules compare by that alone.

    Args:
        pivot_steps: K of each stage with a pivot.
        scheduler: Has `alphas_cumprod`; of a flow, sigma is t / T.
        pixels: r of each of these stages.
    """
    found = []
    for step, ratio in zip(pivot_steps, pixels, strict=True):
        abar = getattr(scheduler, "alphas_cumprod", None)
        if abar is None:
            sigma = step / int(scheduler.config.get("num_train_timesteps", 1000))
            snr = ((1 - sigma) / sigma) ** 2
        else:
            share = float(abar[min(step, len(abar) - 1)])
            snr = share / (1 - share)
        level = math.log(snr * ratio) if snr > 0 else -math.inf
        found.append({"timestep": step, "log_snr_of_a_native_pixel": round(level, 4)})
    return found


def levels_of(pipe: Any, sampling: Sampling, preset: str | None) -> list[dict[str, float]]:
    """`noise_levels` of a cascade's stages; none for other methods.

    Args:
        pipe: The model.
        sampling: How its pictures are made.
        preset: Where the sampling names none; None: upsamplers bring their own K, which only a sampling's replaces.
    """
    if sampling.method != "self-cascade" or (preset is None and sampling.pivot_step is None):
        return []
    cascade, size = SelfCascade(pipe), sampling.sized(pipe).size
    own = {"pivot_step": sampling.pivot_step, "preset": sampling.preset or preset}
    given = {key: value for key, value in own.items() if value is not None}
    stages = cascade.plan(*size, num_inference_steps=sampling.num_inference_steps, **given)
    native = Size(*cascade.native_size)
    held = [(stage.pivot_step, stage.size.area / native.area) for stage in stages if stage.pivot_step is not None]
    return noise_levels([step for step, _ in held], pipe.scheduler, [ratio for _, ratio in held])


def weight_files(model: str, upsamplers: str | None, weights: str | None) -> dict[str, str]:
    """The SHA-256 (its first 16 digits) of every file of weights, by its place in its folder.

    The detectors' are not among them: they are part of the figures' protocol, as is the data.

    Args:
        model: A bundled model's name, or a folder; of a Hub id nothing is known here.
        upsamplers, weights: By name or folder, or None.
    """
    folders = {
        "model": BUNDLED.parent / ("video" if model == "bundled-video" else "image")
        if model in BUNDLED_MODELS
        else model,
        "upsamplers": BUNDLED_UPSAMPLERS / upsamplers if upsamplers in ("micro", "full") else upsamplers,
        "weights": BUNDLED_SUPER_RESOLVER if weights == "bundled" else weights,
    }
    if model == "bundled-video":  # its networks but for the motion adapter are the image model's
        folders["image model"] = BUNDLED
    return {
        f"{name}: {path.relative_to(folder)}": _sha256(path, path.stat().st_mtime_ns)
        for name, folder in folders.items()
        if folder is not None and Path(folder).is_dir()
        for path in sorted(Path(folder).rglob("*.safetensors"))
    }


def unlike(result: Mapping[str, Any], weights: Mapping[str, str]) -> str | None:
    """In what a result differs from what the present code and weights would make; None where in nothing that is known.

    Results up to version 0.1 do not say how they were made. They are of `OLD`, and taken for what they are.

    Args:
        result: A result file's content.
        weights: The present `weight_files` of what it was made with.
    """
    made = result.get("made_by")
    if not isinstance(made, Mapping):
        return None
    method = str(result.get("sampling", {}).get("method"))
    for name, now in (("protocol", PROTOCOL), ("revision", REVISIONS.get(method, 1))):
        if made.get(name) != now:
            return f"{name} {made.get(name)!r} of {method}, not {now!r}"
    held = made.get("weights", {})
    for place in sorted(set(held) & set(weights)):
        if held[place] != weights[place]:
            return f"other weights, {place}"
    return None


def protocol_of(result: Mapping[str, Any]) -> str:
    """The protocol that a result was made by, in words."""
    made = result.get("made_by")
    return f"protocol {made.get('protocol')}" if isinstance(made, Mapping) else OLD


@functools.cache
def commit() -> str:
    """The commit of the checkout that this code lies in, with "+" where files differ from it; "" outside of one."""
    if not (ROOT / "src/selfcascade").is_dir():  # installed elsewhere
        return ""
    try:
        ran = [
            subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return ""
    return ran[0] + ("+" if ran[1] else "")


@functools.cache
def _sha256(path: Path, changed: int) -> str:
    return file_sha256(path)[:16]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
