"""What README and docs tell readers to type works as written; `documents.py` lists every exception with its reason."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from command_line import SRC, run
from documents import LEFT_OUT, PAGES, ROOT, RUN, SHOWN, SUBSTITUTIONS, Block, blocks, furnish, is_left_out, substituted
from selfcascade.cli import app

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [(block, words) for block in BLOCKS if block.language == "sh" for words in block.commands()]
OURS = [pytest.param(words, id=f"{block.name} {words[1]}") for block, words in COMMANDS if words[0] == "selfcascade"]
PLANS = {
    shlex.join(words): (block, words) for block, words in COMMANDS if words[1:2] == ["plan"] or "--dry-run" in words
}
QUICK = [pytest.param(block.page, words, id=block.name) for block, words in PLANS.values()]
RUNNING = [page for page in PAGES if any(block.language in RUN for block in blocks(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_every_block_has_a_language() -> None:
    unknown = [f"{block.name}: {block.language!r}" for block in BLOCKS if block.language not in (*RUN, *SHOWN)]
    assert not unknown, f"give these blocks one of {', '.join((*RUN, *SHOWN))}: {unknown}"


def test_every_exception_is_needed() -> None:
    text = "\n".join(block.text.replace("\\\n", " ") for block in BLOCKS)
    assert not [written for written in (*SUBSTITUTIONS, *LEFT_OUT) if written not in text]


@pytest.mark.parametrize("words", OURS)
def test_every_command_is_understood(words: list[str]) -> None:
    """Quick, for all: commands and options exist, and their values are of the right kind."""
    if words[1].startswith("-"):
        assert words[1] in ("--help", "--version", "--install-completion")
        return
    command = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    command.make_context(words[1], words[2:])


def test_every_snippet_compiles() -> None:
    for block in BLOCKS:
        if block.language == "python":
            compile(block.text, block.name, "exec")


@pytest.mark.slow
def test_a_type_checker_accepts_the_snippets_of_every_page(tmp_path: Path) -> None:
    """As the package's users check theirs: a file for each page, outside the repository and its settings."""
    checked_pages = 0
    for number, page in enumerate(PAGES):
        own = [block.text for block in blocks(page) if block.language == "python" and not is_left_out(block.text)]
        (tmp_path / f"page{number}_{page.stem.lower()}.py").write_text("\n".join(own))
        checked_pages += bool(own)
    assert checked_pages >= 10
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "."]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_every_target_of_make_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[1] for _, words in COMMANDS if words[0] == "make"} <= targets


def test_quoted_code_is_that_of_the_package() -> None:
    quoted = [block.text.strip() for block in BLOCKS if block.language == "python" and is_left_out(block.text)]
    sources = [path.read_text() for path in (SRC / "selfcascade/base_models").glob("*.py")]
    assert all(any(text in source for source in sources) for text in quoted)


LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        place, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = page.parent / place if place else page
        assert path.exists(), f"{target} is not there"
        assert not anchor or path.suffix != ".md" or anchor in anchors(path), f"{target} is not a heading"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize(("page", "words"), QUICK)
def test_what_only_plans_runs_as_written(page: Path, words: list[str], world: Path) -> None:
    furnish(world, page, models_only=True)
    result = run(*words[1:])
    assert result.exit_code == 0, result.output


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=name)
def test_every_block_of_a_page_runs_from_top_to_bottom(page: Path, world: Path) -> None:
    """As a reader would: one folder, one Python session."""
    furnish(world, page)
    session: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python" and not is_left_out(block.text):
            exec(compile(substituted(block.text), block.name, "exec"), session)
        elif block.language == "sh":
            run_commands(block)


def run_commands(block: Block) -> None:
    for name, content in block.files().items():
        Path(name).write_text(content)
    for words in block.commands():
        line = shlex.join(words)
        if is_left_out(line) or words[1] == "--install-completion":
            continue
        words = shlex.split(substituted(line))
        if words[0] == "selfcascade":
            result = run(*words[1:])
            assert result.exit_code == 0, f"{block.name}: {line}\n{result.output}"
            continue
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(SRC), "HF_HUB_OFFLINE": "1"}
        made = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert made.returncode == 0, f"{block.name}: {line}\n{made.stderr[-3000:]}"
