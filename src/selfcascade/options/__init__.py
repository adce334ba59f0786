"""The options of a call, the checks of their values, and the presets."""

from __future__ import annotations

from selfcascade.options.call_options import Options, OutputType, hints, uses
from selfcascade.options.use import MAKE, PLAN, Use

__all__ = ["MAKE", "PLAN", "Options", "OutputType", "Use", "hints", "uses"]
