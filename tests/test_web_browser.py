"""The page in a headless Chromium: all flows with the bundled models, wide and narrow, light and dark.

`make test-web` runs it. SCREENSHOTS=DIR keeps the pictures that it takes.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from selfcascade.media.save_pictures import CHUNK
from selfcascade.options import Options
from selfcascade.options.presets import PRESETS
from selfcascade.web.serve import served
from selfcascade.web.studio import Studio

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE = {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "is_mobile": True, "has_touch": True}
PATIENCE = 180_000  # milliseconds, on two busy cores


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(Options(), tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def browser(studio: Studio) -> Iterator[tuple[Any, str]]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with served(studio) as url, playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started, url
        started.close()


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def page(browser: tuple[Any, str], request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page that asked nothing of other machines, printed no error, and fits its width."""
    started, url = browser
    asked, errors = [], []
    with started.new_context(accept_downloads=True, **request.param) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda one: asked.append(one.url))
        page.on("console", lambda one: errors.append(one.text) if one.type == "error" else None)
        page.goto(url)
        page.wait_for_selector("text=TFLOPs")
        yield page
        width = request.param["viewport"]["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not [one for one in asked if not one.startswith((url, "data:", "blob:"))]
        assert not errors


def keep(page: Any, name: str) -> None:
    page.wait_for_timeout(700)  # pictures fade in
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}-{page.viewport_size['width']}.png", full_page=False)
        page.mouse.wheel(0, 100_000)
        page.wait_for_timeout(300)
        page.screenshot(path=Path(folder) / f"{name}-{page.viewport_size['width']}-end.png", full_page=False)


def tab(page: Any, name: str, steps: int = 8) -> Any:
    page.get_by_role("tab", name=name).click()
    assert [one.inner_text() for one in page.get_by_role("tab").all()] == ["Create", "Upscale", "Clip", "Compare"]
    panel = page.get_by_role("tabpanel").filter(visible=True)
    panel.get_by_text("Advanced", exact=True).click()
    panel.get_by_label(re.compile(r"^\s*Steps")).fill(str(steps))  # of the field, not of what others say of steps
    panel.get_by_text("Advanced", exact=True).click()
    return panel


def press(panel: Any, name: str) -> None:
    panel.get_by_role("button", name=name, exact=True).click()


def test_a_base_sample_is_picked_enlarged_downloaded_and_read_again(page: Any, studio: Studio, tmp_path: Path) -> None:
    panel = tab(page, "Create")
    press(panel, "Base samples")
    panel.get_by_text("seed 3").wait_for()
    panel.locator("#base-samples button.thumbnail-item").nth(2).click()
    panel.get_by_text("Picked the base sample of seed 2.").wait_for()
    press(panel, "Enlarge")
    panel.get_by_text("Saved as").wait_for()
    panel.get_by_text("TFLOPs").wait_for()
    keep(page, "create")
    with page.expect_download() as waiting:
        panel.locator("#download").click()
    waiting.value.save_as(tmp_path / "got.png")
    picture = Image.open(tmp_path / "got.png")
    assert (picture.size, picture.info["parameters"].splitlines()[0]) == (
        (128, 128),
        "a large red house on the left at night",
    )
    assert "Seed: 2" in picture.info["parameters"]
    settings = json.loads(picture.info[CHUNK])["settings"]
    quality = PRESETS["quality"]
    assert [settings[name] for name in ("preset", "anchor", "energy")] == ["quality", quality.anchor, quality.energy]
    panel.get_by_label("Prompt", exact=True).fill("another")
    panel.get_by_text("Settings from a picture").click()
    panel.locator("input[type=file]").set_input_files(tmp_path / "got.png")
    panel.get_by_text("Settings read from got.png").wait_for()
    assert panel.get_by_label("Prompt", exact=True).input_value() == "a large red house on the left at night"
    assert panel.get_by_label("Seed", exact=True).input_value() == "2"


def test_a_run_is_cancelled_and_a_wrong_size_refused_in_a_sentence(page: Any, studio: Studio) -> None:
    panel = tab(page, "Create")
    panel.get_by_label("Width").fill("512")
    panel.get_by_label("Height").fill("512")
    before = set(studio.output.iterdir())
    press(panel, "Enlarge")
    page.get_by_text("step 2 of").first.wait_for()
    press(panel, "Cancel")
    panel.get_by_text("Cancelled in stage").wait_for()
    assert set(studio.output.iterdir()) == before
    panel.get_by_label("Width").fill("130")
    panel.get_by_text("This cannot be made: width must be a multiple of").wait_for()
    press(panel, "Enlarge")
    page.get_by_text("Width must be a multiple of 8, not 130; 128 is the nearest").last.wait_for()
    title = page.locator(".toast-title").last
    assert title.evaluate("one => getComputedStyle(one, '::before').content") == '"Not done"'
    assert title.evaluate("one => getComputedStyle(one).fontSize") == "0px"
    keep(page, "refused")


def test_the_size_follows_a_scale_that_changes_fast(page: Any) -> None:
    panel = page.get_by_role("tabpanel").filter(visible=True)
    scale = panel.get_by_role("spinbutton", name="Scale")
    for typed in ("3", "3.5", "4"):
        scale.fill(typed)
    page.wait_for_function("[...document.querySelectorAll('input')].filter(one => one.value === '256').length === 2")


def test_an_own_picture_is_upscaled(page: Any, tmp_path: Path) -> None:
    Image.effect_noise((96, 64), 80).save(tmp_path / "own.png")
    panel = tab(page, "Upscale")
    panel.locator("#own-picture input[type=file]").set_input_files(tmp_path / "own.png")
    panel.get_by_text("own.png: 96 x 64.").wait_for()
    panel.get_by_label("What it shows").fill("grey stones in the desert")
    press(panel, "Upscale")
    panel.get_by_text("192 x 128, seed 0").wait_for()
    keep(page, "upscale")


def test_a_clip_is_made(page: Any) -> None:
    panel = tab(page, "Clip", steps=4)
    panel.get_by_role("spinbutton", name="Frames").fill("4")
    press(panel, "Make the clip")
    panel.get_by_text("Saved as").wait_for()
    assert page.evaluate("document.querySelector('video').error") is None
    keep(page, "clip")


def test_presets_and_methods_are_compared(page: Any, tmp_path: Path) -> None:
    panel = tab(page, "Compare")
    panel.get_by_role("cell", name="quality").wait_for()  # of the plan
    press(panel, "Compare")
    panel.get_by_text("3 of 3.").wait_for()
    keep(page, "compare")
    with page.expect_download() as waiting:
        panel.locator("#download-sheet").click()
    waiting.value.save_as(tmp_path / "sheet.png")
    assert "Methods: direct quality fast" in Image.open(tmp_path / "sheet.png").info["parameters"]
