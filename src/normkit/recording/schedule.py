"""When to record: `Every`, a number, a function of the step, or "auto" with a cap on what recording may cost."""

from __future__ import annotations

import contextlib
import math
import operator
import time
from collections.abc import Callable, Iterator
from typing import Any

from normkit.errors import ArgumentError, in_brief
from normkit.types import Every, When

AUTO = Every(10, first=100)
FREE_RECORDS = 2  # "auto" takes so many steps before it asks what they cost: a two-step trial shall show something,
FREE_SECONDS = 0.02  # and so much time in all, which nobody notices: a tutorial's run of a second shall show more


class Schedule:
    """Says which optimizer steps are recorded.

    `overhead` is a share of the training time (0.01 = 1 %): with every="auto" a step is passed over while the time
    spent on recording so far is above that share of the time spent on training so far. The other forms are obeyed
    whatever they cost. Nothing is passed over before recording has taken 20 ms in all.

    Raises: ArgumentError for any other `every`, and unless 0 < overhead <= 1.
    """

    def __init__(self, every: When = "auto", *, overhead: float = 0.01) -> None:
        self.auto = isinstance(every, str)
        self.asked: Callable[[int], bool] | None = None
        self.rule = _rule(every)
        if self.rule is None:
            self.asked = every  # type: ignore[assignment]  # _rule lets nothing else pass
        if isinstance(overhead, bool) or not isinstance(overhead, int | float) or not 0 < overhead <= 1:
            raise ArgumentError(
                f"overhead={in_brief(overhead)}: expected a share of the training time above 0, up to 1 (0.01 is 1 %)"
            )
        self.overhead = float(overhead)
        self.passed_over = 0
        self._spent = 0.0
        self._taken = 0
        self._began: float | None = None
        self._decided: tuple[int, bool] = (0, True)

    def start(self) -> None:
        """Training begins now."""
        self._began, self._spent = time.perf_counter(), 0.0

    @property
    def spent(self) -> float:
        """Seconds that recording has taken from the training thread since `start`."""
        return self._spent

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        """Count the time inside as the recorder's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._spent += time.perf_counter() - began

    def samples(self, step: int) -> bool:
        """Before step `step`: shall its gradient and update be measured? The answer for a step never changes."""
        if self._decided[0] != step:
            self._decided = (step, self._decide(step))
        return self._decided[1]

    def records(self, step: int) -> bool:
        """After step `step`: is it recorded? A function given as `every` is asked here."""
        taken = self.samples(step) if self.asked is None else bool(self.asked(step))
        self._taken += taken
        return taken

    def is_due(self, step: int) -> bool:
        """By the rule alone, whatever it costs. Always where a function decides, which is asked after the step."""
        rule = self.rule
        return rule is None or step <= rule.first or (rule.steps is not None and step % rule.steps == 0)

    def records_epoch(self, epoch: int) -> bool:
        """Is the end of epoch number `epoch` (from 1) recorded?"""
        return self.rule is not None and self.rule.epochs is not None and epoch % self.rule.epochs == 0

    def text(self) -> str:
        """The schedule in words, and whether "auto" had to be stretched."""
        if self.rule is None:
            return "when the function given says so"
        if not self.auto:
            return str(self.rule)
        text = f"auto: {self.rule}"
        if self.passed_over:
            text += f", stretched to stay under {100 * self.overhead:g} % of the training time"
        return text

    def _decide(self, step: int) -> bool:
        if self.rule is None:
            return True  # asked only after the step, so each must be measured
        if not self.is_due(step):
            return False
        if not self.auto or self._taken < FREE_RECORDS or self._affordable():
            return True
        self.passed_over += 1
        return False

    def _affordable(self) -> bool:
        if self._began is None:
            return True
        training = time.perf_counter() - self._began - self._spent
        expected = self._spent * (self._taken + 1) / max(self._taken, 1)
        return expected <= max(self.overhead * training, FREE_SECONDS)


def _rule(every: Any) -> Every | None:
    if isinstance(every, Every):
        return every
    if every == "auto" and isinstance(every, str):
        return AUTO
    if isinstance(every, float) and math.isfinite(every) and every == int(every):
        every = int(every)
    if hasattr(every, "__index__") and not isinstance(every, bool) and operator.index(every) >= 1:
        return Every(operator.index(every))
    if callable(every) and not isinstance(every, type):
        return None
    raise ArgumentError(
        f"every={in_brief(every)}: expected a number of optimizer steps of at least 1, 'auto', an Every such as "
        "Every(epochs=1), or a function of the step"
    )
