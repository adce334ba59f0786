"""Self-cascade: a diffusion model trained at low resolution, at any size (Guo et al., ECCV 2024).

>>> pipe = selfcascade.load_bundled()
>>> out = selfcascade.SelfCascade(pipe)("a large red house on the left at night", height=128, width=128)
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

__version__ = importlib.metadata.version("selfcascade")

# Torch and diffusers take seconds to import, so nothing is until it is used (PEP 562).
_HOMES = {
    "Family": "base_models",
    "FeatureUpsamplers": "upsamplers.model",
    "METHODS": "methods",
    "Method": "methods",
    "Preset": "options.presets",
    "PRESETS": "options.presets",
    "SelfCascade": "pipeline",
    "SelfCascadeOutput": "pipeline.calls",
    "Size": "cascade",
    "Stage": "cascade",
    "StageResult": "cascade",
    "apply": "pipeline.applied",
    "load_bundled": "models",
    "load_model": "models",
    "plan_stages": "cascade",
    "remove": "pipeline.applied",
    "register_family": "base_models",
    "register_method": "methods",
}

__all__ = [
    "METHODS",
    "PRESETS",
    "Family",
    "FeatureUpsamplers",
    "Method",
    "Preset",
    "SelfCascade",
    "SelfCascadeOutput",
    "Size",
    "Stage",
    "StageResult",
    "__version__",
    "apply",
    "load_bundled",
    "load_model",
    "plan_stages",
    "register_family",
    "register_method",
    "remove",
]

if TYPE_CHECKING:
    from selfcascade.base_models import Family, register_family
    from selfcascade.cascade import Size, Stage, StageResult, plan_stages
    from selfcascade.methods import METHODS, Method, register_method
    from selfcascade.models import load_bundled, load_model
    from selfcascade.options.presets import PRESETS, Preset
    from selfcascade.pipeline import SelfCascade
    from selfcascade.pipeline.applied import apply, remove
    from selfcascade.pipeline.calls import SelfCascadeOutput
    from selfcascade.upsamplers.model import FeatureUpsamplers


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'selfcascade' has no attribute {name!r}")
    return getattr(importlib.import_module(f"selfcascade.{_HOMES[name]}"), name)
