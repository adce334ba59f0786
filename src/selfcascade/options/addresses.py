"""Addresses of remote files (`s3://...`), which messages show without the secrets in them."""

from __future__ import annotations

import re

# `Path` leaves one slash of an address. A single letter is a Windows drive.
ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/+(?P<user>[^/@]*@)?(?P<place>[^?#]*)(?P<rest>.*)", re.I | re.S)


def masked(text: str) -> str:
    """Hides the user, password, query and fragment of an address. Other text is returned unchanged."""
    match = ADDRESS.fullmatch(text)
    if match is None:
        return text
    user, rest = "***@" if match["user"] else "", f"{match['rest'][0]}***" if match["rest"] else ""
    return f"{match['scheme']}://{user}{match['place']}{rest}"


def refusal(name: str, value: str) -> str | None:
    """Says why an address cannot be used as a file or folder. None if the value is not an address.

    Args:
        name: The caller's name for the value.
        value: The given value.
    """
    if ADDRESS.fullmatch(value) is None:
        return None
    words = "copy it first, by fsspec or `hf download`, or mount it (docs/scale.md)"
    return f"{name} {masked(value)!r} is an address, and only files of this machine are read and written; {words}"
