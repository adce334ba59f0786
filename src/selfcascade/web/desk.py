"""The common part of the tabs: errors in one sentence, and fields for advanced settings."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from selfcascade.options.checks import OptionError
from selfcascade.web.form import Entry, entries, label, options_of
from selfcascade.web.jobs import Cancelled, Report
from selfcascade.web.shelf import Shelf
from selfcascade.web.studio import Result, Studio

LOG = logging.getLogger("selfcascade.web")
BUSY = "The model is at work; change a setting when it is done to see the cost."
CANCELLED = "Cancelled."
FAILED = "The server could not do that; its log says why."
NO_MEMORY = "There was not enough memory; choose a smaller size."
MODEL = {"concurrency_limit": 1, "concurrency_id": "model"}
LIGHT = {"concurrency_limit": 4, "concurrency_id": "light", "show_progress": "hidden"}
PROGRESS = gr.Progress()


@dataclass(frozen=True)
class Desk:
    """The studio behind the tabs, and the shelf for their files."""

    studio: Studio
    shelf: Shelf

    def left(self, request: gr.Request) -> None:
        """Stops what runs for a visitor who closed the page."""
        self.studio.jobs.cancel(str(request.session_hash))

    def cancel(self, request: gr.Request) -> str:
        """Stops what runs for a visitor who asked for that."""
        stopped = self.studio.jobs.cancel(str(request.session_hash))
        waiting = "Nothing of yours is running; what waits its turn can be cancelled once it runs."
        return "Cancelling after the step that runs." if stopped else waiting

    def shown(self, result: Result) -> list[tuple[str, str]]:
        """The stages for a gallery; a picture's last stage is the saved file itself."""
        kept = self.shelf.put_copy(result.path) if result.path is not None and result.made.frames is None else None
        last = len(result.stages) - 1
        return [
            (kept if kept is not None and index == last else self.shelf.put_image(image, f"stage-{index}"), caption)
            for index, (image, caption) in enumerate(result.stages)
        ]

    def told(self, result: Result) -> str:
        """A sentence on what was made."""
        made = result.made
        if result.path is None:
            return f"Cancelled in stage {len(result.stages) + 1}; the stages before it are shown."
        return f"Saved as `{result.path.name}`: {made.image.width} x {made.image.height}, seed {made.options.seed}."


def number_slider(*arguments: Any, label: str, **keywords: Any) -> Any:
    """A slider whose field for numbers refuses a number out of range by the slider's label.

    The check is set on the component, since gradio writes a file of types beside a subclass.
    """
    made = gr.Slider(*arguments, label=label, **keywords)
    check = made.preprocess

    def checked(payload: float) -> float:
        try:
            return check(payload)
        except gr.Error:
            words = f"{label} must be from {made.minimum:g} to {made.maximum:g} on this page"
            raise _sentence(f"{words}, not {payload:g}") from None

    made.preprocess = checked
    return made


def report_to(progress: gr.Progress) -> Report:
    """A job's report as gradio's progress bar."""

    def report(text: str, share: float) -> None:
        progress(share, desc=text)

    return report


def spoken(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler that shows errors to the visitor in one sentence, and logs tracebacks on the server only."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def many(*arguments: Any, **keywords: Any) -> Iterator[Any]:
            try:
                yield from function(*arguments, **keywords)
            except Exception as error:
                raise _error(error) from None

        return many

    @functools.wraps(function)
    def once(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except Exception as error:
            raise _error(error) from None

    return once


def advanced(command: str) -> tuple[list[Entry], list[Any]]:
    """The fields of the advanced settings, in an accordion."""
    found = entries(command)
    with gr.Accordion("Advanced", open=False):
        fields = [_field(entry) for entry in found]
    return found, fields


def from_fields(desk: Desk, front: dict[str, Any], found: Sequence[Entry], values: Sequence[Any]) -> Any:
    """Like `form.options_of`, based on the options of the command line."""
    return options_of(desk.studio.base, front, found, values)


def stage_gallery(title: str) -> Any:
    """A gallery for stages."""
    return gr.Gallery(
        label=title, columns=4, object_fit="contain", interactive=False, elem_classes=["below-label", "large"]
    )


def file_of(value: Any) -> str:
    """The path of an uploaded file.

    Raises:
        ValueError: There is none.
    """
    if not value:
        raise ValueError("drop a picture first")
    return str(value)


def _field(entry: Entry) -> Any:
    unless = f"{entry.unless[0].upper()}{entry.unless[1:]} unless given." if entry.unless else ""
    info = f"{entry.help} {unless}".strip()
    if entry.kind == "choice":
        choices = [
            ("" if choice else "unless given: " + (entry.unless or "default"), choice) for choice in entry.choices
        ]
        choices = [(text or choice, choice) for text, choice in choices]
        return gr.Dropdown(choices, value="", label=entry.label, info=entry.help)
    return gr.Textbox("", label=entry.label, info=info, max_length=8000)


def _error(error: Exception) -> gr.Error:
    import torch

    if isinstance(error, gr.Error):
        return error
    if isinstance(error, Cancelled):
        return _sentence(CANCELLED)
    if isinstance(error, OptionError):
        return _sentence(error.told(label))
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return _sentence(NO_MEMORY)
    if isinstance(error, ValueError):
        return _sentence(str(error))
    LOG.error("a request failed", exc_info=error)
    return _sentence(FAILED)


def _sentence(text: str) -> gr.Error:
    line = " ".join(text.split())[:500]
    return gr.Error(line[:1].upper() + line[1:], title="Not done", print_exception=False)
