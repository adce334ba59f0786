"""Arrows point one way, files stay small, and importing the package costs next to nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import selfcascade

HOMES, VERSION = selfcascade._HOMES, "selfcascade.__version__"
SOURCE = Path(selfcascade.__path__[0])
# A room (a package or a module of the root) may import those named beside it; `cascade` stands on nothing but torch.
MAY_IMPORT: dict[str, set[str]] = {
    "cascade": set(),
    "checks": set(),
    "presets": {"checks"},
    "options": {"checks", "presets"},
    "media": {"checks"},
    "metrics": set(),
    "base_models": {"cascade", "checks"},
    "upsamplers": {"base_models", "checks"},
    "models": {"upsamplers"},
    "data": {"cascade", "media"},
    "calls": {"base_models", "cascade", "checks", "options"},
    "planning": {"base_models", "cascade", "checks", "options", "presets", "upsamplers"},
    "pipeline": {"base_models", "calls", "cascade", "media", "options", "planning", "presets", "upsamplers"},
    "methods": {"base_models", "calls", "cascade", "checks", "models", "options", "pipeline", "presets"},
    "cost": {"base_models", "cascade", "checks", "pipeline"},
    "training": {"base_models", "cascade", "checks", "data", "media", "models", "pipeline", "upsamplers"},
    "evaluation": {
        *("base_models", "cascade", "data", "media", "methods", "metrics", "models", "pipeline", "upsamplers")
    },
    "experiments": {
        *("base_models", "cascade", "data", "evaluation", "media", "methods", "models", "options", "training")
    },
    "report": {"data", "evaluation", "media", "methods", "metrics", "models"},
    "cli": {
        *("calls", "checks", "cost", "experiments", "media", "methods", "models", "options", "pipeline", "presets"),
        *("report", "training"),
    },
    "demo": {"cli", "media", "options"},
    "__main__": {"cli"},
}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(str(node.module))
            if node.module == "selfcascade":  # names of the package stand for the modules they live in
                found |= {f"selfcascade.{HOMES.get(alias.name, alias.name)}" for alias in node.names} - {VERSION}
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_what_its_room_may(path: Path) -> None:
    own = room(path)
    if own == "__init__":  # the public names, all of which are loaded when they are first used
        return
    ours = {module.split(".")[1] for module in imports(path) if module.startswith("selfcascade.")}
    assert ours <= MAY_IMPORT[own] | {own}


def test_the_table_has_each_room_once_and_no_circle() -> None:
    rooms = {room(path) for path in files()} - {"__init__"}
    assert set(MAY_IMPORT) == rooms
    assert len(rooms) <= 24
    for number, (own, allowed) in enumerate(MAY_IMPORT.items()):
        assert allowed <= set(list(MAY_IMPORT)[:number]), f"{own} stands above rooms that it may import"


def test_the_algorithm_stands_on_torch_alone_and_fits_on_a_page() -> None:
    path = SOURCE / "cascade.py"
    roots = {module.split(".")[0] for module in imports(path)}
    assert roots - set(sys.stdlib_module_names) == {"torch"}
    assert len(path.read_text().splitlines()) < 200


def test_no_file_is_long() -> None:
    assert not [path.name for path in files() if len(path.read_text().splitlines()) > 300]


def test_importing_the_package_or_its_command_line_loads_no_torch() -> None:
    code = "import sys, selfcascade, selfcascade.cli; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_imported() -> None:
    for name in selfcascade.__all__:
        assert getattr(selfcascade, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = selfcascade.nothing
