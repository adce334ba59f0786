"""Real diffusers pipelines with random weights, small enough to build and run in a test, made without any download."""

from .dits import DITS
from .packed import PACKED
from .parts import TinyPipeline
from .plugins import add_tiny_ip_adapter, add_tiny_lora, tiny_controlnet
from .sized import SIZED
from .unets import UNETS
from .videos import VIDEOS

TINY: dict[str, TinyPipeline] = {entry.name: entry for entry in (*UNETS, *DITS, *SIZED, *PACKED, *VIDEOS)}

__all__ = ["TINY", "TinyPipeline", "add_tiny_ip_adapter", "add_tiny_lora", "tiny_controlnet"]
