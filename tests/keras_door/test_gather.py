"""Which steps the ring is asked to keep, and which of those come into the recording: a ring that is only told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from normkit.keras import gather
from normkit.recording.schedule import Schedule
from normkit.types import Every


class Told:
    """A ring that keeps what it is asked to, and `newest`."""

    def __init__(self, model, located, what, depth):
        self.step, self.depth = 0, depth

    most = staticmethod(lambda tensors, what: 64)
    attach = detach = lambda self: None

    def after(self, batches):
        return self.step + batches

    def want(self, steps, *, newest=False):
        self.steps, self.newest, self.kept = list(steps), newest, []

    def go(self, steps):
        for self.step in range(self.step + 1, self.step + 1 + steps):  # noqa: B020
            self.kept = [step for step in self.kept if step in self.steps]
            if self.newest or self.step in self.steps:
                self.kept.append(self.step)

    def take(self):
        return [(step, {}) for step in self.kept]


@pytest.fixture
def gathered(monkeypatch):
    monkeypatch.setattr(gather, "Ring", Told)

    def make(every, *, length, offset=0, **optimizer):
        model = SimpleNamespace(optimizer=SimpleNamespace(**optimizer))
        return gather.Gather(model, [], ("grad",), Schedule(every), length=length, offset=offset)

    return make


def steps_of(found):
    return [step for step, _ in found]


def test_auto_wants_its_rule_and_nothing_between(gathered):
    kept = gathered("auto", length=50, offset=95)
    assert kept._ring.steps[:8] == [1, 2, 3, 4, 5, 15, 25, 35]
    assert not kept._ring.newest
    kept._ring.go(30)
    assert steps_of(kept.taken()) == [1, 2, 3, 4, 5, 15, 25]


@pytest.mark.parametrize("known", [True, False])
def test_of_an_epoch_the_last_step_is_kept(gathered, known):
    kept = gathered(Every(epochs=2, first=3), length=10 if known else None)
    assert kept._ring.steps == ([1, 2, 3, 10] if known else [1, 2, 3])
    assert kept._ring.newest is not known
    kept._ring.go(10)
    assert steps_of(kept.taken((10, 1))) == [1, 2, 3]  # the first epoch is not asked for
    kept._ring.go(10)
    assert steps_of(kept.taken((20, 2))) == [20]


def test_a_loss_scaler_may_skip_the_last_step(gathered):
    kept = gathered(Every(epochs=1), length=10, inner_optimizer=None)
    assert kept._ring.newest
    kept._ring.go(8)
    assert steps_of(kept.taken((8, 1))) == [8]


def test_a_function_is_asked_after_the_step(gathered):
    kept = gathered(lambda step: step % 4 == 0, length=6)
    kept._ring.go(6)
    assert steps_of(kept.taken((6, 1))) == [4]
    assert kept._ring.steps == [7, 8, 9, 10, 11, 12]


def test_the_ring_is_emptied_before_it_is_full(gathered):
    kept = gathered(10, length=None)
    assert not kept.is_full(600)
    kept = gathered(1, length=4)
    assert not kept.is_full(3)
    assert kept.is_full(4)
