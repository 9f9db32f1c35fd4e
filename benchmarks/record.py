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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import normkit.torch as nk
from models import GPT, small_gpt
from peers import MissingPeerError, composer, foreach_norm, ignite_histograms, wandb_watch
from ratios import Row, format_time, medians, print_table

Result = tuple[Row | None, str]  # a row of the table, a line below it

PEERS = (
    ("torch._foreach_norm, l2 alone", foreach_norm, 1.2, False, 15),
    ("Composer OptimizerMonitor", composer, 10, True, 7),
    ("wandb.watch's body", wandb_watch, 30, True, 5),
    ("Ignite WeightsHistHandler", ignite_histograms, 200, True, 3),
)
EVERY_STEP: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("every step: weights, gradients", ("weight", "grad"), 1.02),
    ("every step: updates, too", ("weight", "grad", "update"), 1.04),
)


def main() -> None:
    tiny = "--tiny" in sys.argv[1:]
    torch.manual_seed(0)
    model = small_gpt() if tiny else GPT()
    with tempfile.TemporaryDirectory() as name:
        results = [*one_record(model, Path(name), tiny), *every_step(model, Path(name), tiny)]
        results.append(auto(model, Path(name), tiny))
    tensors, entries = len(list(model.parameters())), sum(weight.numel() for weight in model.parameters())
    title = f"recording a GPT of {tensors} tensors, {entries / 1e6:.3g} M parameters"
    print_table(title, [row for row, _ in results if row is not None])
    print("\n".join(note for _, note in results if note))


# -- one record ----------------------------------------------------------------------------------------------------


def one_record(model: nn.Module, folder: Path, tiny: bool) -> Iterator[Result]:
    """The six sums of all weights, from looking where the tensors lie to the writer's queue, against each peer."""
    recorder = nk.record(model, to=folder / "one.norms", every=1, what=("weight",), quiet=True)
    for title, peer, target, faster, repeats in PEERS:
        try:
            with peer(model, folder) as theirs:
                *ours, seconds = medians([recorder.step] * 5 + [theirs], repeats=2 if tiny else repeats)
        except MissingPeerError as reason:
            yield None, f"skipped: {title}: {reason}"
        else:
            yield Row("one record of the weights", statistics.median(ours), seconds, title, target, faster), ""
    recorder.close()


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


class Loop:
    """Training of a model on random tokens, batch 8 x 128, AdamW; its hooks' time is counted."""

    def __init__(self, model: nn.Module, tiny: bool) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        self.tokens = torch.randint(128, (2, 16)) if tiny else torch.randint(16384, (8, 128))
        self.hooks: list[float] = []  # seconds in the recorder's hooks, by step
        self.rest: list[float] = []  # seconds in the rest of the step
        self.clock = HookClock(self.optimizer)

    def record(self, **how: Any) -> nk.TorchRecorder:
        """Begin to record, between the clock's own hooks."""
        self.clock.open()
        recorder = nk.record(self.model, self.optimizer, quiet=True, **how)
        self.clock.close()
        return recorder

    def step(self) -> None:
        self.clock.spent, start = 0.0, time.perf_counter()
        self.optimizer.zero_grad()
        self.model(self.tokens).backward()
        self.optimizer.step()
        self.hooks.append(self.clock.spent)
        self.rest.append(time.perf_counter() - start - self.clock.spent)

    def whole(self, skip: int) -> float:
        """Median seconds of a step with its hooks, the first `skip` left out."""
        return statistics.median(hooks + rest for hooks, rest in zip(self.hooks[skip:], self.rest[skip:], strict=True))


def every_step(model: nn.Module, folder: Path, tiny: bool) -> Iterator[Result]:
    """Medians of the hooks' time and of the rest of the same steps; a loop that is not recorded is a cross-check.

    The loops take turns, step by step.
    """
    warm, steps = (1, 3) if tiny else (2, 10)
    plain = Loop(model, tiny)
    loops = [Loop(model, tiny) for _ in EVERY_STEP]
    recorders = [
        loop.record(to=folder / f"{len(what)}.norms", every=1, what=what)
        for loop, (_, what, _) in zip(loops, EVERY_STEP, strict=True)
    ]
    for _ in range(warm + steps):
        for loop in (plain, *loops):
            loop.step()
    for recorder in recorders:
        recorder.close()
    for (title, _, target), loop in zip(EVERY_STEP, loops, strict=True):
        hooks, rest = statistics.median(loop.hooks[warm:]), statistics.median(loop.rest[warm:])
        wall = f"; whole steps, recorded / not recorded: {loop.whole(warm) / plain.whole(warm):.3f}x"
        yield _share(title, hooks, rest, target, wall)


def auto(model: nn.Module, folder: Path, tiny: bool) -> Result:
    """Means over all steps from the first, since this schedule leaves steps out to keep its promise."""
    loop = Loop(model, tiny)
    recorder = loop.record(to=folder / "auto.norms", every="auto")
    for _ in range(3 if tiny else 20):
        loop.step()
    recorder.close()
    made = f"; {recorder.records} records in {len(loop.hooks)} steps, step 0 and the last among them"
    return _share('every="auto"', statistics.fmean(loop.hooks), statistics.fmean(loop.rest), 1.01, made)


def _share(title: str, hooks: float, rest: float, target: float, more: str) -> Result:
    note = f"{title}: {format_time(hooks)} in hooks, {format_time(rest)} in the rest of a step: {1 + hooks / rest:.4f}x"
    return Row(title, rest + hooks, rest, "the step without hooks", target), note + more


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
