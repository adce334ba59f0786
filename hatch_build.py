"""The README as a package index shows it: there, a link relative to the repository would lead nowhere.

Links become absolute by `Repository` of the project's URLs. While none is set, the file is named instead.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(!?)\[([^\]]+)\]\((?![a-z]+:|#)([^)]+)\)")


def get_metadata_hook() -> type:
    """What hatchling asks for; it is imported here, as it is there for builds alone."""
    from hatchling.metadata.plugin.interface import MetadataHookInterface  # pyright: ignore[reportMissingImports]

    class ReadmeHook(MetadataHookInterface):
        """Adds the README to the package's metadata."""

        PLUGIN_NAME = "custom"

        def update(self, metadata: dict[str, Any]) -> None:
            text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
            home = metadata.get("urls", {}).get("Repository")
            metadata["readme"] = {"content-type": "text/markdown", "text": for_index(text, home)}

    return ReadmeHook


def for_index(text: str, home: str | None) -> str:
    """The text with links that work away from the repository.

    Args:
        text: Markdown with links relative to the repository's root.
        home: URL of the repository. None: links become their words and the file's name, and pictures are left out.
    """

    def replaced(link: re.Match[str]) -> str:
        picture, words, path = link.groups()
        if home is not None:
            return f"{picture}[{words}]({home}/{'raw' if picture else 'blob'}/HEAD/{path})"
        return "" if picture else words if words == path else f"{words} (`{path}`)"

    return re.sub(r"\n{3,}", "\n\n", LINK.sub(replaced, text))
