"""Fine-tuned at the large size: the whole U-Net, or a LoRA, from `selfcascade train`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from selfcascade.methods.direct import Direct
from selfcascade.methods.self_cascade import without_tuning
from selfcascade.pipeline import SelfCascade

ADAPTER = "selfcascade-fine-tuned"


class FineTuned:
    """Weights trained at the target size, sampled there directly as the paper does, or inside the cascade.

    Args:
        name: "full-ft" or "lora".
        summary: In a line.
        lent: Makes the context in which a pipeline has the weights of a folder.
    """

    from_base = False

    def __init__(self, name: str, summary: str, lent: Any) -> None:
        self.name, self.summary, self.lent = name, summary, lent

    def __call__(
        self,
        pipe: Any,
        prompt: str | list[str],
        *,
        height: int,
        width: int,
        native_size: tuple[int, int] | None = None,
        weights: str | Path | None = None,
        in_cascade: bool = False,
        **arguments: Any,
    ) -> Any:
        """A `SelfCascadeOutput`.

        Args:
            pipe: The base model's pipeline; it has its own weights again afterwards.
            prompt: One or several.
            height, width: Of the pictures, in pixels.
            native_size: As in `SelfCascade`.
            weights: Folder that `selfcascade train --method full` or `lora` wrote.
            in_cascade: Only the stages above the native size use the weights, from the base model's own sample.
            arguments: As in `SelfCascade.__call__`.

        Raises:
            ValueError: There are no weights, or they do not fit the model.
        """
        if weights is None:
            raise ValueError(f"method {self.name} needs weights: --weights DIR, or weights='DIR'")
        if not in_cascade:
            with self.lent(pipe, Path(weights)):
                return Direct()(pipe, prompt, height=height, width=width, **arguments)
        cascade = SelfCascade(pipe, native_size=native_size)
        arguments = without_tuning(arguments)
        base = cascade.plan(height, width)[0].size
        sized = {"height": height, "width": width}
        first: Any = cascade(
            prompt, **{**arguments, "height": base.height, "width": base.width, "output_type": "latent"}
        )
        with self.lent(pipe, Path(weights)):
            output: Any = cascade(prompt, **sized, **arguments, pivot=first.stages[-1].latents)
        output.stages[:0] = first.stages
        return output


@contextlib.contextmanager
def whole_unet(pipe: Any, folder: Path) -> Iterator[None]:
    """Within it the pipeline has the folder's U-Net.

    Raises:
        ValueError: The folder has no U-Net, or one of another shape.
    """
    own = pipe.unet
    try:
        tuned = type(own).from_pretrained(folder, subfolder="unet", torch_dtype=own.dtype, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"weights {str(folder)!r} hold no U-Net: {str(error).splitlines()[0]}") from error
    shapes = {name: tuple(value.shape) for name, value in own.state_dict().items()}
    if {name: tuple(value.shape) for name, value in tuned.state_dict().items()} != shapes:
        raise ValueError(f"weights {str(folder)!r} are of another U-Net than this pipeline's")
    pipe.unet = tuned.to(own.device).eval()
    try:
        yield
    finally:
        pipe.unet = own


@contextlib.contextmanager
def lora(pipe: Any, folder: Path) -> Iterator[None]:
    """Within it the pipeline has the folder's LoRA beside those that are active.

    Raises:
        ValueError: The folder has no LoRA, or one for another model.
    """
    active = list(pipe.get_active_adapters()) if getattr(pipe.unet, "peft_config", None) else []
    strengths = _strengths(pipe)
    try:
        pipe.load_lora_weights(folder, adapter_name=ADAPTER, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"weights {str(folder)!r} hold no LoRA for this model: {reason}") from error
    try:
        _activate(pipe, [*active, ADAPTER], strengths)
        yield
    finally:
        if active:
            pipe.delete_adapters(ADAPTER)
            _activate(pipe, active, strengths)
        else:
            pipe.unload_lora_weights()


def _activate(pipe: Any, names: list[str], strengths: dict[Any, dict[str, float]]) -> None:
    pipe.set_adapters(names)
    for layer, scaling in strengths.items():  # which set_adapters has put back to 1
        layer.scaling.update(scaling)


def _strengths(pipe: Any) -> dict[Any, dict[str, float]]:
    """The strengths of the adapters in every layer that has some."""
    parts = (part for part in pipe.components.values() if isinstance(part, nn.Module))
    layers: list[Any] = [module for part in parts for module in part.modules()]
    return {layer: dict(layer.scaling) for layer in layers if isinstance(getattr(layer, "scaling", None), dict)}


FULL = FineTuned("full-ft", "the whole U-Net fine-tuned at the target size, sampled there directly", whole_unet)
LORA = FineTuned("lora", "a LoRA trained at the target size, sampled there directly", lora)
