"""The mistakes of this field, as rows for tools/mutants.py: what, file, old text, new text, tests that must fail.

Add a row with each formula that people get wrong; a row that no test catches is a missing test.
"""

from __future__ import annotations

Row = tuple[str, str, str, str, tuple[str, ...]]

MISTAKES: list[Row] = []
