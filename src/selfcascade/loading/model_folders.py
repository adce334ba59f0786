"""Checks that a model was loaded completely: libraries silently replace missing weights and files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from selfcascade.options.checks import is_number, is_whole
from selfcascade.options.json_files import read_object

INDEX = "model_index.json"
CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
DIVISORS = ("scaling_factor", "latents_std")
LATENT_NUMBERS = (*DIVISORS, "shift_factor", "latents_mean")
HALF = "fp16"
NO_LENGTH = 10**9  # a tokenizer that is not told its length has a far larger one


def check_folder(folder: Path) -> dict[str, tuple[str, str]]:
    """Reads a model folder's small files, and returns library and class of each component by its name.

    Raises:
        ValueError: A file is missing or is not a JSON object; the message names it.
    """
    index = read_object(folder / INDEX, "file")
    if not isinstance(index.get("_class_name"), str):
        raise ValueError(f"file {str(folder / INDEX)!r} does not name the pipeline's class")
    parts = parts_of(index)
    for name, (library, kind) in parts.items():
        own = {config: folder / name / config for config in CONFIGS}
        held = {config: read_object(path, "file") for config, path in own.items() if path.is_file()}
        needed = "tokenizer_config.json" if "Tokenizer" in kind and library == "transformers" else None
        needed = "config.json" if any((folder / name).glob("*.safetensors")) else needed
        if needed is not None and (folder / name).is_dir() and needed not in held:
            raise ValueError(f"file {str(folder / name / needed)!r} is missing")
        steps = held.get("scheduler_config.json", {}).get("num_train_timesteps", 1000)
        if not is_whole(steps):
            raise ValueError(f"{name} has num_train_timesteps {steps!r}, which must be a positive whole number")
    return parts


def parts_of(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Library and class of each component in a `model_index.json`."""
    listed = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    return {name: (value[0], value[1]) for name, value in listed.items() if all(isinstance(one, str) for one in value)}


def text_models(folder: Path, parts: Mapping[str, tuple[str, str]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Loads the components that come from transformers, which would fill in missing weights at random.

    Args:
        folder: The model's folder.
        parts: Result of `check_folder`.
        options: Keywords for `from_pretrained`.

    Raises:
        ValueError: A component lacks weights.
    """
    import transformers

    found: dict[str, Any] = {}
    for name, (library, class_name) in parts.items():
        kind = getattr(transformers, class_name, None) if library == "transformers" else None
        if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
            continue
        files = {"variant": HALF} if in_half(folder / name) else {}
        own = {**options, **files, "local_files_only": True, "output_loading_info": True}
        loaded: Any = kind.from_pretrained(str(folder / name), **own)
        part, info = loaded
        if info["missing_keys"]:
            raise ValueError(
                f"{name} lacks weight {min(info['missing_keys'])}; the file is not this model's, or not whole"
            )
        found[name] = part
    return found


def in_half(folder: Path) -> bool:
    """Whether a component's weights exist in half precision only."""
    weights = [path.name for path in folder.glob("*.safetensors")]
    return bool(weights) and all(f".{HALF}" in weight for weight in weights)


def check_components(pipe: Any) -> None:
    """Checks that a pipeline's components were loaded completely.

    Raises:
        ValueError: A weight is missing, a tokenizer lost its words or its length, or the VAE has no usable scale.
    """
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):
            lost = next((key for key, weight in part.state_dict().items() if weight.is_meta), None)
            if lost is not None:
                raise _lacking(name, lost)
        elif name.startswith("tokenizer") and part is not None:
            _check_tokenizer(name, part, pipe.components.get(name.replace("tokenizer", "text_encoder")))
    config = getattr(getattr(pipe, "vae", None), "config", {})
    for name in LATENT_NUMBERS:
        value = config.get(name)
        for number in value if isinstance(value, (list, tuple)) else [value]:
            usable = number is None or (is_number(number) and math.isfinite(number))
            if not usable or (number == 0 and name in DIVISORS):
                but = ", and not 0" if name in DIVISORS else ""
                raise ValueError(f"vae has {name} {number!r}, which must be a finite number{but}")


def _lacking(name: str, weight: str) -> ValueError:
    return ValueError(f"{name} lacks weight {weight}; the file is not this model's, or not whole")


def _check_tokenizer(name: str, tokenizer: Any, encoder: Any) -> None:
    words = getattr(getattr(encoder, "config", None), "vocab_size", None)
    if isinstance(words, int) and len(tokenizer) < words // 2:
        raise ValueError(
            f"{name} knows {len(tokenizer)} of the {words} tokens of its text encoder; its files are not whole"
        )
    if type(tokenizer).__name__.startswith("CLIPTokenizer") and tokenizer.model_max_length > NO_LENGTH:
        raise ValueError(f"{name} says no model_max_length; its tokenizer_config.json is not whole")
