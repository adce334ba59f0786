"""The self-cascade as methods: tuning-free, and tuned with feature upsamplers."""

from __future__ import annotations

from typing import Any

from selfcascade.pipeline import SelfCascade
from selfcascade.upsamplers.model import FeatureUpsamplers


def without_tuning(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the tuning-free version."""
    return {name: value for name, value in arguments.items() if name not in ("upsamplers", "upsampler_scale")}


class SelfCascadeMethod:
    """The paper's tuning-free version: base sample, then stages from its pivot."""

    name = "self-cascade"
    from_base = True
    summary = "base sample, then upsample, re-noise to K and denoise with the same model, stage by stage"

    def __call__(
        self,
        pipe: Any,
        prompt: str | list[str],
        *,
        height: int,
        width: int,
        native_size: tuple[int, int] | None = None,
        **arguments: Any,
    ) -> Any:
        """A `SelfCascadeOutput`; arguments as in `SelfCascade.__call__`, those of the tuned version left out."""
        cascade = SelfCascade(pipe, native_size=native_size)
        return cascade(prompt, height=height, width=width, **without_tuning(arguments))


class SelfCascadeTunedMethod:
    """The paper's tuned version: every step of a stage also gets the pivot's upsampled skip features."""

    name = "self-cascade-tuned"
    from_base = True
    summary = "self-cascade with trained feature upsamplers, which carry the pivot's features into every step"

    def __call__(
        self,
        pipe: Any,
        prompt: str | list[str],
        *,
        height: int,
        width: int,
        native_size: tuple[int, int] | None = None,
        upsamplers: FeatureUpsamplers | None = None,
        **arguments: Any,
    ) -> Any:
        """A `SelfCascadeOutput`.

        Raises:
            ValueError: There are no upsamplers, or they were made for another model.
        """
        if upsamplers is None:
            raise ValueError(
                f"method {self.name} needs upsamplers: --upsamplers DIR, or upsamplers=FeatureUpsamplers(...)"
            )
        cascade = SelfCascade(pipe, upsamplers, native_size)
        return cascade(prompt, height=height, width=width, **arguments)
