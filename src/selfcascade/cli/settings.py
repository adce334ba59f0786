"""What makes one picture or clip, checked as soon as it is given: before torch is imported or a model is loaded."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfcascade.media.save_clips import MAX_FPS, MIN_FPS
from selfcascade.media.save_pictures import read_record
from selfcascade.media.video_files import MAX_START

KIND, CLIP_KIND = "selfcascade.picture", "selfcascade.clip"
RECORD_KEYS = frozenset({"schema", "kind", "settings", "result", "versions"})
MAX_SEED = 2**63 - 1
MAX_SIDE = 16_384
MAX_STEPS = 10_000
MAX_PROMPT = 8_000
MAX_GUIDANCE = 1_000.0
MAX_FRAMES = 10_000
TUNING_FREE, TUNED = "self-cascade", "self-cascade-tuned"
FINE_TUNED = ("full-ft", "lora")
OF_CLIPS = ("frames", "fps", "start", "shared_noise")
WITH_WEIGHTS = (*FINE_TUNED, "sr")
OPTIONAL_TEXTS = (
    "negative_prompt",
    "preset",
    "upsampling",
    "upsamplers",
    "weights",
    "device",
    "dtype",
    "image",
    "image_sha256",
)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a picture's or a clip's pixels; None where the model's own default is meant.

    Attributes:
        image: Path of the picture or clip that was enlarged, as given; None for a picture from a prompt.
        image_sha256: Of that file's bytes.
        native_size: (height, width), None where the model says it.
        pivot_step: One value for all up-scaling stages, or one each.
        anchor: Share of a stage's steps whose low band is the pivot's.
        energy: Strength at which enlarged pivots get their energy back.
        upsamplers: Folder of feature upsamplers, or the name of bundled ones.
        weights: Folder of a fine-tuned U-Net or LoRA, or a super-resolver, for the methods that sample with one.
        in_cascade: The fine-tuned are used above the native size only, in a cascade.
        frames: Of a clip; None for pictures.
        fps: Frames a second of a clip.
        start: Seconds into the clip that was enlarged where its first frame was taken.
        shared_noise: As in `SelfCascade.__call__`.

    Raises:
        ValueError: A value is out of its range; the sentence names the option.
    """

    prompt: str = ""
    negative_prompt: str | None = None
    model: str = "bundled"
    method: str = TUNING_FREE
    height: int | None = None
    width: int | None = None
    native_size: tuple[int, int] | None = None
    seed: int = 0
    num_inference_steps: int | None = None
    pivot_step: tuple[int, ...] | None = None
    preset: str | None = None
    upsampling: str | None = None
    anchor: float | None = None
    energy: float | None = None
    upsamplers: str | None = None
    upsampler_scale: float | None = None
    weights: str | None = None
    in_cascade: bool = False
    guidance_scale: float | None = None
    device: str | None = None
    dtype: str | None = None
    image: str | None = None
    image_sha256: str | None = None
    frames: int | None = None
    fps: float | None = None
    start: float | None = None
    shared_noise: float | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "model", "method"):
            _text(name, getattr(self, name), optional=False)
        for name in OPTIONAL_TEXTS:
            _text(name, getattr(self, name), optional=True)
        for name in ("height", "width"):
            _whole(name, getattr(self, name), 1, MAX_SIDE, optional=True)
        for side in _tuple("native_size", self.native_size, 2):
            _whole("native_size", side, 1, MAX_SIDE)
        _whole("seed", self.seed, 0, MAX_SEED)
        _whole("steps (num_inference_steps)", self.num_inference_steps, 1, MAX_STEPS, optional=True)
        for step in _tuple("pivot_step", self.pivot_step):
            _whole("pivot_step", step, 1, MAX_STEPS)
        scale = self.guidance_scale
        if scale is not None and not (_is_number(scale) and math.isfinite(scale) and 0 <= scale <= MAX_GUIDANCE):
            raise ValueError(f"guidance_scale must be a number from 0 to {MAX_GUIDANCE:g}, not {_shown(scale)}")
        for name in ("anchor", "energy"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 <= value <= 1):
                raise ValueError(f"{name} must be a number from 0 to 1, not {_shown(value)}")
        strength = self.upsampler_scale
        if strength is not None and not (_is_number(strength) and -10 <= strength <= 10):
            raise ValueError(f"upsampler_scale must be a number from -10 to 10, not {_shown(strength)}")
        _whole("frames", self.frames, 1, MAX_FRAMES, optional=True)
        _number("fps", self.fps, MAX_FPS, low=MIN_FPS)
        _number("start", self.start, MAX_START)
        _number("shared_noise", self.shared_noise, 1.0)
        if not isinstance(self.in_cascade, bool):
            raise ValueError(f"in_cascade must be true or false, not {_shown(self.in_cascade)}")
        if (self.weights is not None) != (self.method in WITH_WEIGHTS):
            needs = "needs --weights DIR, as `selfcascade train` writes them"
            if self.method not in FINE_TUNED:
                needs = "needs --weights, a super-resolver's folder or Hub id, or 'bundled'"
            takes = f"takes no weights; they are for {', '.join(WITH_WEIGHTS)}"
            raise ValueError(f"method {self.method} {takes if self.weights is not None else needs}")
        if self.in_cascade and self.method not in FINE_TUNED:
            raise ValueError(f"in_cascade is for methods {', '.join(FINE_TUNED)}, not {self.method}")
        if self.start is not None and self.image is None:
            raise ValueError("start is for a clip that is enlarged, not for one from a prompt")
        if self.shared_noise is not None and self.method not in (TUNING_FREE, TUNED):
            raise ValueError(f"shared_noise is for methods {TUNING_FREE} and {TUNED}, not {self.method}")
        if self.image is not None and self.method not in (TUNING_FREE, TUNED):
            raise ValueError(f"method must be self-cascade where an image is enlarged, not {self.method!r}")

    def changed(self, **values: Any) -> Settings:
        """The same with other values, all checked again."""
        return dataclasses.replace(self, **values)

    @property
    def by_preset(self) -> bool:
        """Whether a preset says how its stages run; upsamplers and other methods have settings of their own."""
        return self.method == TUNING_FREE or self.in_cascade

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        return dataclasses.asdict(self)


