"""The page's server: the flows as a client asks for them, and requests that are refused in a line."""

import asyncio
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from selfcascade.making import load, make
from selfcascade.options import Options
from selfcascade.web.limits import Limits
from selfcascade.web.serve import served
from selfcascade.web.studio import Studio
from web_requests import GOOD, READS, VALUES, WRITES, advanced, events, with_value

# Looked for rather than imported, which takes seconds: not every process that collects these tests runs them.
NEEDED = ("gradio", "gradio_client")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="the page is an extra: pip install 'selfcascade[web]'",
)
ADVANCED = advanced(num_inference_steps="4")
httpx: Any = pytest.importorskip("httpx")


@pytest.fixture(scope="module")
def studio(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    limits = Limits(growth=16, steps=50, upload_bytes=1_000_000, waiting=8)
    return Studio(Options(model=str(models / "sd")), tmp_path_factory.mktemp("outputs"), limits)


@pytest.fixture(scope="module")
def url(studio: Studio) -> Iterator[str]:
    with served(studio) as address:
        yield address.rstrip("/")


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    from gradio_client import Client

    return Client(url, verbose=False)


def index(client: Any, name: str) -> int:
    return next(one["id"] for one in client.config["dependencies"] if one["api_name"] == name)


def test_the_picture_of_the_page_is_the_picture_of_the_command(client: Any, studio: Studio) -> None:
    from gradio_client import handle_file

    front = ["a house", "fast", 256, 256, 5]
    seed, shown, note = client.predict(False, 2, *front, *ADVANCED, api_name="/sampling")
    assert (seed, note) == (5, "Pick one, then enlarge it.")
    assert [one["caption"] for one in shown["value"]] == ["seed 5", "seed 6"]
    pair, stages, download, note = client.predict(*front, *ADVANCED, api_name="/enlarging")
    assert note.startswith("Saved as `picture-5")
    assert len(stages) == len(pair) == 2
    given = Options(
        model=studio.base.model, prompt="a house", preset="fast", height=256, width=256, seed=5, num_inference_steps=4
    )
    alone = make(*load(given))
    kept = download["value"] if isinstance(download, dict) else download
    with Image.open(kept) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(alone.image))
        assert picture.info["parameters"] == alone.parameters()
    read = client.predict(handle_file(kept), api_name="/reading")
    assert read[:5] == ("a house", "fast", 256, 256, 5)


def test_a_plan_is_told_before_anything_runs(client: Any) -> None:
    told = client.predict("a house", "paper", 256, 256, 0, *ADVANCED, api_name="/plan")
    assert "| 128 x 128 | 4 |" in told
    assert "256 x 256, K = 700" in told
    told = client.predict(
        ["paper", "direct", "lanczos"], "a house", None, 256, 256, 0, *ADVANCED, api_name="/plan_ways"
    )
    assert "| paper | 4 + 3 | " in told
    assert "| direct | 4 | " in told
    assert "| lanczos | - | - | - | - |" in told
    refused = client.predict("a house", "paper", 4096, 4096, 0, *ADVANCED, api_name="/plan")
    assert refused.startswith("This cannot be made: size must have at most 16 times the pixels")


def test_the_last_of_several_changes_counts(client: Any) -> None:
    """By default gradio leaves out events that come while an earlier one is answered."""
    modes = {one["api_name"]: one["trigger_mode"] for one in client.config["dependencies"]}
    answers = ("resize", "_pick", "plan", "plan_upscale", "plan_clip", "plan_ways")
    assert {modes[name] for name in answers} == {"always_last"}


def test_a_field_for_numbers_holds_one_from_the_start(client: Any) -> None:
    """A browser sends 0 for one that holds none, which would overrule the preset."""
    fields = [one["props"] for one in client.config["components"] if one["type"] == "number"]
    assert fields
    assert all(field["value"] is not None for field in fields)


def test_an_own_picture_is_enlarged(client: Any, tmp_path: Path) -> None:
    from gradio_client import handle_file

    Image.effect_noise((150, 130), 60).save(tmp_path / "own.png")
    sent = handle_file(str(tmp_path / "own.png"))
    assert client.predict(sent, api_name="/preview")[1] == "own.png: 150 x 130."
    told = client.predict(sent, "fast", 2, *ADVANCED, api_name="/plan_upscale")
    assert "| 304 x 256, K = " in told
    result = client.predict(sent, False, "noise", "fast", 2, 1, *ADVANCED, api_name="/upscale")
    assert result[-1].startswith("Saved as `upscaled-1.png`: 304 x 256")


def test_ways_are_compared(client: Any) -> None:
    front = ["a house", None, 256, 256, 0]
    answer = client.predict(False, ["direct", "fast"], *front, *ADVANCED, api_name="/compare")
    _, shown, table, download, note = answer
    assert (len(shown), note) == (2, "2 of 2. Saved as `compare-0.png`.")
    kept = download["value"] if isinstance(download, dict) else download
    with Image.open(kept) as sheet:
        assert "Methods: direct fast" in sheet.info["parameters"]
    assert "| direct | 256 x 256 | 4 |" in table


