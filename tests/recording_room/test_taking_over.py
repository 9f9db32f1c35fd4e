"""Who may go on with a recording: one writer at a time, of the same model, where the run broke off."""

import socket
import time
import warnings

import numpy as np
import pytest

import normkit
from normkit.errors import ArgumentError, FileError, ModelError
from normkit.readers import Recording
from normkit.recording.opening import open_writer, too_small
from normkit.recording.past import Past
from normkit.recording.search import find, this_process, writer_of
from normkit.recording.terms import Terms
from normkit.store import pyramid
from normkit.store.writer import Writer
from normkit.types import Reading
from written import params, reading, write


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "a.norms", range(5), 3, meta={"claim": "first"})


def names(count):
    return [param.name for param in params(count)]


def test_the_slower_of_two_is_refused(path):
    one, other = Past(Recording(path)), Past(Recording(path))
    writer, _ = open_writer(Terms(to=path, resume=True), one, path, this_process(), names(3))
    with pytest.raises(FileError, match=r"'.*a\.norms' was just taken over by another process; give another path by"):
        open_writer(Terms(to=path, resume=True), other, path, this_process(), names(3))
    writer.close()


def test_the_slower_of_two_that_need_not_begins_anew(path):
    one, other = Past(Recording(path)), Past(Recording(path))
    first, _ = open_writer(Terms(to=path, resume="auto"), one, path, this_process(), names(3))
    second, past = open_writer(Terms(to=path, resume="auto"), other, path, this_process(), names(3))
    first.close()
    second.close()
    assert (first.attempt, second.attempt, past) == (1, 0, None)
    assert second.path.name == "a-2.norms"


def test_another_model_is_refused_or_begins_anew(path):
    past = Past(Recording(path))
    with pytest.raises(ModelError, match=r"'.*a\.norms' holds none of this model's 1 tensors; give another path by"):
        open_writer(Terms(to=path, resume=True), past, path, {}, ["else.weight"])
    writer, past = open_writer(Terms(to=path, resume="auto"), past, path, {}, ["else.weight"])
    writer.close()
    assert (writer.path.name, past) == ("a-2.norms", None)


@pytest.mark.parametrize(
    ("host", "ago", "finished", "job", "said"),
    [
        ("elsewhere", 10, None, None, "process 1 of elsewhere"),
        ("elsewhere", 1000, None, None, None),
        ("elsewhere", 10, "then", None, None),
        ("elsewhere", 10, None, "slurm 5", None),  # the batch system runs a job once
        (socket.gethostname(), 10, None, None, None),  # a process of that number began at another time
    ],
)
def test_the_writer_on_another_host(tmp_path, host, ago, finished, job, said):  # noqa: PLR0917
    meta = {"pid": 1, "born": -1, "host": host, "job": job} | ({"finished": finished} if finished else {})
    writer = Writer(tmp_path / "a.norms", meta)
    layout = writer.layout(params(1))
    writer.put(Reading(0, layout, time.time() - ago, {"weight": np.ones((6, 1))}))
    writer.close()
    assert writer_of(Recording(writer.path)) == said


@pytest.mark.parametrize(
    ("end", "goes_on"), [("finished", False), ("interpreter exit", False), ("dropped", False), ("interrupted", True)]
)
def test_auto_goes_on_where_a_run_broke_off(tmp_path, monkeypatch, end, goes_on):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py", "--lr", "1"])
    (tmp_path / "runs").mkdir()
    write("runs/train-20260101-1200.norms", meta={"argv": ["train.py", "--lr", "1"], "end": end})
    assert (find("auto", None) is not None) == goes_on


@pytest.mark.parametrize(("counted", "step"), [(135, 235), (100, 4), (None, 4)])
def test_steps_are_counted_from_where_the_last_attempt_began(tmp_path, counted, step):
    attempts = [{"began": 0, "counted": None}, {"began": 200, "counted": 100}]
    past = Past(Recording(write(tmp_path / "a.norms", range(5), 3, meta={"attempts": attempts})))
    assert past.start({}, told=None, counted=counted).step == step


def test_a_small_budget_is_said():
    assert too_small(256 << 20, 1000) == too_small(None, 10**9) == ""
    assert too_small(1 << 20, 1000) == (
        "a budget of 1,048,576 bytes is too small for 1,000 columns: the file may take 7,680,000"
    )


def test_ranks_need_a_path_to_resume():
    with pytest.raises(ArgumentError, match=r"ranks='all' with resume='auto' needs to=, so that each rank finds its"):
        Terms(ranks="all", resume="auto")


def test_pieces_are_joined_where_all_were_recorded(tmp_path):
    write(tmp_path / "a.norms", range(0, 12, 2), 2)
    write(tmp_path / "b.norms", range(0, 12, 3), 2)
    whole = normkit.load(normkit.merge([tmp_path / "a.norms", tmp_path / "b.norms"], pieces=True))
    assert whole.steps.tolist() == [0, 6]


def test_a_pyramid_that_fails_costs_no_record(tmp_path, monkeypatch):
    def broken(*_):
        raise MemoryError("no room for a block")

    monkeypatch.setattr(pyramid, "_planes", broken)
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(2))
    with pytest.warns(RuntimeWarning, match="no room for a block; training goes on"):  # noqa: PT031
        for step in range(40):
            writer.put(reading(step, layout, 2))
        assert writer.flush() == 0
        writer.close()
    assert writer.dropped == 0
    assert Recording(writer.path).steps.tolist() == list(range(40))


def test_infinities_of_both_signs_warn_of_nothing(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(600):
            sums = np.full((6, 1), np.inf if step // 16 % 2 else -np.inf)
            sums[4:] = 0
            writer.put(Reading(step, layout, 0.0, {"weight": sums}))
        writer.close()
        assert np.isnan(Recording(writer.path).envelope("mean", spans=1).mean).all()
    assert (writer.error, writer.dropped) == (None, 0)


def test_a_thread_that_dies_is_said_at_once(tmp_path, monkeypatch):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(1))
    monkeypatch.setattr(writer._keeper, "take", lambda *_, **__: 1 / 0)
    with pytest.warns(RuntimeWarning, match="division by zero; training goes on"):  # noqa: PT031
        writer.put(reading(0, layout, 1))
        assert writer.flush() == -1
        writer.close()
    assert writer.put(reading(1, layout, 1)) == -1
