"""How a result was made, and whether the present code and weights would make the same.

"The same code" means the same numbers in `revisions.py`.
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
from selfcascade.evaluation.revisions import CASCADE, PROTOCOL, TUNED, preset_revision, revision_of
from selfcascade.media.images import file_sha256
from selfcascade.models import BUNDLED, BUNDLED_MODELS, BUNDLED_SUPER_RESOLVER, BUNDLED_UPSAMPLERS
from selfcascade.pipeline import SelfCascade
from selfcascade.pipeline.preset_choice import anchorable_preset
from selfcascade.upsamplers.model import FeatureUpsamplers

OLD = "protocol 1"
PACKAGES = ("selfcascade", "torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "pillow")
ROOT = Path(__file__).parents[3]


def made_by(
    method: str, preset: str | None, weights: Mapping[str, str], device: torch.device, dtype: str, autocast: bool
) -> dict[str, Any]:
    """What a result says about how it was made.

    Args:
        method: Name of the method; with feature upsamplers, "self-cascade-tuned".
        preset: Name of the preset that supplies what the sampling does not say; None for other methods than a cascade.
        weights: Digests by network or file, as `weight_files` returns them.
        device, dtype: Device and precision of the model.
        autocast: Whether the denoiser ran in bfloat16 by autocast.
    """
    return {
        "protocol": PROTOCOL,
        "method": method,
        "revision": revision_of(method),
        **({} if preset is None else {"preset": {"name": preset, "revision": preset_revision(preset)}}),
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

    Noise of neighbouring pixels averages out. At a stage of r times the native pixels, a native pixel therefore has r
    times the ratio of a latent one: log SNR = log(abar / (1 - abar)) + log r. Models with different schedules can only
    be compared by this ratio.

    Args:
        pivot_steps: K of each stage with a pivot.
        scheduler: Has `alphas_cumprod`. For a flow, sigma is t / T.
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


def levels_of(pipe: Any, sampling: Sampling, upsamplers: FeatureUpsamplers | None = None) -> list[dict[str, float]]:
    """`noise_levels` of a cascade's stages. Empty for other methods.

    Args:
        pipe: The model.
        sampling: Settings that its pictures are made with.
        upsamplers: The upsamplers that are used.
    """
    if sampling.method != "self-cascade":
        return []
    cascade, size = SelfCascade(pipe, upsamplers), sampling.sized(pipe).size
    own = {"pivot_step": sampling.pivot_step, "preset": sampling.reference_preset(upsamplers is not None)}
    given = {key: value for key, value in own.items() if value is not None}
    stages = cascade.plan(*size, num_inference_steps=sampling.num_inference_steps, **given)
    native = Size(*cascade.native_size)
    held = [(stage.pivot_step, stage.size.area / native.area) for stage in stages if stage.pivot_step is not None]
    return noise_levels([step for step, _ in held], pipe.scheduler, [ratio for _, ratio in held])


def preset_name(pipe: Any, sampling: Sampling, upsamplers: FeatureUpsamplers | None = None) -> str | None:
    """The preset that supplies what a cascade's settings do not say. None for other methods.

    Args:
        pipe, sampling, upsamplers: See `levels_of`.
    """
    if sampling.method != CASCADE:
        return None
    named = sampling.reference_preset(upsamplers is not None)
    if named is not None or upsamplers is None:
        return named
    return anchorable_preset(upsamplers.config.get("sampling_preset", "paper"), pipe.scheduler)


def weight_files(
    model: str, upsamplers: str | None, weights: str | None, pivot_upscaler: str | None = None
) -> dict[str, str]:
    """The first 16 digits of the SHA-256 of every file of weights, by its path in its folder.

    The detectors are left out: they belong to the protocol of the figures, as the data does. Upsamplers' config.json is
    among them, as it says how they are sampled.

    Args:
        model: Name of a bundled model, or a folder. For a Hub id the result is empty.
        upsamplers, weights: Name or folder, or None.
        pivot_upscaler: Name, file or folder, or None.
    """
    folders = {
        "model": BUNDLED.parent / ("video" if model == "bundled-video" else "image")
        if model in BUNDLED_MODELS
        else model,
        "upsamplers": BUNDLED_UPSAMPLERS / upsamplers if upsamplers in ("micro", "full") else upsamplers,
        "weights": BUNDLED_SUPER_RESOLVER if weights == "bundled" else weights,
        "pivot_upscaler": BUNDLED_SUPER_RESOLVER if pivot_upscaler == "bundled" else pivot_upscaler,
    }
    if model == "bundled-video":  # all but its motion adapter is the image model
        folders["image model"] = BUNDLED
    file = Path(pivot_upscaler or "")
    single = {f"pivot_upscaler: {file.name}": _sha256(file, file.stat().st_mtime_ns)} if file.is_file() else {}
    return single | {
        f"{name}: {path.relative_to(folder)}": _sha256(path, path.stat().st_mtime_ns)
        for name, folder in folders.items()
        if folder and Path(folder).is_dir()  # "" is not the current folder, but no name
        for path in sorted(Path(folder).rglob("*"))
        if path.suffix == ".safetensors" or (name == "upsamplers" and path.name == "config.json")
    }


def unlike(result: Mapping[str, Any], weights: Mapping[str, str]) -> str | None:
    """How a result differs from what the present code and weights would make. None if no difference is known.

    Results up to version 0.1 do not say how they were made. Their protocol is `OLD`, and only a change of their preset
    is known.

    Args:
        result: Content of a result file.
        weights: The present `weight_files` of the model it was made with.
    """
    made = result.get("made_by")
    told = made if isinstance(made, Mapping) else {}
    name, revision = _preset_of(result, told)
    if name is not None and revision != preset_revision(name):
        return f"an earlier preset {name!r}"
    if not told:
        return None
    method = _method_of(result, told)
    for word, now in (("protocol", PROTOCOL), ("revision", revision_of(method))):
        if told.get(word) != now:
            return f"{word} {told.get(word)!r} of {method}, not {now!r}"
    held = told.get("weights", {})
    for place in sorted(set(held) & set(weights)):
        if held[place] != weights[place]:
            return f"other weights, {place}"
    return None


def protocol_of(result: Mapping[str, Any]) -> str:
    """The protocol that a result was made by, in words."""
    made = result.get("made_by")
    return f"protocol {made.get('protocol')}" if isinstance(made, Mapping) else OLD


def _method_of(result: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """The method that the revision is of; earlier results only say it in other words."""
    method, settings = str(result.get("sampling", {}).get("method")), result.get("settings", {})
    trained = (settings.get("training") or {}).get("method")
    tuned = settings.get("upsamplers") is not None or trained == "upsamplers"
    return str(told.get("method", TUNED if tuned and method == CASCADE else method))


def _preset_of(result: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[str | None, int]:
    """Name and revision of the preset; earlier results only have a revision, of the preset that the sampling names."""
    held = told.get("preset", 1)
    if isinstance(held, Mapping):
        return str(held["name"]), int(held["revision"])
    return result.get("sampling", {}).get("preset"), int(held)


@functools.cache
def commit() -> str:
    """The commit of this checkout, with "+" if the package's files differ from it. "" outside of a checkout."""
    if not (ROOT / "src/selfcascade").is_dir():  # installed elsewhere
        return ""
    try:
        ran = [
            subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "src"))
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
