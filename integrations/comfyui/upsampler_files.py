"""Feature upsamplers by name: the bundled model's, and the folders in ComfyUI's `models/selfcascade`."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from selfcascade.models import bundled_upsamplers, load_upsamplers
from selfcascade.upsamplers.model import FeatureUpsamplers

KIND = "selfcascade"
BUNDLED = "bundled: "

folder_paths.add_model_folder_path(KIND, str(Path(folder_paths.models_dir) / KIND))


def names() -> list[str]:
    """Names of all upsamplers, the user's own first."""
    return [*sorted(_folders()), *(f"{BUNDLED}{name}" for name in bundled_upsamplers())]


def load(name: str) -> FeatureUpsamplers:
    """Upsamplers of this name.

    Raises:
        ValueError: There are none, or they cannot be read.
    """
    if name.startswith(BUNDLED):
        return load_upsamplers(name.removeprefix(BUNDLED))
    folders = _folders()
    if name not in folders:
        raise ValueError(f"upsamplers must be one of {', '.join(names())}, not {name[:60]!r}")
    return load_upsamplers(str(folders[name]))


def _folders() -> dict[str, Path]:
    places = (Path(place) for place in folder_paths.get_folder_paths(KIND))
    found = [config.parent for place in places if place.is_dir() for config in place.rglob("config.json")]
    roots = [Path(place) for place in folder_paths.get_folder_paths(KIND)]
    return {
        str(folder.relative_to(root)): folder for root in reversed(roots) for folder in found if root in folder.parents
    }
