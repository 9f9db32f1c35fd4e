"""When a step is recorded."""

import numpy as np
import pytest

from normkit.errors import ArgumentError
from normkit.recording import schedule
from normkit.recording.schedule import Schedule
from normkit.types import Every


def taken(every, steps=30, **options):
    plan = Schedule(every, **options)
    return [step for step in range(1, steps + 1) if plan.records(step)]


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (10, [10, 20, 30]),
        (1, list(range(1, 31))),
        (Every(10, first=3), [1, 2, 3, 10, 20, 30]),
        (Every(epochs=1), []),
        (Every(epochs=1, first=2), [1, 2]),
        (lambda step: step in (4, 5), [4, 5]),
        (10.0, [10, 20, 30]),
    ],
)
def test_steps(every, expected):
    assert taken(every) == expected


def test_auto_is_each_of_the_first_hundred_then_every_tenth_while_it_is_cheap():
    assert taken("auto", 125) == [*range(1, 101), 110, 120]


@pytest.fixture
def clock(monkeypatch):
    now = {"t": 0.0}
    monkeypatch.setattr(schedule.time, "perf_counter", lambda: now["t"])
    return now


@pytest.mark.parametrize("cost", [0.005, 0.5, 5.0])
def test_auto_stays_under_its_share(clock, cost):
    plan = Schedule("auto", overhead=0.01)
    plan.start()
    for step in range(1, 5001):
        clock["t"] += 1.0
        if plan.records(step):
            with plan.clock():
                clock["t"] += cost
    training = 5000.0
    assert plan.spent <= 0.01 * training + 2 * cost
    assert plan.spent >= 0.5 * min(0.01 * training, 590 * cost)
    assert bool(plan.passed_over) == (cost > 0.01)


def test_a_number_is_obeyed_whatever_it_costs(clock):
    plan = Schedule(1, overhead=0.01)
    plan.start()
    for step in range(1, 50):
        clock["t"] += 1.0
        assert plan.records(step)
        with plan.clock():
            clock["t"] += 10.0


def test_the_answer_for_a_step_never_changes(clock):
    plan = Schedule("auto", overhead=0.01)
    plan.start()
    for step in range(1, 20):
        before = plan.samples(step)
        with plan.clock():
            clock["t"] += 1.0
        assert plan.samples(step) == before == plan.records(step)


def test_epochs():
    plan = Schedule(Every(epochs=3))
    assert [epoch for epoch in range(1, 10) if plan.records_epoch(epoch)] == [3, 6, 9]
    assert not Schedule(10).records_epoch(1)


@pytest.mark.parametrize(
    ("every", "text"),
    [
        (10, "every 10 steps"),
        (1, "every step"),
        (Every(epochs=1), "every epoch"),
        (Every(100, first=1000), "each of the first 1000 steps, then every 100 steps"),
        (print, "when the function given says so"),
        ("auto", "auto: each of the first 100 steps, then every 10 steps"),
    ],
)
def test_in_words(every, text):
    assert Schedule(every).text() == text


@pytest.mark.parametrize("every", [0, -1, 2.5, True, "always", None, [], Every, float("nan"), float("inf")])
def test_bad_every(every):
    with pytest.raises(ArgumentError, match=r"every=.*: expected a number of optimizer steps of at least 1, 'auto'"):
        Schedule(every)


@pytest.mark.parametrize("overhead", [0, -0.1, 1.5, "1%", True, None])
def test_bad_overhead(overhead):
    with pytest.raises(ArgumentError, match=r"overhead=.*: expected a share of the training time above 0"):
        Schedule("auto", overhead=overhead)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
def test_every_takes_the_integers_of_any_library(kind):
    every = Every(kind(5), first=kind(0))
    assert every == Every(5)
    assert type(every.steps) is type(every.first) is int
    assert str(every) == "every 5 steps"


@pytest.mark.parametrize("given", [{}, {"steps": 3, "epochs": 2}])
def test_every_takes_steps_or_epochs(given):
    with pytest.raises(ArgumentError, match=r"expected one of the two, as in Every\(100\)"):
        Every(**given)


@pytest.mark.parametrize(
    "given",
    [{"steps": 0}, {"epochs": 0}, {"steps": 5, "first": -1}, {"steps": True}, {"steps": 1.5}, {"steps": np.float64(5)}],
)
def test_every_takes_whole_numbers(given):
    with pytest.raises(ArgumentError, match="expected a whole number of at least"):
        Every(**given)
