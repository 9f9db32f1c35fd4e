"""Finds the pieces of a Markdown page that a reader would run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"(?P<mark><!-- no-run: (?P<reason>[^>]*?)-->\s*)?^```(?P<language>[a-z]+)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a page: its language, its text, its line, and why it is not run, if it is not."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None = None

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"


def snippets(page: str, text: str) -> list[Snippet]:
    """Every fenced block of a page that names a language."""
    return [
        Snippet(
            page,
            text.count("\n", 0, match.start("language")) + 1,
            match["language"],
            match["code"],
            match["reason"] and match["reason"].strip(),
        )
        for match in FENCE.finditer(text)
    ]


def pages(root: Path) -> list[Path]:
    """README.md, CONTRIBUTING.md and the pages of docs/."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]


def commands(code: str) -> list[str]:
    """The lines of a console block that begin with `$ `, without it."""
    return [line[2:] for line in code.splitlines() if line.startswith("$ ")]
