"""What is installed by name only: which extra of ours brings a package, and the words that say so."""

from __future__ import annotations

from importlib.util import find_spec

# Packages by the name they are imported under; the first extra is the smallest that brings one.
EXTRAS: dict[str, tuple[str, ...]] = {
    "av": ("video", "train", "web"),
    "gradio": ("web",),
    "matplotlib": ("eval",),
    "peft": ("lora", "train"),
    "pyarrow": ("parquet",),
    "ray": ("ray",),
    "scipy": ("schedulers",),
    "tensorboard": ("train",),
    "torch_fidelity": ("eval",),
}


def is_installed(package: str) -> bool:
    """Whether a package could be imported, found out without importing it."""
    return find_spec(package) is not None


def install(package: str, extra: str | None = None) -> str:
    """The command that installs a package.

    Args:
        package: The name it is imported under; one that no extra brings is installed by itself.
        extra: Which of the extras that bring it is meant; None is the smallest.
    """
    if package not in EXTRAS:
        return f"pip install {package}"
    chosen = EXTRAS[package][0] if extra is None else extra
    return f"pip install 'selfcascade[{chosen}]'"
