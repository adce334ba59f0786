"""Adds a scheduler, LoRAs, a ControlNet and an IP-Adapter to a pipeline with diffusers' own methods."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

from selfcascade.base_models.named_schedulers import check_scheduler, scheduler_named
from selfcascade.loading.named_files import checked_sum, find_folder_of, find_weights, split_scale
from selfcascade.loading.reasons import reason_of
from selfcascade.media.images import read_image
from selfcascade.options import Options
from selfcascade.options.checks import OptionError, shown
from selfcascade.options.optional import install, is_installed


def check_additions(options: Options) -> None:
    """Raises OptionError if an addition needs a package that is not installed, or the scheduler is unknown."""
    if options.scheduler is not None:
        check_scheduler(options.scheduler)
    if options.lora and not is_installed("peft"):
        raise OptionError(f"{{lora}} needs peft: {install('peft')}")


def add_to(pipe: Any, options: Options) -> Any:
    """The pipeline with the options' additions.

    Args:
        pipe: The pipeline as loaded. With a ControlNet, a pipeline of another class is returned.
        options: Options that `check_files` has checked; the scheduler, LoRAs, ControlNet and IP-Adapter are used.

    Raises:
        ValueError: An addition does not fit the model; the message names the option.
    """
    if options.controlnet is not None:
        pipe = with_controlnet(pipe, options.controlnet)
    if options.ip_adapter is not None:
        add_ip_adapter(pipe, options.ip_adapter, 1.0 if options.ip_scale is None else options.ip_scale)
    if options.lora:
        add_loras(pipe, options.lora)
    if options.scheduler is not None:
        pipe.scheduler = scheduler_named(pipe.scheduler, options.scheduler)
    return pipe


def call_keywords(pipe: Any, options: Options) -> dict[str, Any]:
    """Keywords for every call of a pipeline from `add_to`: the control picture and the IP-Adapter's picture.

    Raises:
        OptionError: A picture is not the one that the options record.
    """
    keywords: dict[str, Any] = {}
    for option in ("control_image", "ip_image"):
        name = getattr(options, option)
        if name is not None:
            checked_sum(option, Path(name), options)  # a batch reads it for every block
    if options.control_image is not None:
        named = inspect.signature(pipe.__call__).parameters
        keywords["control_image" if "control_image" in named else "image"] = read_image(options.control_image)
    if options.control_scale is not None:
        keywords["controlnet_conditioning_scale"] = options.control_scale
    if options.ip_image is not None:
        keywords["ip_adapter_image"] = read_image(options.ip_image)
    return keywords


def add_loras(pipe: Any, entries: tuple[str, ...]) -> None:
    """Loads LoRAs with their strengths.

    Args:
        pipe: The pipeline.
        entries: One "PATH" or "PATH:SCALE" for each LoRA.

    Raises:
        OptionError: A LoRA cannot be loaded, or matches no layer of the model.
    """
    if not hasattr(pipe, "load_lora_weights"):
        raise OptionError("{lora} is not for a {name}, which loads none", name=type(pipe).__name__)
    weights: dict[str, float] = {}
    for number, entry in enumerate(entries, 1):
        path, scale = split_scale(entry)
        place, name = find_weights("lora", path), f"lora-{number}"
        given = {} if place.file is None else {"weight_name": place.file}
        local = {"local_files_only": True} if place.local else {}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second LoRA is meant
                pipe.load_lora_weights(place.folder, adapter_name=name, use_safetensors=True, **given, **local)
        except Exception as error:  # a file for another model fails in as many ways as there are models
            raise OptionError(
                "{lora} {found} cannot be loaded: {reason}", found=shown(path), reason=reason_of(error)
            ) from error
        if name not in {one for names in pipe.get_list_adapters().values() for one in names}:
            raise OptionError("{lora} {found} fits no layer of the model", found=shown(path))
        weights[name] = scale
    pipe.set_adapters(list(weights), list(weights.values()))


def with_controlnet(pipe: Any, name: str) -> Any:
    """A pipeline of the same components with this ControlNet.

    Raises:
        OptionError: The ControlNet cannot be loaded, or diffusers has no version of this pipeline with one.
    """
    import diffusers
    from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

    folder = find_folder_of("controlnet", name)
    local = {"local_files_only": True} if Path(folder).is_dir() else {}
    try:
        stated: Any = diffusers.ControlNetModel.load_config(folder, **local)
        kind = stated.get("_class_name", "ControlNetModel")
        if "ControlNet" not in kind or not hasattr(diffusers, kind):
            raise ValueError(f"its class is {kind}")
        loaded = getattr(diffusers, kind).from_pretrained(folder, dtype=pipe.dtype, use_safetensors=True, **local)
    except Exception as error:  # a damaged folder fails in as many ways as it has files
        raise OptionError(
            "{controlnet} {found} cannot be loaded: {reason}", found=shown(name), reason=reason_of(error)
        ) from error
    channels = stated.get("conditioning_embedding_out_channels")
    if channels is not None and hasattr(pipe, "vae_scale_factor"):
        own, given = pipe.vae_scale_factor, 2 ** (len(channels) - 1)
        if own != given:
            words = f"it reduces its picture {given} times a side, and the model's latents are {own} times smaller"
            raise OptionError(f"{{controlnet}} {{found}} does not go with the model: {words}", found=shown(name))
    try:
        return AutoPipelineForText2Image.from_pipe(pipe, controlnet=loaded)
    except Exception as error:
        raise OptionError(
            "{controlnet} does not go with a {kind}: {reason}", kind=type(pipe).__name__, reason=reason_of(error)
        ) from error


def add_ip_adapter(pipe: Any, name: str, scale: float) -> None:
    """Loads an IP-Adapter and the image encoder next to it.

    Raises:
        OptionError: The adapter cannot be loaded, or the pipeline supports none.
    """
    if not hasattr(pipe, "load_ip_adapter"):
        raise OptionError("{ip_adapter} is not for a {kind}, which loads none", kind=type(pipe).__name__)
    place = find_weights("ip_adapter", name)
    file = Path(str(place.file))
    local = {"local_files_only": True} if place.local else {}
    try:
        pipe.load_ip_adapter(place.folder, subfolder=str(file.parent), weight_name=file.name, **local)
        pipe.set_ip_adapter_scale(scale)
    except Exception as error:
        raise OptionError(
            "{ip_adapter} {found} cannot be loaded: {reason}", found=shown(name), reason=reason_of(error)
        ) from error
