"""`SelfCascade`: from a call's arguments to planned stages, and from these to pictures."""

from __future__ import annotations

from selfcascade.pipeline.cascade_pipeline import TILING_AREA, SelfCascade

__all__ = ["TILING_AREA", "SelfCascade"]
