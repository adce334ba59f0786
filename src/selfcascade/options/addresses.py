"""Addresses of remote files (`s3://...`), which are told without the secrets in them."""

from __future__ import annotations

import re

# A path made of an address has one slash; a single letter is a drive of Windows.
ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/+(?P<user>[^/@]*@)?(?P<place>[^?#]*)(?P<rest>.*)", re.I | re.S)


def masked(text: str) -> str:
    """An address without its user, password, query and fragment; other text as it is."""
    match = ADDRESS.fullmatch(text)
    if match is None:
        return text
    user, rest = "***@" if match["user"] else "", f"{match['rest'][0]}***" if match["rest"] else ""
    return f"{match['scheme']}://{user}{match['place']}{rest}"


def refusal(name: str, value: str) -> str | None:
    """Why an address cannot be taken for a file or folder, in a sentence; None if it is none.

    Args:
        name: What the caller calls it.
        value: What was given.
    """
    if ADDRESS.fullmatch(value) is None:
        return None
    words = "copy it first, by fsspec or `hf download`, or mount it (docs/scale.md)"
    return f"{name} {masked(value)!r} is an address, and only files of this machine are read and written; {words}"
