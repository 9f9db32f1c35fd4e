"""Readings -> findings: what a run's norms say, with figures and the reason for each threshold.

A rule is one function from the columns of a recording to findings; `RULES` lists them all. Rules open no files and
know no framework. They are of class theorem, exact arithmetic without a model of training, but for `balance`.
"""

from __future__ import annotations

from normkit.diagnose.balance import balances, frozen_direction
from normkit.diagnose.columns import Columns, Source
from normkit.diagnose.effect import no_effect
from normkit.diagnose.finite import non_finite
from normkit.diagnose.motion import never_updated, nothing_moves, untrained
from normkit.diagnose.wording import lines, text
from normkit.diagnose.zeros import all_zero
from normkit.types import Finding

RULES = (non_finite, nothing_moves, untrained, never_updated, all_zero, no_effect, frozen_direction)
WEIGHT = {"error": 0, "warning": 1, "note": 2}

__all__ = ["RULES", "WEIGHT", "Columns", "Source", "balances", "findings", "lines", "text"]


def findings(source: Source | Columns) -> list[Finding]:
    """Everything the rules find in a recording, the gravest first; of one gravity in the order of `RULES`.

    Each finding says what was seen with its figures, what to do, which tensors, and what its threshold rests on.
    A recording without records has none.
    """
    columns = Columns.of(source)
    found = [finding for rule in RULES for finding in rule(columns)]
    return sorted(found, key=lambda finding: WEIGHT[finding.severity])
