"""Fine-tuning at the large size: the whole U-Net, or a LoRA, from `selfcascade train`."""

from __future__ import annotations

import contextlib
import importlib
import re
from abc import abstractmethod
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.utils import state_dict_utils
from torch import Tensor, nn

from selfcascade.base_models.family import denoiser
from selfcascade.base_models.protocols import Pipeline
from selfcascade.methods.direct import base_sample, sampled_at
from selfcascade.methods.method import Method, MethodRequest
from selfcascade.options import Options
from selfcascade.options.methods import is_of_cascade
from selfcascade.options.optional import install, is_installed
from selfcascade.pipeline.calls import SelfCascadeOutput
from selfcascade.pipeline.named_upscalers import held_for

ADAPTER = "selfcascade-fine-tuned"
LAYER = re.compile(r"(?:unet|transformer)\.(.+)\.lora_A\.weight")


class FineTuned(Method):
    """Weights trained at the target size, sampled there directly as in the paper, or inside the cascade.

    `weights` is the folder that `selfcascade train` wrote. With `in_cascade` only stages above the native size use
    them, starting from the base model's own sample.
    """

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """Makes the pictures; the pipeline's own weights are restored afterwards.

        Raises:
            ValueError: The weights do not fit the model.
        """
        arguments, folder = request.without("weights", "in_cascade"), Path(request.arguments["weights"])
        if not request.arguments.get("in_cascade"):
            with self.lent(request.pipe, folder):
                return sampled_at(request.pipe, request.prompt, request.target, arguments)
        base = {name: value for name, value in arguments.items() if not is_of_cascade(name)}
        given = Options(**{name: value for name, value in arguments.items() if is_of_cascade(name)})
        request.cascade.chosen_preset(given)
        if isinstance(given.pivot_upscaler, str):
            arguments["pivot_upscaler"] = held_for(request.cascade.family, given.pivot_upscaler)
        with self.lent(request.pipe, folder):  # refused, if at all, before the base sample is made
            request.cascade.prepared(request.prompt, {**request.target._asdict(), **arguments})
        first = base_sample(request, base)
        pivot = first.stages[-1].latents
        with self.lent(request.pipe, folder):
            output = request.cascaded({**arguments, "pivot": pivot})
        output.stages[:0] = first.stages
        return output

    @abstractmethod
    def lent(self, pipe: Pipeline, folder: Path) -> contextlib.AbstractContextManager[None]:
        """A context in which the pipeline has the folder's weights."""


class FullFineTuning(FineTuned, options="full-ft"):
    """The whole U-Net."""

    summary = "the whole U-Net fine-tuned at the target size, sampled there directly"

    def lent(self, pipe: Pipeline, folder: Path) -> contextlib.AbstractContextManager[None]:
        """See `whole_unet`."""
        return whole_unet(pipe, folder)


class LoraFineTuning(FineTuned, options="lora"):
    """A LoRA."""

    summary = "a LoRA trained at the target size, sampled there directly"

    def lent(self, pipe: Pipeline, folder: Path) -> contextlib.AbstractContextManager[None]:
        """See `lora`."""
        return lora(pipe, folder)


@contextlib.contextmanager
def whole_unet(pipe: Pipeline, folder: Path) -> Generator[None]:
    """Gives the pipeline's U-Net the folder's weights within this context; adapters, processors and hooks stay.

    Raises:
        ValueError: The folder has no U-Net, or one of another shape, or the pipeline's weights are offloaded or
            quantised.
    """
    unet: Any = getattr(pipe.unet, "_orig_mod", pipe.unet)
    kind = cast("Any", type(unet))
    try:
        tuned: dict[str, Tensor] = kind.from_pretrained(folder, subfolder="unet", local_files_only=True).state_dict()
    except (OSError, ValueError) as error:
        raise ValueError(f"weights {str(folder)!r} hold no U-Net: {str(error).splitlines()[0]}") from error
    held = _held(unet)
    if any(value.is_meta or not value.is_floating_point() for name, value in held.items() if name in tuned):
        raise ValueError("method full-ft needs the U-Net's weights as they are: not offloaded in parts, not quantised")
    if any(name not in held or held[name].shape != value.shape for name, value in tuned.items()):
        raise ValueError(f"weights {str(folder)!r} are of another U-Net than this pipeline's")
    own = {name: held[name].detach().clone() for name in tuned}
    try:
        _put(held, tuned)
        yield
    finally:
        _put(_held(unet), own)  # offloading may have replaced the tensors


def _held(unet: nn.Module) -> dict[str, Tensor]:
    """The weights by the names of the bare U-Net; layers inside adapters are found as their base layer."""
    return {name.replace(".base_layer.", "."): value for name, value in unet.state_dict().items()}


