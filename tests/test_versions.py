"""The oldest versions that are tested are the oldest that are allowed, and the pinned ones are allowed too."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def pins(name: str) -> dict[str, Version]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in (line.split("==") for line in lines)}


def bounds() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    return {canonicalize_name(item.name): item for item in map(Requirement, listed)}


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    oldest, allowed = pins("constraints-oldest.txt"), bounds()
    lower = {name: Version(next(iter(allowed[name].specifier)).version) for name in oldest}
    assert oldest == lower
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {canonicalize_name(Requirement(item).name) for item in needed} <= oldest.keys()


def test_the_pinned_versions_are_allowed() -> None:
    newest = pins("constraints.txt")
    assert not [name for name, item in bounds().items() if name in newest and newest[name] not in item.specifier]
