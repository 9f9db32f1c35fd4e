"""Findings as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from normkit.diagnose import lines
from normkit.report.look import Look
from normkit.types import Finding


def findings_text(findings: Sequence[Finding], look: Look | None = None) -> str:
    """The findings one below the other, the mark coloured by gravity and the remedy plain."""
    look = look or Look()
    return "\n".join(line for finding in findings for line in _painted(finding, look))


def _painted(finding: Finding, look: Look) -> list[str]:
    first, *rest = lines(finding, look.width)
    return [look.paint(first[:2], finding.severity) + first[2:], *rest]
