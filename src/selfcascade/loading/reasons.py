"""Why a library could not load something, in a line."""

from __future__ import annotations

import textwrap


def reason_of(error: BaseException) -> str:
    """The first line of an error's text, shortened; its class where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(lines[0], 300, placeholder=" ...") if lines else type(error).__name__
