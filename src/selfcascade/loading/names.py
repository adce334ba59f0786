"""Names of models, folders and devices, checked before they are looked up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from selfcascade.options.checks import shown

if TYPE_CHECKING:
    import torch

Device: TypeAlias = "str | torch.device"
MAX_NAME = 255  # bytes, on the usual file systems


def checked_name(option: str, name: object) -> str:
    """The name of a model or a folder, as text.

    Raises:
        ValueError: The name is neither text nor a path, is empty, or has characters that no name may have.
    """
    text = name if isinstance(name, str) else str(name) if isinstance(name, Path) else ""
    if not text or "\0" in text or len(Path(text).name.encode(errors="surrogateescape")) > MAX_NAME:
        raise ValueError(f"{option} must be a name or a folder, not {shown(name)}")
    return text
