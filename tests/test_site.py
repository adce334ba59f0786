"""Pages are in the site's navigation, and the README reads on a package index; `make docs` builds the site itself."""

import importlib.util
import re
import runpy
import subprocess
import sys
import tomllib
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
    pages += [f"../benchmarks/{path.stem}" for path in (ROOT / "benchmarks").glob("*.md")]
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


@pytest.mark.parametrize("home", ["https://example.org/selfcascade", None])
def test_the_readme_of_the_package_has_no_link_that_leads_nowhere(home: str | None) -> None:
    text = (ROOT / "README.md").read_text()
    shown = runpy.run_path(str(ROOT / "hatch_build.py"))["for_index"](text, home)
    links = re.findall(r"\]\(([^)]+)\)", shown)
    relative = [path for path in re.findall(r"\]\(([^)]+)\)", text) if not path.startswith("https:")]
    assert all(link.startswith("https://") for link in links)
    assert len(relative) > 10
    assert all(f"/HEAD/{path})" in shown if home else f"]({path})" not in shown for path in relative)
    fence = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    assert fence.findall(shown) == fence.findall(text)


def test_the_urls_of_the_package_are_those_of_the_citation() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    cited = dict(
        re.findall(r"^ *(url|repository-code): \"?([^\"\n]+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    )
    assert cited["url"] == urls["Paper"]
    assert cited.get("repository-code") == urls.get("Repository")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs the extra docs, as make docs installs it")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html", "--conf-dir", "docs"]
    command = [sys.executable, "-m", "sphinx", *options, "-d", str(tmp_path / "trees"), ".", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "url=docs/index.html" in (tmp_path / "site/index.html").read_text()
