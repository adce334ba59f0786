"""The files that options name: checked before a model is loaded, and hashed for the record."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from selfcascade.loading.upscaler_files import find_upscaler
from selfcascade.media.images import read_image
from selfcascade.options import Options
from selfcascade.options.checks import OptionError, shown

WEIGHTS = ".safetensors"
LORA_NAME = "pytorch_lora_weights.safetensors"
SCALED = re.compile(r"(?P<path>.+):(?P<scale>[+-]?[0-9]{1,4}(?:\.[0-9]{1,9})?)")
HUB = re.compile(r"[\w.-]+/[\w.-]+(?:/(?P<inner>[\w./-]+))?")


class Place(NamedTuple):
    """Where weights are stored.

    Attributes:
        folder: A local folder, or a Hub repository, "owner/name".
        file: Path inside the folder; None for the whole folder.
        local: Whether the folder is on this machine.
    """

    folder: str
    file: str | None
    local: bool

    @property
    def path(self) -> Path | None:
        """The local file; None for a whole folder or a Hub repository."""
        return Path(self.folder) / self.file if self.local and self.file is not None else None


def split_scale(entry: str) -> tuple[str, float]:
    """A LoRA's path and strength: ("style.safetensors", 0.8) of "style.safetensors:0.8"; 1 where none is given."""
    match = SCALED.fullmatch(entry)
    if match is None or Path(entry).expanduser().exists():
        return entry, 1.0
    return match["path"], float(match["scale"])


def find_weights(option: str, name: str) -> Place:
    """Finds the .safetensors file that an option names.

    Args:
        option: Name of the option, for messages.
        name: A file, a folder that contains exactly one, or OWNER/NAME[/FILE] on the Hub.

    Raises:
        OptionError: There is no such file, or it is in another format.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        found = sorted(one.name for one in path.glob(f"*{WEIGHTS}"))
        chosen = LORA_NAME if LORA_NAME in found else found[0] if len(found) == 1 else None
        if chosen is None:
            held = f"{len(found)} {WEIGHTS} files" if found else f"no {WEIGHTS} file"
            raise OptionError(f"{{{option}}} {{found}} is a folder with {held}; name the file", found=shown(name))
        return Place(str(path), chosen, True)
    if path.is_file():
        if path.suffix != WEIGHTS:
            raise OptionError(f"{{{option}}} must be a {WEIGHTS} file, not {{found}}", found=shown(name))
        tensor_names(option, path)
        return Place(str(path.parent), path.name, True)
    match = HUB.fullmatch(name)
    looks_local = name.startswith((".", "/", "~")) or (path.suffix == WEIGHTS and name.count("/") < 2)
    if match is None or looks_local or ".." in path.parts:
        raise OptionError(f"{{{option}}} {{found}} does not exist", found=shown(name))
    owner, repository, *inner = name.split("/", 2)
    if inner and not inner[0].endswith(WEIGHTS):
        raise OptionError(f"{{{option}}} must be a {WEIGHTS} file, not {{found}}", found=shown(name))
    return Place(f"{owner}/{repository}", inner[0] if inner else None, False)


def tensor_names(option: str, path: Path) -> list[str]:
    """Names of the tensors in a .safetensors file.

    Raises:
        OptionError: The file is damaged or is not a .safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise OptionError(
            f"{{{option}}} {{found}} is not a {WEIGHTS} file: {{reason}}", found=shown(str(path)), reason=reason
        ) from error


def check_files(options: Options) -> Options:
    """The options with the checksums of their files; no model is loaded.

    Raises:
        ValueError: A file is missing or of the wrong kind, or differs from the recorded one.
    """
    sums: dict[str, str] = {}
    for option, path in _files(options):
        sums[str(path)] = checked_sum(option, path, options)
    return options.changed(files_sha256=sums or None)


def checked_sum(option: str, path: Path, options: Options) -> str:
    """SHA-256 of an option's file.

    Raises:
        OptionError: It differs from the one that the options record.
    """
    found, recorded = sha256_of(path), (options.files_sha256 or {}).get(str(path))
    if recorded not in (None, found):
        words = "is not the file that was recorded (its SHA-256 differs)"
        raise OptionError(f"{{{option}}} {{found}} {words}", found=repr(str(path)))
    return found


def _files(options: Options) -> Iterator[tuple[str, Path]]:
    """The options' local files, each checked to be of its kind."""
    for entry in options.lora or ():
        path = find_weights("lora", split_scale(entry)[0]).path
        if path is not None:
            if not any("lora" in name or "lokr" in name or "hada" in name for name in tensor_names("lora", path)):
                raise OptionError("{lora} {found} holds no LoRA", found=repr(str(path)))
            yield "lora", path
    if isinstance(options.pivot_upscaler, str):
        path = find_upscaler(options.pivot_upscaler)
        if path is not None:
            tensor_names("pivot_upscaler", path)
            yield "pivot_upscaler", path
    if options.controlnet is not None:
        find_folder_of("controlnet", options.controlnet)
    if options.ip_adapter is not None:
        place = find_weights("ip_adapter", options.ip_adapter)
        if place.file is None:
            raise OptionError(
                "{ip_adapter} must name a file, OWNER/NAME/FILE, not {found}", found=shown(options.ip_adapter)
            )
        if place.path is not None:
            if not any(name.startswith("ip_adapter.") for name in tensor_names("ip_adapter", place.path)):
                raise OptionError("{ip_adapter} {found} holds no IP-Adapter", found=repr(str(place.path)))
            yield "ip_adapter", place.path
    for option in ("control_image", "ip_image"):
        name = getattr(options, option)
        if name is not None:
            try:
                read_image(name)
            except ValueError as error:
                raise OptionError(f"{{{option}}}: {{reason}}", reason=str(error)) from error
            yield option, Path(name)


def find_folder_of(option: str, name: str) -> str:
    """The name, checked to be a folder with a config.json, or a Hub id.

    Raises:
        OptionError: It is neither.
    """
    path = Path(name).expanduser()
    if path.is_dir() and (path / "config.json").is_file():
        return str(path)
    if path.exists() or HUB.fullmatch(name) is None or name.startswith((".", "/")):
        raise OptionError(f"{{{option}}} {{found}} is not a folder with a config.json, nor a Hub id", found=shown(name))
    return name


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
