"""Self-Cascade nodes for ComfyUI: copy or link this folder into `custom_nodes`, and `pip install selfcascade`."""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
