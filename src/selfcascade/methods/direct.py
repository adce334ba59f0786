"""Direct inference: the pipeline asked for the target size, as if it had been trained there."""

from __future__ import annotations

from typing import Any

from selfcascade.pipeline import SelfCascade

OF_THE_CASCADE = frozenset({"pivot_step", "preset", "upsampling", "native_size", "upsamplers", "upsampler_scale"})


class Direct:
    """The first row of the paper's tables: the base model at the target size, from pure noise."""

    name = "direct"
    from_base = False
    summary = "the base model asked for the target size at once (objects repeat)"

    def __call__(self, pipe: Any, prompt: str | list[str], *, height: int, width: int, **arguments: Any) -> Any:
        """The pipeline's own output at (height, width); arguments of the cascade alone are left out."""
        arguments = {name: value for name, value in arguments.items() if name not in OF_THE_CASCADE}
        cascade = SelfCascade(pipe, native_size=(height, width))
        return cascade(prompt, height=height, width=width, **arguments)
