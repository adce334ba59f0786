"""Optional packages: whether they are installed, and which extra installs them."""

from __future__ import annotations

from importlib.util import find_spec

# Extras by the name that a package is imported under, the smallest extra first.
EXTRAS: dict[str, tuple[str, ...]] = {
    "av": ("video", "train", "web"),
    "gradio": ("web",),
    "matplotlib": ("eval",),
    "peft": ("lora", "train"),
    "pyarrow": ("parquet",),
    "ray": ("ray",),
    "scipy": ("schedulers",),
    "spandrel": ("upscalers",),
    "tensorboard": ("train",),
    "torch_fidelity": ("eval",),
}


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return find_spec(package) is not None


def install(package: str, extra: str | None = None) -> str:
    """The command that installs a package.

    Args:
        package: The name it is imported under. A package in no extra is installed by itself.
        extra: Which of its extras is meant; None means the smallest.
    """
    if package not in EXTRAS:
        return f"pip install {package}"
    chosen = EXTRAS[package][0] if extra is None else extra
    return f"pip install 'selfcascade[{chosen}]'"
