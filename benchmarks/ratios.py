"""Timing and printing that the benchmarks share: medians, ratios against a peer in the same run, one table.

    rows = [Row("six statistics, 64 Mi float32", ours=0.012, peer=0.008, peer_name="np.dot", target=1.6)]
    print_table("kernel", rows)          # ratio = ours / peer, ok where it is at most the target

A row whose target is a speed-up (`faster=True`) has ratio = peer / ours, ok where it is at least the target.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table: our time and the peer's in seconds (or memory in bytes), and the ratio to reach."""

    what: str
    ours: float
    peer: float
    peer_name: str
    target: float
    faster: bool = False
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return self.peer / self.ours if self.faster else self.ours / self.peer

    @property
    def reached(self) -> bool:
        return self.ratio >= self.target if self.faster else self.ratio <= self.target


def median_seconds(call: Callable[[], object], repeats: int = 7, calls: int = 1, warmup: int = 1) -> float:
    """Median over `repeats` of the time of one `call()`, each measured over `calls` of them."""
    return medians([call], repeats, calls, warmup)[0]


def medians(
    callables: Sequence[Callable[[], object]], repeats: int = 7, calls: int = 1, warmup: int = 1
) -> list[float]:
    """Medians of several callables taken in turn, so that a busy moment of the machine falls on all of them."""
    for call in callables:
        for _ in range(warmup):
            call()
    times: list[list[float]] = [[] for _ in callables]
    for _ in range(repeats):
        for call, seen in zip(callables, times, strict=True):
            seen.append(_seconds(call, calls))
    return [statistics.median(seen) for seen in times]


def _seconds(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def format_time(seconds: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def format_bytes(number: float) -> str:
    return f"{number / 1e6:.3g} MB"


def print_table(title: str, rows: Sequence[Row]) -> bool:
    """Print the rows with their targets; True where every target is reached."""
    lines = [("what", "normkit", "peer", "against", "ratio", "target", "")]
    lines += [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print(f"\n{title}")
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    sys.stdout.flush()
    return all(row.reached for row in rows)


def _cells(row: Row) -> tuple[str, ...]:
    sign = ">=" if row.faster else "<="
    verdict = "ok" if row.reached else "miss"
    form = format_time if row.unit == "s" else format_bytes
    times = (form(row.ours), form(row.peer))
    return (row.what, *times, row.peer_name, f"{row.ratio:.3g}x", f"{sign} {row.target:g}x", verdict)