def test_requests_that_no_page_makes_are_refused_in_a_line(url: str, studio: Studio) -> None:
    assert len(READS) + len(WRITES) + len(VALUES) >= 60
    with httpx.Client(base_url=url, timeout=30) as visitor:
        answers = [(path, visitor.get(path)) for path in READS]
        for path, sent in WRITES:
            answers.append((path, visitor.post(path, **sent)))
    for path, answer in answers:
        assert 400 <= answer.status_code < 600, (path, answer.status_code, answer.text[:200])
        check_line(answer.text)
        assert "root:" not in answer.text


def check_line(text: str) -> None:
    assert len(text) < 1000
    assert "Traceback" not in text
    assert str(Path.cwd()) not in text
    assert "site-packages" not in text


def outcome(visitor: Any, name: int, data: list[Any], session: str) -> dict[str, Any]:
    """What became of an event, from joining the queue to its end."""
    joined = visitor.post("/gradio_api/queue/join", json={"fn_index": name, "data": data, "session_hash": session})
    if joined.status_code != 200:
        return {"success": False, "output": {"error": joined.text}}
    told = events(visitor.get(f"/gradio_api/queue/data?session_hash={session}").text)
    return [one for one in told if "success" in one][-1]


def test_values_that_no_field_sends_are_refused_in_a_sentence(url: str, client: Any, studio: Studio) -> None:
    enlarge, before = index(client, "enlarging"), set(studio.output.iterdir())
    with httpx.Client(base_url=url, timeout=30) as visitor:
        for number, (field, value) in enumerate(VALUES):
            last = outcome(visitor, enlarge, with_value(field, value), f"s{number}")
            assert last["success"] is False, (field, value, last)
            check_line(str(last["output"].get("error")))
    assert set(studio.output.iterdir()) == before


def test_a_number_beyond_a_slider_is_refused_by_its_name(url: str, client: Any) -> None:
    """A slider has a field beside it, where any number can be typed."""
    sampling, resize = index(client, "sampling"), index(client, "resize")
    with httpx.Client(base_url=url, timeout=30) as visitor:
        for fn, data, sentence in (
            (sampling, [False, 9, *GOOD[2:]], "Base samples must be from 1 to 8 on this page, not 9"),
            (resize, [16, "1:1"], "Scale must be from 1 to 8 on this page, not 16"),
        ):
            output = outcome(visitor, fn, data, f"slider{fn}")["output"]
            assert (output["title"], output["error"]) == ("Not done", sentence)


def test_a_broken_upload_is_refused_by_its_name(url: str, client: Any) -> None:
    preview = index(client, "preview")
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\2\0\0\0\x06\x86\xb4\xba"
    with httpx.Client(base_url=url, timeout=30) as visitor:
        for name, content in {"a.png": b"no", "b.png": bomb, "c.svg": b"<svg/>", "../../d.png": b"no"}.items():
            (path,) = visitor.post("/gradio_api/upload", files={"files": (name, content)}).json()
            assert Path(os.environ["GRADIO_TEMP_DIR"]) in Path(path).resolve().parents
            sent = {"path": path, "meta": {"_type": "gradio.FileData"}}
            last = outcome(visitor, preview, [sent], f"u{len(name)}{name[0]}")
            assert last["success"] is False
            check_line(last["output"]["error"])
            assert "/tmp" not in last["output"]["error"]


def test_a_flood_is_queued_or_refused_and_memory_stays_flat(url: str, client: Any) -> None:
    enlarge, process = index(client, "enlarging"), psutil.Process()

    async def one(visitor: Any, number: int) -> int:
        body = {"fn_index": enlarge, "data": GOOD, "session_hash": f"flood{number}"}
        return (await visitor.post("/gradio_api/queue/join", json=body)).status_code

    async def flood() -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=100)) as visitor:
            return await asyncio.gather(*(one(visitor, number) for number in range(100)))

    held = process.memory_info().rss
    statuses = asyncio.run(flood())
    assert set(statuses) == {200, 503}
    assert statuses.count(200) < 30
    with httpx.Client(base_url=url, timeout=30) as visitor:
        assert visitor.get("/config").status_code == 200
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and visitor.get("/gradio_api/queue/status").json()["queue_size"]:
            time.sleep(0.2)
    assert process.memory_info().rss - held < 200 * 2**20


def test_nothing_is_asked_of_other_machines_and_the_policy_says_so(url: str) -> None:
    answer = httpx.get(url)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "fonts.googleapis.com" not in answer.text
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 403


def test_a_password_is_asked_for_and_the_files_are_gone_afterwards(studio: Studio) -> None:
    with served(studio, auth=("me", "long enough")) as address:
        cache = Path(os.environ["GRADIO_TEMP_DIR"])
        assert cache.stat().st_mode & 0o077 == 0
        with httpx.Client(base_url=address.rstrip("/"), timeout=30) as visitor:
            assert visitor.get("/config").status_code == 401
            joined = visitor.post("/gradio_api/queue/join", json={"fn_index": 0, "data": [], "session_hash": "x"})
            assert joined.status_code == 401
            assert visitor.post("/gradio_api/upload", files={"files": ("a.png", b"x")}).status_code == 401
            wrong = {"username": "me", "password": "wrong"}
            assert visitor.post("/login", data=wrong).status_code == 400
            assert visitor.post("/login", data={**wrong, "password": "long enough"}).status_code == 200
            assert visitor.get("/config").status_code == 200
    assert not cache.exists()
