"""The ways that can be compared: presets, and the other methods; and the stages that enlarge a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfcascade.making import TUNED
from selfcascade.methods import METHODS
from selfcascade.models import bundled_upsamplers
from selfcascade.options import Options
from selfcascade.options.presets import PRESETS

if TYPE_CHECKING:
    from PIL import Image

    from selfcascade.cascade import Stage
    from selfcascade.pipeline import SelfCascade


def ways(base: Options) -> list[str]:
    """Presets, and methods that need nothing that the page lacks.

    Args:
        base: Options of the command line.
    """
    own = [TUNED] if base.model == "bundled" and bundled_upsamplers() else []
    named = [name for name, method in METHODS.items() if not method.needs and name != "self-cascade"]
    return [*PRESETS, *own, *named]


def way_options(options: Options, way: str) -> Options:
    """The options for one way, without those that it does not take."""
    if way in PRESETS:
        return options.changed(method="self-cascade", preset=way)
    upsamplers = bundled_upsamplers()[0] if way == TUNED else None
    own = options.changed(method=way, preset=None, upsamplers=upsamplers)
    return own.changed(**{name: None for name in own.given() if not METHODS[way].accepts(name)})


def stages_above(cascade: SelfCascade, image: Image.Image, options: Options) -> tuple[Stage, ...]:
    """The stages that enlarge a visitor's picture.

    Raises:
        ValueError: A setting is out of range, or the target has fewer pixels than the picture.
    """
    from selfcascade.cascade import Size
    from selfcascade.pipeline.planning import enlarged_size, planned, sizes_from

    own, native = Size(image.height, image.width), cascade.native_size
    sizes, _ = sizes_from(own, enlarged_size(own, cascade.multiple, options), native, cascade.multiple)
    preset = cascade.chosen_preset(options)
    return planned(cascade.schedules, native, cascade.defaults, sizes, 0, preset, options)
