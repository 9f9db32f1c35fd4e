"""Which of the processes of a distributed run this is."""

from __future__ import annotations

import os


def told_rank() -> int:
    """The rank that a launcher such as torchrun told this process, or 0."""
    told = os.environ.get("RANK", "0")
    return int(told) if told.isdigit() else 0
