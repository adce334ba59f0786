"""The super-resolution models that `pivot_upscaler` names: where they are, and those that spandrel reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfcascade.loading.reasons import reason_of
from selfcascade.options.checks import OptionError, shown
from selfcascade.options.optional import install, is_installed

BUNDLED_NAME = "bundled"
WEIGHTS = ".safetensors"
PICKLES = frozenset({".pth", ".pt", ".ckpt", ".bin", ".pkl"})


def find_upscaler(name: str) -> Path | None:
    """The .safetensors file that a name stands for; None for the bundled model, a folder, or a Hub id.

    Raises:
        OptionError: There is no such file, it has another format, or the folder is not in diffusers' format.
    """
    path, found = Path(name).expanduser(), shown(name)
    if not name.strip():
        raise OptionError("{pivot_upscaler} must be the name of a model, not {found}", found=found)
    if name == BUNDLED_NAME:
        return None
    if path.suffix.lower() in PICKLES and not path.is_dir():
        raise OptionError(
            "{pivot_upscaler} {found} has a format that can run code when it is read; convert it to .safetensors",
            found=found,
        )
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise OptionError(
                "{pivot_upscaler} {found} is a folder without model_index.json, so not in diffusers' format",
                found=found,
            )
        return None
    if path.suffix.lower() == WEIGHTS and path.is_file():
        return path
    if path.exists():
        raise OptionError("{pivot_upscaler} must be a .safetensors file or a folder, not {found}", found=found)
    if name.count("/") != 1 or name[0] in "./~" or path.suffix.lower() == WEIGHTS:
        raise OptionError("{pivot_upscaler} {found} does not exist", found=found)
    return None


def read_upscaler(path: Path) -> Any:
    """The model in a .safetensors file, as spandrel's descriptor, in float32 on the CPU.

    Raises:
        OptionError: spandrel is missing, does not know the model, or the file is damaged.
    """
    found = shown(str(path))
    if not is_installed("spandrel"):
        words = f"is read by the package spandrel: {install('spandrel')}"
        raise OptionError("{pivot_upscaler} {found} {words}", found=found, words=words)
    try:
        from spandrel import ModelLoader, UnsupportedModelError
    except Exception as error:  # a torchvision for another build of torch fails in its own ways
        words = f"is read by the package spandrel, which cannot be imported: {reason_of(error)}"
        raise OptionError("{pivot_upscaler} {found} {words}", found=found, words=words) from error
    try:
        return ModelLoader("cpu").load_from_file(path).float().eval()
    except UnsupportedModelError as error:
        words = "holds no model that spandrel knows"
        raise OptionError("{pivot_upscaler} {found} {words}", found=found, words=words) from error
    except Exception as error:  # damaged files and incomplete weights fail in as many ways as there are models
        words = f"cannot be read: {reason_of(error)}"
        raise OptionError("{pivot_upscaler} {found} {words}", found=found, words=words) from error
