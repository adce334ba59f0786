"""The ways that can be compared: presets, and the other methods."""

from __future__ import annotations

from selfcascade.making import TUNED
from selfcascade.methods import METHODS
from selfcascade.models import bundled_upsamplers
from selfcascade.options import Options
from selfcascade.options.presets import PRESETS


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