def read_settings(path: Path) -> tuple[Settings, str | None]:
    """The settings in a sidecar or a PNG, and the SHA-256 of the pixels they gave.

    Raises:
        ValueError: The file cannot be read, has an unknown key, or a value is out of range; the file is named.
    """
    record = read_record(path, KIND, CLIP_KIND)
    given = record.get("settings")
    if not isinstance(given, dict):
        raise ValueError(f"{str(path)!r} has no settings")
    known = {field.name for field in dataclasses.fields(Settings)}
    unknown = sorted((set(record) - RECORD_KEYS) | (set(given) - known))
    if unknown:
        raise ValueError(f"{str(path)!r} has unknown keys: {', '.join(map(_shown, unknown))}")
    lists = {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
    result = record.get("result")
    try:
        settings = Settings(**{**given, **lists})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r}: {error}") from error
    if settings.preset is None and settings.by_preset:
        settings = settings.changed(preset="paper")  # the default of the versions that did not record it
    sha256 = result.get("sha256") if isinstance(result, dict) else None
    return settings, sha256 if isinstance(sha256, str) else None


def parse_size(name: str, text: str | None) -> tuple[int, int] | None:
    """(height, width) of "64x96".

    Raises:
        ValueError: The text has another form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text)
    if match is None:
        raise ValueError(f"{name} must be HEIGHTxWIDTH in pixels, like 64x96, not {_shown(text)}")
    return int(match[1]), int(match[2])


def check_prompt(settings: Settings) -> None:
    """Refuses to make a picture of nothing: more often a mistake in a script than a wish.

    Raises:
        ValueError: The prompt is empty and there is no image.
    """
    if settings.image is None and not settings.prompt.strip():
        raise ValueError("prompt must not be empty")


def check_count(count: int, name: str = "count") -> int:
    """The number of pictures.

    Raises:
        ValueError: It is not from 1 to 10000.
    """
    _whole(name, count, 1, 10_000)
    return count


def _text(name: str, value: Any, optional: bool) -> None:
    if value is None and optional:
        return
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {_shown(value)}")
    if len(value) > MAX_PROMPT:
        raise ValueError(f"{name} must have at most {MAX_PROMPT} characters, not {len(value)}")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{name} must be text in UTF-8 without null characters, not {_shown(value)}")


def _whole(name: str, value: Any, low: int, high: int, optional: bool = False) -> None:
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {_shown(value)}")


def _number(name: str, value: Any, high: float, low: float = 0.0) -> None:
    if value is not None and not (_is_number(value) and low <= value <= high):
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {_shown(value)}")


def _tuple(name: str, value: Any, length: int | None = None) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, tuple) or not value or (length is not None and len(value) != length):
        raise ValueError(f"{name} must be a list of {length or 'one or more'} whole numbers, not {_shown(value)}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
