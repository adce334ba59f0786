"""What an installation has beside the code: types, the module as a command, completion, addresses, pins that fit."""

import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import selfcascade
from command_line import SRC, run

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_type_checkers_read_the_types() -> None:
    assert (Path(selfcascade.__file__).parent / "py.typed").is_file()


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "selfcascade", "--version"]
    said = subprocess.run(command, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=True).stdout
    assert said == f"selfcascade {selfcascade.__version__}\n"


def test_the_command_offers_completion() -> None:
    assert "--install-completion" in run("--help").stdout


def test_the_project_has_an_address() -> None:
    assert all(address.startswith("https://") for address in PROJECT["urls"].values()) and PROJECT["urls"]


def test_every_extra_fits_the_pinned_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-"))]
    versions = {one.name.lower().replace("_", "-"): next(iter(one.specifier)).version for one in pinned}
    wanted = [Requirement(one) for extra in PROJECT["optional-dependencies"].values() for one in extra]
    for one in wanted:
        name = one.name.lower().replace("_", "-")
        assert name not in versions or one.specifier.contains(versions[name], prereleases=True), str(one)


@pytest.mark.parametrize("call", ["__call__", "upscale"])
def test_a_call_returns_an_output_and_a_tuple_where_it_is_asked_for(call: str) -> None:
    """So a type checker knows `.images` without a cast."""
    first, second = typing.get_overloads(getattr(selfcascade.SelfCascade, call))
    assert first.__annotations__["return"] == "SelfCascadeOutput"
    assert first.__annotations__["return_dict"] == "Literal[True]"
    assert second.__annotations__["return"].startswith("tuple[")
    assert second.__annotations__["return_dict"] == "Literal[False]"
