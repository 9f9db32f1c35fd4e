"""A recording -> text for a person, or plain values for a program."""

from normkit.report.heading import headline
from normkit.report.look import Look
from normkit.report.plain import to_json
from normkit.report.remarks import findings_text
from normkit.report.text import SORTS, show

__all__ = ["SORTS", "Look", "findings_text", "headline", "show", "to_json"]
