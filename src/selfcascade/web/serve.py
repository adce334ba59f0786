"""Starts the page's server: its address, its password, and the folder of its temporary files."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfcascade.options.optional import install, is_installed

if TYPE_CHECKING:
    from selfcascade.web.studio import Studio

LOOPBACK = "127.0.0.1"
PASSWORD = "SELFCASCADE_WEB_AUTH"
MIN_PASSWORD = 8
SESSIONS = 64
CLEANED_EVERY, KEPT_SECONDS = 600, 6 * 3600
# No statistics, no update check, no public tunnel; set before gradio is imported, which reads them.
ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_ALLOWED_PATHS": "",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def read_auth(host: str, auth: str | None) -> tuple[str, str] | None:
    """The user and password for visitors; None for a page without a password, which only this machine can reach.

    Args:
        host: The address that the page listens on.
        auth: "user:password"; None reads the environment variable SELFCASCADE_WEB_AUTH.

    Raises:
        ValueError: It is malformed, too short, or missing although others can reach the page.
    """
    auth = os.environ.get(PASSWORD) if auth is None else auth
    if auth:
        user, _, password = auth.partition(":")
        if not user or len(password) < MIN_PASSWORD:
            raise ValueError(f"auth must be USER:PASSWORD with a password of {MIN_PASSWORD} or more characters")
        return user, password
    if not is_loopback(host):
        raise ValueError(
            f"host {host!r} lets others reach the page, so it needs a password: --auth USER:PASSWORD, or {PASSWORD}"
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_installed() -> None:
    """Raises ValueError, with the command to install it, if gradio is missing."""
    if not is_installed("gradio"):
        raise ValueError(f"the web page needs gradio: {install('gradio')}")


@contextlib.contextmanager
def served(
    studio: Studio, host: str = LOOPBACK, port: int | None = None, auth: tuple[str, str] | None = None
) -> Iterator[str]:
    """Serves the page within this context, and yields its address.

    Args:
        studio: The studio that makes pictures.
        host: Address to listen on.
        port: Port; None takes the first free one from 7860 on.
        auth: User and password.

    Raises:
        ValueError: The port is taken, or gradio is missing.
    """
    check_installed()
    cache = Path(tempfile.mkdtemp(prefix="selfcascade-web-")).resolve()
    before = {name: os.environ.get(name) for name in (*ENVIRONMENT, "GRADIO_TEMP_DIR")}
    os.environ.update({**ENVIRONMENT, "GRADIO_TEMP_DIR": str(cache)})
    page: Any = None
    try:
        page = _started(studio, host, port, auth, cache)
        yield page.local_url
    finally:
        if page is not None:
            page.close(verbose=False)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        shutil.rmtree(cache, ignore_errors=True)


def serve(studio: Studio, host: str, port: int | None, auth: tuple[str, str] | None, tell: Any) -> None:
    """Serves the page until Ctrl-C or a SIGTERM; `tell` is given its address."""
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        with served(studio, host, port, auth) as url:
            tell(url)
            with contextlib.suppress(KeyboardInterrupt):
                ended.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def _started(studio: Studio, host: str, port: int | None, auth: tuple[str, str] | None, cache: Path) -> Any:
    from starlette.middleware import Middleware

    from selfcascade.web.gate import Gate
    from selfcascade.web.look import STYLE, theme
    from selfcascade.web.tabs import build

    for name in ("httpx", "httpx2", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    limits = studio.limits
    page = build(studio, cache, (CLEANED_EVERY, KEPT_SECONDS))
    page.queue(max_size=limits.waiting, default_concurrency_limit=4, api_open=False)
    gate = Middleware(
        Gate,  # type: ignore[arg-type]
        cache=cache,
        upload_bytes=limits.upload_bytes,
        cache_bytes=limits.cache_bytes,
        local=is_loopback(host),
    )
    try:
        page.launch(
            server_name=host,
            server_port=port,
            auth=_same_time(*auth) if auth else None,
            auth_message="selfcascade" if auth else None,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            allowed_paths=[],
            max_file_size=limits.upload_bytes,
            state_session_capacity=SESSIONS,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            theme=theme(),
            css=STYLE,
            app_kwargs={"middleware": [gate], "docs_url": None, "redoc_url": None, "openapi_url": None},
        )
    except OSError as error:
        raise ValueError(f"port {port} of {host} cannot be listened on: {error}") from error
    return page


def _same_time(user: str, password: str) -> Any:
    """A check of credentials that takes equally long for a wrong name and a wrong password."""

    def check(name: str, word: str) -> bool:
        right = secrets.compare_digest(name.encode(), user.encode())
        return secrets.compare_digest(word.encode(), password.encode()) and right

    return check
