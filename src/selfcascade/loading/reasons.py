"""Another library's error in one line."""

from __future__ import annotations

import textwrap


def reason_of(error: BaseException) -> str:
    """The first line of an error's message, shortened; the name of its class if the message is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(lines[0], 300, placeholder=" ...") if lines else type(error).__name__