@torch.no_grad()
def _put(held: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        held[name].copy_(value)


@contextlib.contextmanager
def lora(pipe: Pipeline, folder: Path) -> Generator[None]:
    """Adds the folder's LoRA to the active ones within this context.

    Raises:
        ValueError: The folder has no LoRA, or one for another model.
    """
    if not is_installed("peft"):
        raise ValueError(f"a LoRA needs the package peft: {install('peft')}")
    before = {part: list(part.active_adapters()) for part in _adapted(pipe)}
    disabled = [
        part for part in before if any(getattr(module, "disable_adapters", False) is True for module in part.modules())
    ]
    strengths, trainable = _strengths(pipe), _trainable(pipe)
    try:
        try:
            _load(pipe, folder)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"weights {str(folder)!r} hold no LoRA for this model: {reason}") from error
        for part in _adapted(pipe):
            if ADAPTER in part.peft_config:
                part.set_adapter([*([] if part in disabled else before.get(part, [])), ADAPTER])
                part.enable_adapters()
        _restore(strengths)
        yield
    finally:
        for part in _modules(pipe):
            if part not in before:
                _unwrap(part)
        for part, names in before.items():
            if ADAPTER in part.peft_config:
                part.delete_adapter(ADAPTER) if hasattr(part, "delete_adapter") else part.delete_adapters(ADAPTER)
            part.set_adapter(names)
            if part in disabled:
                part.disable_adapters()
        _restore(strengths)
        for weight in trainable:  # loading an adapter freezes all others
            weight.requires_grad_(True)


def _load(pipe: Pipeline, folder: Path) -> None:
    """Loads all layers of the folder's LoRA as an adapter with our name.

    Raises:
        ValueError: The pipeline takes no LoRA, or its denoiser lacks a layer, for which diffusers only warns.
    """
    if not hasattr(pipe, "lora_state_dict"):
        raise ValueError(f"diffusers loads no LoRA into a {type(pipe).__name__}")
    loaded: tuple[dict[str, Tensor], Any, Any] = pipe.lora_state_dict(
        folder, local_files_only=True, return_lora_metadata=True
    )
    state, _, metadata = loaded
    in_peft_names = {"lora_A" in key for key in state}
    if in_peft_names == {True, False} and hasattr(
        pipe, "unet"
    ):  # old versions of `selfcascade train` wrote U-Nets' layers so
        state = _in_peft_names(state)
        pipe.load_lora_into_unet(state, None, pipe.unet, adapter_name=ADAPTER, metadata=metadata, _pipeline=pipe)
    else:
        pipe.load_lora_weights(folder, adapter_name=ADAPTER, local_files_only=True)
    wanted = {layer[1] for key in _in_peft_names(state) if (layer := LAYER.fullmatch(key))}
    network: nn.Module = denoiser(pipe)
    found = {
        name
        for name, layer in cast("Iterator[tuple[str, nn.Module]]", network.named_modules())
        if ADAPTER in getattr(layer, "lora_A", ())
    }
    if lost := sorted(wanted - found):
        raise ValueError(f"{len(lost)} of its {len(wanted)} layers are not in it, such as {lost[0]}")


def _in_peft_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return cast("Any", state_dict_utils).convert_unet_state_dict_to_peft(state)


def _unwrap(part: Any) -> None:
    """Removes all adapters from a part, including those of a failed loading, which leaves wrapped layers behind."""
    peft_utils: Any = importlib.import_module("diffusers.utils.peft_utils")  # it needs peft
    peft_utils.recurse_remove_peft_layers(part)
    if getattr(part, "peft_config", None):
        del part.peft_config
        part._hf_peft_config_loaded = False


def _modules(pipe: Pipeline) -> list[Any]:
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


def _adapted(pipe: Pipeline) -> list[Any]:
    """Parts of the pipeline that have adapters."""
    return [part for part in _modules(pipe) if getattr(part, "peft_config", None)]


def _strengths(pipe: Pipeline) -> dict[Any, dict[str, float]]:
    """Strengths of the adapters in each layer that has any."""
    layers: list[Any] = [module for part in _modules(pipe) for module in part.modules()]
    return {layer: dict(layer.scaling) for layer in layers if isinstance(getattr(layer, "scaling", None), dict)}


def _trainable(pipe: Pipeline) -> list[nn.Parameter]:
    return [weight for part in _modules(pipe) for weight in part.parameters() if weight.requires_grad]


def _restore(strengths: dict[Any, dict[str, float]]) -> None:
    for layer, scaling in strengths.items():  # activating adapters may have reset them to 1
        layer.scaling.update(scaling)
