"""One sink on its own thread: what it is handed and when, and that nothing of it reaches the training."""

import os
import threading
import time

import numpy as np
import pytest

import made_up
from normkit.recording import outlet as room
from normkit.recording.figures import Members
from normkit.recording.outlet import Outlet
from normkit.types import Reading

MEMBERS = Members([made_up.param("a.weight", (2, 2)), made_up.param("a.bias", (2,))])


class Kept:
    """A sink that keeps what it is given; `fails_at` is a step at which it does not, `gate` holds it up."""

    norms = ("l2", "rms")
    figures = True

    def __init__(self, fails_at=None, gate=None):
        self.parts, self.flushed, self.closed = [], 0, 0
        self.fails_at, self.gate = fails_at, gate

    def put(self, part):
        if self.gate is not None:
            self.gate.wait(10)
        if part.step == self.fails_at:
            raise OSError(28, "No space left on device")
        self.parts.append(part)

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed += 1

    @property
    def steps(self):
        return [part.step for part in self.parts]


def reading(step, scalars=None, size=1.0):
    matrix = np.array([made_up.sums_of(size * np.ones((2, 2))), made_up.sums_of(None)]).T[:6]
    return Reading(step, 0, 5.0 + step, {"weight": matrix}, epoch=2, scalars=scalars or {})


def feed(sink, readings):
    outlet = Outlet("a test", sink)
    for each in readings:
        outlet.take(each, MEMBERS)
    outlet.close()


def eventually(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_slice_has_the_norms_and_figures_that_the_sink_takes():
    sink = Kept()
    feed(sink, [reading(3, {"loss": 0.5})])
    (part,) = sink.parts
    assert (part.step, part.epoch, part.wall, part.params, part.scalars) == (3, 2, 8.0, MEMBERS.params, {"loss": 0.5})
    assert set(part.norms["weight"]) == {"l2", "rms"}
    np.testing.assert_array_equal(part.norms["weight"]["l2"], [2.0, np.nan])
    assert part.there["weight"].tolist() == [True, False]
    assert part.figures["weight_l2"] == 2.0


def test_everything_is_handed_over_in_order_and_closed_once():
    sink = Kept()
    feed(sink, map(reading, range(50)))
    assert sink.steps == list(range(50))
    assert sink.closed == 1
    assert sink.flushed >= 1


def test_the_newest_waits_for_the_next_and_for_its_scalars(monkeypatch):
    monkeypatch.setattr(room, "HOLD", 60.0)
    sink = Kept()
    outlet = Outlet("a test", sink)
    outlet.take(reading(0), MEMBERS)
    outlet.amend(0, {"loss": 2.0})
    outlet.take(reading(1), MEMBERS)
    eventually(lambda: sink.steps == [0])
    assert sink.parts[0].scalars == {"loss": 2.0}
    outlet.close()
    assert sink.steps == [0, 1]


def test_it_waits_no_longer_than_a_moment(monkeypatch):
    monkeypatch.setattr(room, "HOLD", 0.02)
    sink = Kept()
    outlet = Outlet("a test", sink)
    outlet.take(reading(4), MEMBERS)
    eventually(lambda: sink.steps == [4])
    outlet.amend(4, {"loss": 2.0})  # later still
    eventually(lambda: sink.steps == [4, 4])
    assert (sink.parts[1].scalars, sink.parts[1].norms, sink.parts[1].figures) == ({"loss": 2.0}, {}, {})
    outlet.close()


def test_of_two_readings_of_a_step_the_later_counts():
    sink = Kept()
    feed(sink, [reading(0), reading(1), reading(1, size=3.0)])
    assert sink.steps == [0, 1]
    assert sink.parts[1].figures["weight_l2"] == 6.0


def test_a_failure_is_said_once_and_nothing_more_is_handed_over():
    sink = Kept(fails_at=2)
    outlet = Outlet("mine.csv", sink)
    message = r"^normkit could not write all to mine.csv \(OSError: .*No space left on device\); the recording has it$"
    for step in range(4):
        outlet.take(reading(step), MEMBERS)
    eventually(lambda: sink.closed)
    with pytest.warns(RuntimeWarning, match=message):
        outlet.take(reading(4), MEMBERS)
    for step in range(5, 20):
        outlet.take(reading(step), MEMBERS)
    outlet.close()
    outlet.close()
    assert (sink.steps, sink.closed) == ([0, 1], 1)


def test_what_finds_no_room_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr(room, "QUEUE_BYTES", 300)
    gate = threading.Event()
    sink = Kept(gate=gate)
    outlet = Outlet("a slow one", sink)
    for step in range(40):
        outlet.take(reading(step), MEMBERS)  # the sink stands still meanwhile
    gate.set()
    with pytest.warns(
        RuntimeWarning, match=r"^normkit could not write all to a slow one \(\d+ records came faster than"
    ):
        outlet.close()
    assert sink.steps == sorted(sink.steps)
    assert sink.steps[-1] == 39
    assert len(sink.steps) < 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12: this process has threads
def test_a_forked_child_does_nothing():
    sink = Kept()
    outlet = Outlet("a test", sink)
    outlet.take(reading(0), MEMBERS)
    child = os.fork()
    if child == 0:
        outlet.take(reading(1), MEMBERS)
        outlet.amend(1, {"loss": 1.0})
        outlet.close()
        os._exit(len(sink.parts))
    _, status = os.waitpid(child, 0)
    outlet.close()
    assert os.waitstatus_to_exitcode(status) in (0, 1)
    assert sink.steps == [0]
