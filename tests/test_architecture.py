"""Arrows point one way, files stay small, and importing the package costs next to nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import selfcascade

HOMES, VERSION = selfcascade._HOMES, "selfcascade.__version__"
SOURCE = Path(selfcascade.__path__[0])
# A room may import those on its right; `cascade` stands on nothing but torch.
MAY_IMPORT: dict[str, set[str]] = {
    "cascade": set(),
    "checks": set(),
    "presets": {"checks"},
    "options": {"checks", "presets"},
    "images": set(),
    "files": set(),
    "frame_rates": set(),
    "clips": {"frame_rates"},
    "frame_files": {"clips", "frame_rates", "images", "outputs"},
    "data": {"cascade", "clips", "images"},
    "metrics": set(),
    "models": {"feature_upsamplers"},
    "base_models": {"cascade"},
    "feature_upsamplers": {"frame_kernels"},
    "frame_kernels": set(),
    "features": {"feature_upsamplers"},
    "calls": {"base_models", "cascade", "checks", "options", "presets"},
    "pipeline": {"base_models", "calls", "cascade", "checks", "features", "images", "options", "presets"},
    "methods": {"base_models", "calls", "cascade", "checks", "models", "options", "pipeline", "presets"},
    "forward_cost": {"base_models", "cascade"},
    "cost": {"forward_cost", "pipeline", "base_models", "cascade"},
    "outputs": set(),
    "clip_outputs": {"files", "grid", "outputs"},
    "grid": {"images"},
    "training": {
        *("base_models", "cascade", "clip_outputs", "data", "feature_upsamplers", "features", "files", "models"),
        "pipeline",
    },
    "evaluation": {
        *("base_models", "cascade", "data", "features", "files", "images", "methods", "metrics", "models", "pipeline")
    },
    "experiments": {
        *("base_models", "cascade", "clip_outputs", "data", "evaluation", "files", "images", "methods", "models"),
        "training",
    },
    "report": {"clip_outputs", "data", "evaluation", "files", "grid", "methods", "metrics", "models"},
    "cli": {"*"},
    "demo": {"*"},
}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


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
def test_arrows_point_left(path: Path) -> None:
    own = path.relative_to(SOURCE).with_suffix("").parts[0]
    if own == "__init__":
        return
    allowed = MAY_IMPORT[own]
    for module in imports(path):
        if module.startswith("selfcascade.") and "*" not in allowed:
            assert room(module) in allowed | {own}, f"{path.name} imports {module}"


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
