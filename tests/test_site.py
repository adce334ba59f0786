"""Every page is in the site's navigation, and what it includes is there; `make docs` checks the rest by building it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import selfcascade
from documents import ROOT

DOCS = ROOT / "docs"


def listed() -> list[str]:
    """The pages of the navigation, relative to docs/, patterns among them."""
    trees = re.findall(r"^:::\{toctree\}\n(.*?)^:::$", (DOCS / "index.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]


def test_every_page_is_in_the_navigation_once() -> None:
    pages = [path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")]
    for page in {*pages} - {"index"}:
        places = listed().count(page)
        assert places == 1, f"docs/{page}.md is {places} times in the navigation at the end of docs/index.md"


def test_every_entry_of_the_navigation_is_a_page() -> None:
    for entry in listed():
        assert any((DOCS / f"{entry}{ending}").is_file() for ending in (".md", ".rst")), entry


def test_every_included_file_is_there() -> None:
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"^:::\{literalinclude\} (.*)$", page.read_text(), re.MULTILINE):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


def test_the_python_reference_has_every_public_name() -> None:
    text = (DOCS / "api.rst").read_text()
    described = set(re.findall(r"^\.\. (?:autoclass|autofunction|data):: (\w+)$", text, re.MULTILINE))
    assert described == {*selfcascade.__all__} - {"__version__"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs the extra docs, as make docs installs it")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html", "--conf-dir", "docs"]
    command = [sys.executable, "-m", "sphinx", *options, "-d", str(tmp_path / "trees"), ".", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "url=docs/index.html" in (tmp_path / "site/index.html").read_text()
