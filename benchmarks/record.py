"""What recording costs: one record against other tools' records, and the share of a training step that it takes.

    python benchmarks/record.py            minutes
    python benchmarks/record.py --tiny     seconds: does it run? Its ratios mean nothing.

A row is left out, with the reason said, where a peer is not installed; peers.py says how to install them. Peer and
normkit take turns in one run, so that a busy machine slows both; the ratios are to be trusted, not the times.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from models import GPT, small_gpt
from peers import Missing, composer, foreach_norm, ignite_histograms, wandb_watch
from ratios import Row, format_time, medians, print_table
from torch import nn

import normkit.torch as nk
from normkit.types import When

PEERS = (
    ("torch._foreach_norm, l2 alone", foreach_norm, 1.2, False, 15),
    ("Composer OptimizerMonitor", composer, 10, True, 7),
    ("wandb.watch's body", wandb_watch, 30, True, 5),
    ("Ignite WeightsHistHandler", ignite_histograms, 200, True, 3),
)
SCHEDULES: tuple[tuple[str, When, tuple[str, ...], float], ...] = (
    ("every step: weights, gradients", 1, ("weight", "grad"), 1.02),
    ("every step: updates, too", 1, ("weight", "grad", "update"), 1.04),
    ('every="auto"', "auto", ("weight", "grad", "update"), 1.01),
)


def main() -> None:
    tiny = "--tiny" in sys.argv[1:]
    torch.manual_seed(0)
    model = small_gpt() if tiny else GPT()
    tensors, entries = len(list(model.parameters())), sum(weight.numel() for weight in model.parameters())
    with tempfile.TemporaryDirectory() as name:
        rows, notes = one_record(model, Path(name), tiny)
        for title, every, what, target in SCHEDULES:
            row, note = overhead(model, title, every, what, target, Path(name), tiny)
            rows.append(row)
            notes.append(note)
    print_table(f"recording a GPT of {tensors} tensors, {entries / 1e6:.1f} M parameters", rows)
    for note in notes:
        print(f"  {note}")


# -- one record ----------------------------------------------------------------------------------------------------


def one_record(model: nn.Module, folder: Path, tiny: bool) -> tuple[list[Row], list[str]]:
    """The six sums of all weights, from looking where the tensors lie to the writer's queue, against each peer."""
    rows, notes = [], []
    recorder = nk.record(model, to=folder / "one.norms", every=1, what=("weight",), quiet=True)
    for title, peer, target, faster, repeats in PEERS:
        try:
            with peer(model, folder) as theirs:
                ours, seconds = medians([recorder.step, theirs], repeats=2 if tiny else repeats)
        except Missing as reason:
            notes.append(f"skipped: {title}: {reason}")
        else:
            rows.append(Row("one record of the weights", ours, seconds, title, target, faster))
    recorder.close()
    return rows, notes


# -- recording while it trains -------------------------------------------------------------------------------------


@dataclass
class HookClock:
    """The time that hooks between `open` and `close` take: hooks of an optimizer run in the order they came in."""

    optimizer: torch.optim.Optimizer
    spent: float = 0.0
    _began: float = field(default=0.0, init=False)

    def open(self) -> None:
        self.optimizer.register_step_pre_hook(self._start)
        self.optimizer.register_step_post_hook(self._start)

    def close(self) -> None:
        self.optimizer.register_step_pre_hook(self._stop)
        self.optimizer.register_step_post_hook(self._stop)

    def _start(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        self.spent += time.perf_counter() - self._began


def overhead(
    model: nn.Module, title: str, every: When, what: tuple[str, ...], target: float, folder: Path, tiny: bool
) -> tuple[Row, str]:
    """The time in the recorder's hooks against the rest of the same steps; the same loop without it is a cross-check.

    Steps of two equal loops take turns, one recorded, one not. Each step's hooks are timed in place. A schedule that
    leaves steps out is measured by sums over all steps, one that takes each by medians.
    """
    recorded, plain = Loop(model, tiny), Loop(model, tiny)
    clock = HookClock(recorded.optimizer)
    clock.open()
    name = f"{'-'.join(what)}-{every}.norms"
    with nk.record(model, recorded.optimizer, to=folder / name, every=every, what=what, quiet=True) as recorder:
        clock.close()
        hooks, rest, without = _steps(recorded, plain, clock, warmup=1 if tiny else 3, steps=3 if tiny else 20)
    typical = statistics.median if every == 1 else statistics.fmean
    cost, step = typical(hooks), typical(rest)
    recorded_step = statistics.median(map(sum, zip(hooks, rest, strict=True)))
    note = (
        f"{title}: {format_time(cost)} in hooks of a step of {format_time(step)}: {1 + cost / step:.4f}x; "
        f"{recorder.records} records; whole steps, recorded / not: {recorded_step / statistics.median(without):.3f}x"
    )
    return Row(title, step + cost, step, "the step without hooks", target), note


class Loop:
    """Training of a model on random tokens, batch 8 x 128, AdamW."""

    def __init__(self, model: nn.Module, tiny: bool) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        self.tokens = torch.randint(128, (2, 16)) if tiny else torch.randint(16384, (8, 128))

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(self.tokens).backward()
        self.optimizer.step()


def _steps(
    recorded: Loop, plain: Loop, clock: HookClock, *, warmup: int, steps: int
) -> tuple[list[float], list[float], list[float]]:
    """Seconds in hooks, in the rest of the recorded steps, and in steps of the plain loop, after some to warm up."""
    hooks, rest, without = [], [], []
    for number in range(warmup + steps):
        clock.spent = 0.0
        whole, bare = _seconds(recorded.step), _seconds(plain.step)
        if number >= warmup:
            hooks.append(clock.spent)
            rest.append(whole - clock.spent)
            without.append(bare)
    return hooks, rest, without


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
