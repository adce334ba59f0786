"""Every package that is not always installed is looked up, and the sentence that misses it says what to install."""

import ast
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfcascade.batch.on_ray import _cluster  # pyright: ignore[reportPrivateUsage]
from selfcascade.batch.rows import ParquetPrompts
from selfcascade.loading.additions import check_additions
from selfcascade.loading.upscaler_files import read_upscaler
from selfcascade.media.mp4_files import pyav
from selfcascade.media.video_files import probe_clip
from selfcascade.metrics.detectors import Inception
from selfcascade.options import Options
from selfcascade.options.optional import EXTRAS, install
from selfcascade.report.plots import pyplot
from selfcascade.training.config import TrainingConfig
from selfcascade.training.extras import check_extras
from selfcascade.web.serve import check_installed

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What is imported under another name than it is installed by.
NAMES = {"pillow": "PIL", "scikit-learn": "sklearn", "torch-fidelity": "torch_fidelity"}
BY_ITSELF = {"bitsandbytes"}  # it runs on few machines, so no extra brings it
OF_GRADIO = {"fastapi", "starlette", "uvicorn"}


def names(requirements: list[str]) -> set[str]:
    found = {next(part for part in text.replace("[", ">").split(">") if part).strip() for text in requirements}
    return {NAMES.get(name.lower(), name) for name in found}


def test_the_extras_bring_what_they_are_said_to() -> None:
    optional = PROJECT["optional-dependencies"]
    for package, extras in EXTRAS.items():
        assert set(extras) == {extra for extra in optional if package in names(optional[extra])} - {"dev"}


def test_what_is_imported_is_a_dependency_or_known_to_be_optional() -> None:
    known = (
        names(PROJECT["dependencies"])
        | set(EXTRAS)
        | BY_ITSELF
        | OF_GRADIO
        | set(sys.stdlib_module_names)
        | {"selfcascade"}
    )
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [str(node.module)] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in found} - known, path
        assert "pip install" not in text or path.name == "optional.py", f"{path} has a hint of its own"


CASES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "av to write": ("av", lambda _: pyav(), install("av")),
    "av to read": ("av", lambda folder: probe_clip(folder / "a.mp4"), install("av")),
    "peft": ("peft", lambda _: check_additions(Options(lora=("a.safetensors",))), install("peft")),
    "ray": ("ray", lambda _: _cluster().__enter__(), install("ray")),
    "spandrel": ("spandrel", lambda folder: read_upscaler(folder / "a.safetensors"), install("spandrel")),
    "scipy": ("scipy", lambda _: check_additions(Options(scheduler="lms")), install("scipy")),
    "pyarrow": ("pyarrow", lambda folder: ParquetPrompts(folder / "a.parquet"), install("pyarrow")),
    "matplotlib": ("matplotlib", lambda _: pyplot(), install("matplotlib")),
    "gradio": ("gradio", lambda _: check_installed(), install("gradio")),
    "torch_fidelity": ("torch_fidelity", lambda folder: Inception(str(folder)), install("torch_fidelity")),
    "tensorboard": (
        "tensorboard",
        lambda folder: check_extras(TrainingConfig(output_dir=str(folder), report_to="tensorboard")),
        install("tensorboard"),
    ),
}


def test_every_optional_package_has_a_case() -> None:
    assert {package for package, _, _ in CASES.values()} == set(EXTRAS)


@pytest.mark.parametrize("case", CASES)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, use, hint = CASES[case]
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError) as caught:
        use(tmp_path)
    assert hint in str(caught.value)
    assert hint == f"pip install 'selfcascade[{EXTRAS[package][0]}]'"


def test_a_package_of_no_extra_is_installed_by_itself() -> None:
    assert install("bitsandbytes") == "pip install bitsandbytes"
    assert install("peft", "train") == "pip install 'selfcascade[train]'"
