"""Requests that no page makes: paths, sizes, types and broken uploads, each of which is refused in a line."""

import json
from typing import Any

from selfcascade.web.form import entries, typed


def advanced(**given: str) -> list[Any]:
    """The advanced settings' fields, empty but for those given."""
    return [given.get(entry.name, typed(entry, None)) for entry in entries("compare")]


# Of the create tab's Enlarge: samples, the picked one, prompt, preset, height, width, seed, and the advanced settings.
FRONT = [None, None, "a house", "fast", 256, 256, 0]
PLACES = {"prompt": 2, "preset": 3, "height": 4, "width": 5, "seed": 6}
PLACES |= {entry.name: len(FRONT) + number for number, entry in enumerate(entries("compare"))}
GOOD: list[Any] = [*FRONT, *advanced(num_inference_steps="2")]

READS = [
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=//etc/passwd",
    "/gradio_api/file=%2Fetc%2Fpasswd",
    "/gradio_api/file=../../../../etc/passwd",
    "/gradio_api/file=..%2f..%2f..%2fetc%2fpasswd",
    "/gradio_api/file=pyproject.toml",
    "/gradio_api/file=/proc/self/environ",
    "/gradio_api/file=http://127.0.0.1:1/secret",
    "/gradio_api/file=https://example.org/x.png",
    "/gradio_api/file=file:///etc/passwd",
    "/gradio_api/file/etc/passwd",
    "/file=/etc/passwd",
    "/file/etc/passwd",
    "/gradio_api/proxy=http://127.0.0.1:1/",
    "/proxy=https://example.org/",
    "/gradio_api/stream/a/b/1/playlist.m3u8",
    "/gradio_api/custom_component/x/client/component/../../../../etc/passwd",
    "/static/../../../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/svelte/../../etc/passwd",
    "/gradio_api/openapi.json",
    "/gradio_api/deep_link?session_hash=x",
    "/monitoring",
    "/monitoring/summary",
    "/gradio_api/vibe-code/",
    "/gradio_api/dev/reload",
    "/gradio_api/run-history/buckets",
    "/docs",
    "/.git/config",
]
WRITES: list[tuple[str, dict[str, Any]]] = [
    ("/gradio_api/run/predict", {"json": {"data": []}}),
    ("/gradio_api/api/predict", {"json": {"data": []}}),
    ("/gradio_api/call/enlarging", {"json": {"data": GOOD}}),
    ("/gradio_api/call/v2/enlarging", {"json": {}}),
    ("/gradio_api/component_server", {"json": {"fn_name": "ls", "component_id": 1, "data": "/"}}),
    ("/gradio_api/process_recording", {"files": {"file": b"x"}}),
    ("/gradio_api/vibe-edit", {"json": {"prompt": "x"}}),
    ("/gradio_api/vibe-code", {"json": {"code": "import os"}}),
    ("/gradio_api/queue/join", {"content": b"{"}),
    ("/gradio_api/queue/join", {"content": b"[" * 100_000}),
    ("/gradio_api/queue/join", {"content": b"x" * 2_000_000}),
    ("/gradio_api/queue/join", {"json": {"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}}),
    ("/gradio_api/queue/join", {"json": {"data": [{"path": "http://127.0.0.1:1/x.png"}]}}),
    ("/gradio_api/queue/join", {"json": {"fn_index": 10_000, "data": [], "session_hash": "h"}}),
    ("/gradio_api/queue/join", {"json": {"fn_index": "x", "data": [], "session_hash": "h"}}),
    ("/gradio_api/upload", {"content": b"no form"}),
    ("/gradio_api/upload", {"files": {"files": ("big.png", b"0" * 1_200_000)}}),
    ("/gradio_api/upload", {"content": iter([b"no length"])}),
    ("/", {"json": {}}),
]
# Values that the create tab's fields never send, each with the field that holds it.
VALUES: list[tuple[str, Any]] = [
    ("prompt", ""),
    ("prompt", "x" * 9000),
    ("prompt", "\0"),
    ("height", {"a": 1}),
    ("seed", [1]),
    ("preset", "/etc/passwd"),
    ("preset", ["paper"]),
    ("height", 10**9),
    ("height", -1),
    ("height", 257),
    ("height", "tall"),
    ("width", 1e308),
    ("width", 16384),
    ("seed", -1),
    ("seed", 2**63),
    ("num_inference_steps", "100000"),
    ("num_inference_steps", "1e3"),
    ("num_inference_steps", "__import__('os')"),
    ("pivot_step", "700, 400, 300"),
    ("anchor", 7),
    ("anchor", "NaN"),
]


def with_value(field: str, value: Any) -> list[Any]:
    """What Enlarge sends, with one value that it never would."""
    data = list(GOOD)
    data[PLACES[field]] = value
    return data


def events(text: str) -> list[dict[str, Any]]:
    """The messages of a stream of them."""
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
