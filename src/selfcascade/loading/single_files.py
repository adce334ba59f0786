"""Single-file checkpoints, as on Civitai and in the first releases of many models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfcascade.loading.named_files import tensor_names
from selfcascade.loading.reasons import reason_of
from selfcascade.options.checks import OptionError, shown

INDEX = "model_index.json"


def check_single_file(name: str, config: str | None) -> None:
    """Raises OptionError unless `name` is a .safetensors checkpoint, and `config` a folder in diffusers' format."""
    path = Path(name).expanduser()
    if path.suffix != ".safetensors":
        raise OptionError(
            "{model} {found} is a file; give a .safetensors checkpoint, or the folder of a model in diffusers' format",
            found=shown(name),
        )
    names = tensor_names("model", path)
    if any(".lora" in one or one.startswith("lora_") for one in names):
        raise OptionError("{model} {found} is a LoRA; give it to {lora}", found=shown(name))
    if config is not None and not (Path(config).expanduser() / INDEX).is_file():
        raise OptionError("{config} {found} is not a folder with a model_index.json", found=shown(config))


def load_single_file(name: str, config: str | None, dtype: Any) -> Any:
    """A pipeline from a single-file checkpoint.

    Args:
        name: A .safetensors file.
        config: A folder of the same kind of model in diffusers' format, for configurations, tokenizers and the
            scheduler; None: the original model's, from the local cache or the Hub.
        dtype: Precision of the weights.

    Raises:
        OptionError: The file is not a checkpoint, or its model is unknown to diffusers.
    """
    check_single_file(name, config)
    path = Path(name).expanduser()
    try:
        folder = _original(path) if config is None else str(Path(config).expanduser().absolute())
        kind = _pipeline_class(folder)
        pipe = kind.from_single_file(
            str(path.absolute()), config=folder, local_files_only=config is not None, dtype=dtype
        )
    except Exception as error:  # the Hub's, the converter's and the loaders' errors share no base class
        hint = "" if config is not None else "; give {config}, a folder of the same kind of model in diffusers' format"
        raise OptionError(
            f"{{model}} {{found}} cannot be loaded: {{reason}}{hint}", found=shown(name), reason=reason_of(error)
        ) from error
    pipe.register_to_config(_name_or_path=folder)  # whose selfcascade.json, if there is one, is this kind of model's
    return pipe


def _original(path: Path) -> str:
    """The Hub id of the model that a checkpoint is a version of, found from its tensors."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint

    return str(fetch_diffusers_config(load_single_file_checkpoint(str(path)))["pretrained_model_name_or_path"])


def _pipeline_class(folder: str) -> Any:
    import diffusers

    index = Path(folder) / INDEX
    if index.is_file():
        name = json.loads(index.read_text("utf-8")).get("_class_name")
    else:
        stated: Any = diffusers.DiffusionPipeline.load_config(folder)
        name = stated.get("_class_name")
    kind = getattr(diffusers, str(name), None)
    if kind is None or not hasattr(kind, "from_single_file"):
        raise ValueError(f"a {name} is not loaded from a single file")
    return kind
