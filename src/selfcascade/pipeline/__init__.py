"""`SelfCascade`: plans the stages of a call, and runs them."""

from __future__ import annotations

from selfcascade.pipeline.cascade_pipeline import SelfCascade

__all__ = ["SelfCascade"]
