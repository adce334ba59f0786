"""Protects the page's server: admits only the routes that the page needs, limited in size and number."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LOG = logging.getLogger("selfcascade.web")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FILE = "/gradio_api/file="
READ = ("/", "/config", "/theme.css", "/gradio_api/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json")
READ += ("/user", "/login_check", "/gradio_api/user", "/gradio_api/login_check", "/gradio_api/app_id", "/logout")
READ += ("/gradio_api/info", "/gradio_api/queue/data", "/gradio_api/queue/status", "/gradio_api/upload_progress")
READ += ("/gradio_api/startup-events",)
READ_BELOW = ("/static/", "/assets/", "/gradio_api/heartbeat/")
JOIN, UPLOAD, LOGIN = "/gradio_api/queue/join", "/gradio_api/upload", "/login"
WRITE = (JOIN, UPLOAD, LOGIN, "/gradio_api/cancel", "/gradio_api/reset")
MAX_BODY = 1_000_000
MAX_OPEN, MAX_STREAMS, MAX_UPLOADS, LOGINS_A_MINUTE = 256, 128, 4, 20
DRAIN_SECONDS = 2.0
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Refused(Exception):
    """A refused request, with its HTTP status and the reason."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Gate:
    """An ASGI middleware that admits the page's own requests, and refuses all others with one line.

    Args:
        app: The server behind it.
        cache: The only folder whose files are served and may be named by requests.
        upload_bytes: Largest size of an upload, in bytes.
        cache_bytes: Largest size of all files in the cache, in bytes.
        local: Whether it only listens on the loopback address, so that other host names are an attack.
    """

    def __init__(self, app: Any, cache: Path, upload_bytes: int, cache_bytes: int, local: bool) -> None:
        self.app, self.cache, self.local = app, cache.resolve(), local
        self.upload_bytes, self.cache_bytes = upload_bytes, cache_bytes
        self.open = self.streams = self.uploads = 0
        self.logins: deque[float] = deque(maxlen=LOGINS_A_MINUTE)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Refuses a request, or passes it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        path, kind = unquote(scope["path"]), None
        try:
            kind = self._checked(scope, path)
            receive = await self._body(scope, path, receive)
        except Refused as refused:
            await self._drain(scope, receive)
            await _answer(send, refused)
            return
        self._count(kind, 1)
        sender = _Sender(send)
        try:
            await self.app(scope, receive, sender)
        except Exception as error:  # of requests that the page does not make
            LOG.error("a request failed", exc_info=error)
            if not sender.began:
                await _answer(send, Refused(500, "the server could not do that"))
        finally:
            self._count(kind, -1)

    async def _drain(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        """Reads the rest of a refused request, up to a limit, so that its sender receives the answer."""
        left = self.upload_bytes + 2 * MAX_BODY if scope["method"] == "POST" else 0
        while left > 0:
            try:
                message = await asyncio.wait_for(receive(), DRAIN_SECONDS)
            except TimeoutError:
                return
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                return

    def _checked(self, scope: MutableMapping[str, Any], path: str) -> str:
        """The kind of a request: "stream", "upload" or "plain".

        Raises:
            Refused: The page does not make such requests, or there are too many.
        """
        method, headers = scope["method"], {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        name = host.rsplit(":", 1)[0].strip("[]") if not host.endswith("]") else host.strip("[]")
        if self.local and name not in LOCAL:
            raise Refused(403, "the page is for this machine alone")
        if method in ("GET", "HEAD"):
            if path.startswith(FILE):
                self._check_file(path.removeprefix(FILE))
            elif path not in READ and not path.startswith(READ_BELOW):
                raise Refused(404, "there is nothing here")
            if ".." in path.split("/"):
                raise Refused(404, "there is nothing here")
        elif method != "POST" or path.rstrip("/") not in WRITE:
            raise Refused(404 if method == "POST" else 405, "there is nothing here")
        if self.open >= MAX_OPEN:
            raise Refused(503, "too many requests at once; try again later")
        if path.rstrip("/") == LOGIN:
            self._check_logins()
        if path.startswith(("/gradio_api/queue/data", "/gradio_api/heartbeat/")):
            if self.streams >= MAX_STREAMS:
                raise Refused(503, "too many visitors at once; try again later")
            return "stream"
        if path.rstrip("/") == UPLOAD:
            self._check_upload(headers.get(b"content-length", ""))
            return "upload"
        return "plain"

    def _check_file(self, name: str) -> None:
        try:
            inside = Path(name).is_absolute() and self.cache in Path(name).resolve().parents
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside:
            raise Refused(403, "only files that the page made or was given are served")

    def _check_logins(self) -> None:
        now = time.monotonic()
        if len(self.logins) == LOGINS_A_MINUTE and now - self.logins[0] < 60:
            raise Refused(429, "too many tries; wait a minute")
        self.logins.append(now)

    def _check_upload(self, length: str) -> None:
        if not length.isdecimal():
            raise Refused(411, "an upload must say its length")
        if int(length) > self.upload_bytes + 10_000:  # with the form around the file
            raise Refused(413, f"an upload may have at most {self.upload_bytes // 2**20} MiB")
        if self.uploads >= MAX_UPLOADS:
            raise Refused(503, "too many uploads at once; try again later")
        if _size(self.cache) + int(length) > self.cache_bytes:
            raise Refused(507, "there is no room for uploads now; try again later")

    async def _body(self, scope: MutableMapping[str, Any], path: str, receive: Receive) -> Receive:
        """Reads and checks the whole body of a request that is not an upload.

        Raises:
            Refused: The body is too long, or names a file that was not uploaded.
        """
        if scope["method"] != "POST" or path.rstrip("/") == UPLOAD:
            return receive
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the request ended early")
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                raise Refused(413, "the request is too long")
            if not message.get("more_body"):
                break
        if path.rstrip("/") != LOGIN:
            try:
                self._check_names(json.loads(body or b"{}"), 0)
            except (ValueError, RecursionError):
                raise Refused(400, "the request is not JSON that the page sends") from None
        left = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return left.pop() if left else await receive()

        return again

    def _check_names(self, value: Any, depth: int) -> None:
        """Refuses any file that is not in the cache, such as a path of the machine or a URL."""
        if depth > 50:
            raise ValueError
        if isinstance(value, list):
            for one in value:
                self._check_names(one, depth + 1)
        elif isinstance(value, dict):
            for name, one in value.items():
                if name == "path" and one is not None:
                    if not isinstance(one, str):
                        raise Refused(400, "a file must be uploaded first")
                    self._check_file(one)
                self._check_names(one, depth + 1)

    def _count(self, kind: str, change: int) -> None:
        self.open += change
        if kind == "stream":
            self.streams += change
        elif kind == "upload":
            self.uploads += change


class _Sender:
    """Sends an answer with the common headers, and records whether it has begun."""

    def __init__(self, send: Send) -> None:
        self.send, self.began = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began = True
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await self.send(message)


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"error": refused.sentence, "detail": refused.sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size
        except OSError:  # removed just now
            continue
    return total
