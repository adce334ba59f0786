"""What is behind the page, without the page: the studio, its limits, the form, the gate, and files that are dropped."""

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from command_line import SRC, made, refuse
from selfcascade.making import load, make
from selfcascade.media.grids import GAP
from selfcascade.media.save_pictures import CHUNK
from selfcascade.options import Options
from selfcascade.options.checks import OptionError
from selfcascade.web import form
from selfcascade.web.gate import LOGINS_A_MINUTE, Gate
from selfcascade.web.jobs import Cancelled, Job, Jobs
from selfcascade.web.limits import Limits
from selfcascade.web.outcome import caption
from selfcascade.web.reading import read_parameters, read_settings
from selfcascade.web.serve import PASSWORD, is_loopback, read_auth
from selfcascade.web.sheet import save_sheet
from selfcascade.web.shelf import Shelf
from selfcascade.web.studio import Studio
from selfcascade.web.ways import way_options, ways


@pytest.fixture(scope="module")
def studio(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(Options(model=str(models / "sd")), tmp_path_factory.mktemp("outputs"), Limits(growth=5, steps=50))


def wish(studio: Studio, **changes: Any) -> Options:
    given = {"prompt": "a house", "height": 256, "width": 256, "num_inference_steps": 4, "seed": 3, **changes}
    return studio.base.changed(**given)


def test_a_picked_base_sample_enlarged_is_the_picture_of_its_seed(studio: Studio) -> None:
    samples = list(studio.base_samples(wish(studio), 2, Job()))
    assert [sample.options.seed for sample in samples] == [3, 4]
    result = studio.create(wish(studio), samples[1], Job())
    cascade, options = load(wish(studio, seed=4))
    alone = make(cascade, options)
    assert result.made.record()["result"]["sha256"] == alone.record()["result"]["sha256"]
    assert result.made.record()["settings"] == alone.record()["settings"]
    assert result.made.parameters() == alone.parameters()
    assert [image.size for image, _ in result.stages] == [(128, 128), (256, 256)]
    assert result.path is not None
    assert result.path.parent == studio.output
    assert Image.open(result.path).info["parameters"] == alone.parameters()


def test_a_base_sample_of_another_prompt_is_not_enlarged(studio: Studio) -> None:
    (sample,) = studio.base_samples(wish(studio), 1, Job())
    for changes in ({"prompt": "a tree"}, {"num_inference_steps": 5}, {"height": 192, "width": 384}):
        with pytest.raises(OptionError, match="are not those of the base samples any more"):
            studio.create(wish(studio, **changes), sample, Job())


def test_what_is_cancelled_is_not_saved_and_keeps_its_finished_stages(studio: Studio) -> None:
    said: list[str] = []
    job = Job(lambda text, share: (said.append(text), "stage 2" in text and job.stopped.set()))
    before = set(studio.output.iterdir())
    result = studio.create(wish(studio), None, job)
    assert result.path is None
    assert [image.size for image, _ in result.stages] == [(128, 128)]
    assert said[-1] == "stage 2 of 2, 256 x 256: step 1 of 2"
    assert set(studio.output.iterdir()) == before
    with pytest.raises(Cancelled):
        list(studio.base_samples(wish(studio), 2, job))


def test_the_model_for_clips_is_loaded_once_and_not_while_another_is_at_work(studio: Studio) -> None:
    with ThreadPoolExecutor(2) as visitors:
        with studio.idle():
            waiting = [visitors.submit(studio.clips) for _ in range(2)]
            assert not wait(waiting, 0.2).done
        first, second = (one.result() for one in waiting)
    assert first is second
    assert {value.device.type for value in first[0].pipe.unet.parameters()} == {"cpu"}


def test_a_plan_waits_for_another_plan_and_gives_way_to_a_run(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that gave up beside another one, or while a model is loaded, would stay untold."""
    monkeypatch.setattr("selfcascade.web.studio.BUSY_SECONDS", 0.02)
    with ThreadPoolExecutor(1) as visitor:
        with studio.idle():
            waiting = visitor.submit(studio.plan, wish(studio))
            assert not wait([waiting], 0.2).done
        assert len(waiting.result(30)) == 2
        with studio.idle(), studio.jobs.job("another"), pytest.raises(Cancelled):
            visitor.submit(studio.plan, wish(studio)).result(30)


def test_captions_break_after_their_commas_only() -> None:
    entry = {"width": 256, "height": 128, "pivot_step": None, "seconds": 26.84}
    assert caption(entry).split(" ") == ["256\xa0x\xa0128,", "26.8\xa0s"]
    assert caption(entry | {"pivot_step": 500}).split(" ") == ["256\xa0x\xa0128,", "K\xa0=\xa0500,", "26.8\xa0s"]


def test_cancelling_is_for_the_visitors_own_jobs() -> None:
    jobs = Jobs()
    with jobs.job("a") as mine, jobs.job("b") as theirs:
        assert jobs.cancel("a") == 1
        assert (mine.stopped.is_set(), theirs.stopped.is_set()) == (True, False)
    assert jobs.cancel("b") == 0


def test_plans_beyond_the_limits_are_refused_before_anything_runs(studio: Studio) -> None:
    assert [cost.size.height for cost in studio.plan(wish(studio))] == [128, 256]
    cases = {
        "at most 5 times the pixels of 128 x 128 on this page, and 1024 x 512 has more": {"height": 512, "width": 1024},
        "{num_inference_steps} must be at most 50 on this page": {"num_inference_steps": 51},
    }
    for sentence, changes in cases.items():
        with pytest.raises(OptionError) as caught:
            studio.plan(wish(studio, **changes))
        assert sentence in caught.value.sentence
    small = Limits(memory=1000)
    with pytest.raises(OptionError, match=r"256 x 256 takes .* GiB, and .* GiB are free; lower the size"):
        small.check(studio.cascade, studio.plan(wish(studio)))
    for count in (0, 9, True, "4", None):
        with pytest.raises(OptionError, match="base samples must be a whole number from 1 to 8"):
            studio.limits.check_samples(count)


def test_an_own_picture_is_enlarged_as_the_command_does(studio: Studio, tmp_path: Path) -> None:
    Image.effect_noise((150, 130), 60).save(tmp_path / "own.png")
    options = studio.base.changed(prompt="noise", num_inference_steps=4, scale=2.0)
    own, result = studio.upscale(options, tmp_path / "own.png", "own.png", Job())
    assert (own.size, result.made.image.size) == ((150, 130), (304, 256))
    told = studio.plan_upscale(options, tmp_path / "own.png", "own.png")
    planned = [(cost.size.width, cost.size.height, cost.steps, cost.stage.pivot_step) for cost in told]
    ran = [tuple(stage[name] for name in ("width", "height", "steps", "pivot_step")) for stage in result.made.stages]
    assert planned == ran
    assert result.made.options.image == "own.png"
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"^image 'broken.png' "):
        studio.upscale(options, tmp_path / "broken.png", "broken.png", Job())


def test_ways_are_presets_and_methods_with_the_settings_that_they_take(studio: Studio) -> None:
    known = ways(studio.base)
    assert {"quality", "paper", "direct", "lanczos"} <= set(known)
    assert not {"lora", "sr", "self-cascade-tuned"} & set(known)
    options = wish(studio, anchor=0.5)
    assert (way_options(options, "direct").method, way_options(options, "direct").anchor) == ("direct", None)
    assert way_options(options, "rgb").preset == "rgb"
    made = dict(studio.compare(options, ["direct", "fast"], Job()))
    assert [made[way].made.options.method for way in made] == ["direct", "self-cascade"]
    told = dict(studio.plan_ways(options, ["direct", "fast", "lanczos"]))
    assert told["lanczos"] == []
    for way in made:
        assert [cost.steps for cost in told[way]] == [stage["steps"] for stage in made[way].made.stages]
        assert all(cost.peak_bytes for cost in told[way])
    sheet = save_sheet([(way, result.made) for way, result in made.items()], studio.output)
    with Image.open(sheet) as image:
        assert image.size == (2 * (256 + GAP) + GAP, image.height)
        assert "Methods: direct fast" in image.info["parameters"]
        record = json.loads(image.info[CHUNK])
    assert [one["settings"]["method"] for one in record["pictures"]] == ["direct", "self-cascade"]
    for wrong in ([], ["nothing"], "direct", ["direct"] * 7):
        with pytest.raises(OptionError, match="choose 1 to 6 ways"):
            list(studio.compare(options, wrong, Job()))


def test_advanced_settings_come_from_the_list_of_options_and_name_no_file() -> None:
    names = {entry.name for entry in form.entries("compare")}
    assert {"negative_prompt", "num_inference_steps", "guidance_scale", "pivot_step", "anchor", "energy"} <= names
    assert not {"image", "weights", "upsamplers", "model", "device"} & names
    assert {"shared_noise"} <= {entry.name for entry in form.entries("generate")} - names
    assert all(entry.kind != "text" or entry.name in form.TEXTS for entry in form.entries("generate"))


def test_what_was_typed_becomes_options() -> None:
    entries = form.entries("compare")
    names = [entry.name for entry in entries]
    typed = {"pivot_step": "700, 400", "guidance_scale": "3", "anchor": 1, "attention": "local", "vae_tiling": "yes"}
    values = [typed.get(name, "") for name in names]
    options = form.options_of(Options(), {"prompt": "a", "seed": 5.0, "preset": ""}, entries, values)
    assert (options.pivot_step, options.guidance_scale, options.anchor) == ((700, 400), 3.0, 1.0)
    assert (options.attention, options.vae_tiling, options.seed, options.preset) == ("local", True, 5, None)
    assert [form.typed(entry, getattr(options, entry.name)) for entry in entries if entry.name == "pivot_step"] == [
        "700, 400"
    ]
    digits = form.options_of(Options(), {}, entries, ["0.1234567" if name == "anchor" else "" for name in names])
    assert (digits.anchor, digits.energy) == (0.1234567, None)
    kept = {entry.name: form.typed(entry, getattr(digits, entry.name)) for entry in entries}
    assert (kept["anchor"], kept["energy"], kept["pivot_step"]) == ("0.1234567", "", "")
    for name, wrong in {"pivot_step": "a lot", "anchor": "much", "attention": "none", "vae_tiling": "maybe"}.items():
        with pytest.raises(OptionError, match=name):
            form.options_of(Options(), {}, entries, [wrong if one == name else "" for one in names])
    with pytest.raises(OptionError, match="seed must be at most"):
        form.options_of(Options(), {"seed": 2**60}, [], [])


def test_sizes_by_scale_and_ratio(studio: Studio) -> None:
    native, multiple = studio.cascade.native_size, studio.cascade.multiple
    assert form.sides(native, 2, "1:1", multiple) == (256, 256)
    wide = form.sides(native, 2, "16:9", multiple)
    assert wide.width % multiple == wide.height % multiple == 0
    assert abs(wide.width / wide.height - 16 / 9) < 0.1
    for scale, ratio in ((0, "1:1"), (2, "17:1"), (float("nan"), "1:1")):
        with pytest.raises(OptionError):
            form.sides(native, scale, ratio, multiple)


def png(path: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_settings_are_read_from_our_pictures_and_those_of_other_tools(studio: Studio, tmp_path: Path) -> None:
    result = studio.create(wish(studio, negative_prompt="blur"), None, Job())
    assert result.path is not None
    options, remark = read_settings(result.path, "mine.png")
    assert (options.prompt, options.negative_prompt, options.seed, options.height) == ("a house", "blur", 3, 256)
    assert (options.model, options.device, options.pivot_step) == ("bundled", None, result.made.options.pivot_step)
    assert "mine.png" in remark
    text = "a cat, sitting\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768"
    other, _ = read_settings(png(tmp_path / "other.png", parameters=text), "other.png")
    assert other == Options(
        prompt="a cat, sitting", negative_prompt="dog", num_inference_steps=20, guidance_scale=7.0, seed=5, width=512,
        height=768,
    )  # fmt: skip
    assert read_parameters(result.made.parameters()).num_inference_steps == 4


def test_the_last_line_of_parameters_is_read_in_one_pass() -> None:
    with pytest.raises(ValueError, match="another form"):
        read_parameters("a house\n" + "a" * 90_000 + "!Steps:")
    found = read_parameters('a house\nodd!, Model: "a, Seed: 9", Steps: 20, Lora hashes: "x: y", Seed: 7')
    assert (found.num_inference_steps, found.seed) == (20, 7)


def test_files_without_settings_are_refused_by_the_name_that_the_visitor_knows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "long.json").write_bytes(b" " * 1_000_001)
    files = [tmp_path / "long.json"]
    files += [tmp_path / "a.json", tmp_path / "b.png", png(tmp_path / "c.png"), tmp_path / "d.exe"]
    files += [png(tmp_path / "e.png", selfcascade="{"), png(tmp_path / "f.png", selfcascade='{"kind": 1}')]
    files += [png(tmp_path / "g.png", parameters="Steps: many, Seed: x")]
    for file in files:
        with pytest.raises(ValueError) as caught:
            read_settings(file, file.name)
        assert str(tmp_path) not in str(caught.value)


def test_others_come_in_with_a_password_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    assert read_auth("127.0.0.1", None) is None
    assert read_auth("0.0.0.0", "me:long enough") == ("me", "long enough")
    for host in ("0.0.0.0", "192.168.1.2", "example.org", "::"):
        with pytest.raises(ValueError, match="needs a password"):
            read_auth(host, None)
    for auth in ("me", "me:", ":long enough", "me:short"):
        with pytest.raises(ValueError, match="auth must be USER:PASSWORD"):
            read_auth("0.0.0.0", auth)
    monkeypatch.setenv(PASSWORD, "me:from the environment")
    assert read_auth("0.0.0.0", None) == ("me", "from the environment")
    assert [is_loopback(host) for host in ("localhost", "::1", "127.0.0.2", "0.0.0.0")] == [True, True, True, False]


@pytest.mark.usefixtures("workplace")
def test_the_command_refuses_before_a_model_is_loaded() -> None:
    if importlib.util.find_spec("gradio") is None:
        assert "pip install 'selfcascade[web]'" in refuse("web")
        return
    assert "needs a password" in refuse("web", "--host", "0.0.0.0")
    assert "auth must be" in refuse("web", "--auth", "me:short")
    Path("file").touch()
    assert "output 'file' is a file" in refuse("web", "--output", "file")


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_a_stopped_page_leaves_its_output_alone_behind(tmp_path: Path) -> None:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("the page is an extra")
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(SRC), "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-m", "selfcascade.cli", "web", "--model", "sd"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env=environment) as page:
        assert page.stdout is not None
        assert page.stdout.readline().startswith("http://127.0.0.1:")
        assert [path.name[:15] for path in (tmp_path / "temporary").iterdir()] == ["selfcascade-web"]
        page.send_signal(signal.SIGTERM)
        assert page.wait(30) == 0
    assert not list((tmp_path / "temporary").iterdir())
    assert made(tmp_path) == {"temporary"}


def test_the_shelf_holds_so_much_and_no_more(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 10_000, 3600)
    paths = [Path(shelf.put_image(Image.effect_noise((64, 64), 60), f"{number}")) for number in range(6)]
    assert paths[-1].is_file()
    assert not paths[0].exists()
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.png")) <= 10_000 + paths[-1].stat().st_size
    assert Path(shelf.put_copy(paths[-1])).read_bytes() == paths[-1].read_bytes()
    assert Path(shelf.put_image(Image.new("L", (4, 4)), "../../../outside")).parents[1] == tmp_path


async def _through(app: Any, scope: Any, receive: Any, send: Any) -> None:
    body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def ask(gate: Gate, method: str, path: str, body: bytes = b"", host: str = "localhost:7860", **headers: str) -> int:
    """The status of the gate's answer."""
    sent: list[Any] = []
    named = {"host": host, "content-length": str(len(body)), **headers}
    scope = {
        "type": "http", "method": method, "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    if sent[0]["status"] >= 400:
        assert set(json.loads(sent[1]["body"])) == {"error", "detail"}
    return sent[0]["status"]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await _through(None, scope, receive, send)

    return Gate(app, tmp_path, 1000, 2000, local=True)


def test_the_gate_lets_through_what_the_page_asks_for(gate: Gate, tmp_path: Path) -> None:
    file = tmp_path / "a/b.png"
    for path in ("/", "/config", "/assets/index.js", "/gradio_api/queue/data", f"/gradio_api/file={file}"):
        assert ask(gate, "GET", path) == 200
    joined = json.dumps({"data": [{"path": str(file), "meta": {"_type": "gradio.FileData"}}, None, 3]}).encode()
    assert ask(gate, "POST", "/gradio_api/queue/join", joined) == 200
    assert ask(gate, "POST", "/gradio_api/upload", b"0" * 900) == 200


def test_the_gate_refuses_all_else(gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    files = ["/etc/passwd", "a.png", f"{tmp_path}/../x", str(tmp_path), f"{tmp_path}/link/passwd", "http://a.b/c"]
    for name in files:
        assert ask(gate, "GET", f"/gradio_api/file={name}") == 403
        body = json.dumps({"data": [[{"a": {"path": name, "meta": {"_type": "gradio.FileData"}}}]]}).encode()
        assert ask(gate, "POST", "/gradio_api/queue/join", body) == 403
    assert ask(gate, "GET", "/", host="evil.example") == 403
    assert ask(gate, "GET", "/assets/../../secret") == 404
    assert ask(gate, "POST", "/gradio_api/queue/join", b"0" * 1_000_001) == 413
    assert ask(gate, "POST", "/gradio_api/queue/join", b"[" * 5000) == 400
    assert ask(gate, "POST", "/gradio_api/queue/join", b'{"path": 3}') == 400
    assert ask(gate, "POST", "/gradio_api/upload", **{"content-length": "20000"}) == 413
    assert ask(gate, "POST", "/gradio_api/upload", **{"content-length": "-1"}) == 411
    (tmp_path / "full").write_bytes(b"0" * 1500)
    assert ask(gate, "POST", "/gradio_api/upload", b"0" * 900) == 507
    assert [ask(gate, "POST", "/login") for _ in range(LOGINS_A_MINUTE + 1)] == [200] * LOGINS_A_MINUTE + [429]
