"""Arrows point one way, files stay small, and importing the package costs next to nothing."""

import ast
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import selfcascade
from selfcascade import cascade
from selfcascade.options import checks

ROOT = Path(__file__).parents[1]
HOMES, VERSION = selfcascade._HOMES, "selfcascade.__version__"
SOURCE = Path(selfcascade.__path__[0])


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


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The table of docs/architecture.md: each room and those that it imports."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return {name: set(own.imports) for name, own in importlib.import_module("architecture").ROOMS.items()}


def test_every_file_imports_what_its_room_may_and_every_arrow_is_there(rooms: dict[str, set[str]]) -> None:
    found: dict[str, set[str]] = {name: set() for name in rooms}
    for path in files():
        own = room(path)
        if own == "__init__":  # the public names, each of which is loaded when it is first used
            continue
        ours = {module.split(".")[1] for module in imports(path) if module.startswith("selfcascade.")} - {own}
        assert ours <= rooms[own], f"{path.relative_to(SOURCE)} imports {', '.join(ours - rooms[own])}"
        found[own] |= ours
    unused = {name: rooms[name] - found[name] for name in rooms if rooms[name] - found[name]}
    assert not unused, f"docs/architecture.py: ROOMS has arrows that no file needs: {unused}"


def test_the_rooms_are_those_of_the_table_without_a_circle(rooms: dict[str, set[str]]) -> None:
    assert set(rooms) == {room(path) for path in files()} - {"__init__"}
    assert len(rooms) <= 24
    for number, (own, others) in enumerate(rooms.items()):
        assert others <= set(list(rooms)[:number]), f"{own} stands above rooms that it imports"


def test_no_two_modules_have_one_name() -> None:
    """Commands apart, which are named as the user types them, and the parallel packages of generated data."""
    shared = [path for path in files() if room(path) != "cli" and len(path.relative_to(SOURCE).parts) < 3]
    names = Counter(path.stem for path in shared if path.stem != "__init__")
    assert not [name for name, count in names.items() if count > 1]


def test_the_algorithm_stands_on_torch_alone_and_fits_on_a_page() -> None:
    path = SOURCE / "cascade.py"
    roots = {module.split(".")[0] for module in imports(path)}
    assert roots - set(sys.stdlib_module_names) == {"torch"}
    assert len(path.read_text().splitlines()) < 200


def test_the_largest_side_is_the_same_with_torch_and_without() -> None:
    assert cascade.MAX_SIDE == checks.MAX_SIDE


ELSEWHERE = [
    path for room in ("integrations", "recipes", "experiments") for path in sorted((ROOT / room).rglob("*.py"))
]


def test_files_and_functions_are_short() -> None:
    assert not [path.name for path in (*files(), *ELSEWHERE) if len(path.read_text().splitlines()) > 300]
    nodes = [node for path in (*files(), *ELSEWHERE) for node in ast.walk(ast.parse(path.read_text()))]
    functions = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert len(functions) > 2000
    assert not [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 60]


def annotations(path: Path) -> list[ast.expr]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    given = [node.annotation for node in nodes if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation]
    returned = [node.returns for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [*given, *(node for node in returned if node)]


@pytest.mark.parametrize("name", ["cascade", "pipeline", "options", "base_models", "upsamplers", "methods"])
def test_fewer_than_one_annotation_in_twenty_says_nothing(name: str) -> None:
    found = [node for path in files() if room(path) == name for node in annotations(path)]
    bare = [node for node in found if isinstance(node, ast.Name) and node.id == "Any"]
    assert len(bare) < 0.05 * len(found), f"{len(bare)} of {len(found)} annotations in {name} are Any"


def test_importing_the_package_or_its_command_line_loads_no_torch() -> None:
    code = "import sys, selfcascade, selfcascade.cli; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_imported() -> None:
    for name in selfcascade.__all__:
        assert getattr(selfcascade, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = selfcascade.nothing
