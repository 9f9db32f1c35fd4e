"""Which recording a resumed run goes on with, and where it stands."""

import os
import socket
import sys

import numpy as np
import pytest

from normkit.errors import ArgumentError, FileError, StateError
from normkit.readers import Recording
from normkit.recording import search
from normkit.recording.past import Past, Start
from normkit.recording.search import find, this_job, this_process
from normkit.store.writer import Writer
from written import matrix, params, start, write

VARIABLES = [name for names in search.JOBS.values() for name in names]
LAST = "the last one recorded, as neither the weights nor the optimizer tell"


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """An empty folder, outside of any batch system, in a program called train.py."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1"])
    (tmp_path / "runs").mkdir()
    return monkeypatch


def put(name, when=0, **meta):
    path = write(f"runs/{name}.norms", meta={"argv": sys.argv, **meta})
    os.utime(path, (1e9 + when, 1e9 + when))
    return path


def found(resume, to=None):
    one = find(resume, to)
    return None if one is None else one.path.name


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "17"}, "slurm 17"),
        ({"SLURM_JOB_ID": ""}, None),
        ({"PBS_JOBID": "9.host"}, "pbs 9.host"),
        ({"LSB_JOBID": "5", "LSB_JOBINDEX": "3"}, "lsf 5 3"),
        ({"LSB_JOBID": "5"}, "lsf 5"),
        ({"OAR_JOB_ID": "1"}, "oar 1"),
        ({"FLUX_JOB_ID": "f1"}, "flux f1"),
        ({"COBALT_JOBID": "2"}, "cobalt 2"),
        ({"TRAINING_JOB_NAME": "n"}, "sagemaker n"),
        ({"AWS_BATCH_JOB_ID": "z"}, "aws batch z"),
    ],
)
def test_the_job(alone, variables, job):
    for name, value in variables.items():
        alone.setenv(name, value)
    assert this_job() == this_process()["job"] == job


def test_false_looks_for_nothing(alone):
    put("train-20260101-1200")
    assert find(False, None) is None


@pytest.mark.parametrize("resume", ["yes", 1.5, None])
def test_another_word_is_refused(alone, resume):
    with pytest.raises(ArgumentError, match=r"^resume=.*: expected True, False or 'auto'$"):
        find(resume, None)


def test_true_takes_the_newest_of_this_script(alone):
    put("train-20260101-1200", 3, end="finished")
    put("train-20260101-1300", 2)
    put("other-20260101-1400", 9)
    put("train-big-20260101-1400", 9)
    put("train", 9)
    assert found(True) == "train-20260101-1300.norms"


def test_files_that_are_no_recordings_are_passed_over(alone):
    put("train-20260101-1200")
    for name, content in (("1300", b"junk"), ("1400", b"")):
        with open(f"runs/train-20260101-{name}.norms", "wb") as file:
            file.write(content)
    assert found(True) == "train-20260101-1200.norms"


def test_auto_outside_of_a_batch_system_is_of_the_same_command_and_not_finished(alone):
    put("train-20260101-1200", 1)
    put("train-20260101-1300", 2, end="finished")
    put("train-20260101-1400", 3, argv=["train.py", "--lr", "0.2"])
    put("train-20260101-1500", 4, job="slurm 17")
    assert found("auto") == "train-20260101-1200.norms"
    alone.setattr(sys, "argv", ["train.py", "--lr", "0.3"])
    assert found("auto") is None


def test_auto_in_a_batch_system_is_of_the_same_job(alone):
    put("train-20260101-1200", 1, job="slurm 17", end="finished")
    put("train-20260101-1300", 2, job="slurm 18")
    put("train-20260101-1400", 3)
    alone.setenv("SLURM_JOB_ID", "17")
    assert found("auto") == "train-20260101-1200.norms"
    alone.setenv("SLURM_JOB_ID", "19")
    assert found("auto") is None


def test_a_path_is_taken_whoever_made_it(alone):
    path = put("mine", argv=["else.py"], end="finished")
    assert found("auto", "runs/mine") == found(True, path) == "mine.norms"
    assert found("auto", "runs/none") is None


@pytest.mark.parametrize(
    ("to", "sentence"),
    [
        (None, r"there is no recording of 'train' in 'runs' to resume; leave resume= out, or say resume='auto'"),
        ("runs/none", r"there is no recording 'runs/none\.norms' to resume; leave resume= out, or say resume='auto'"),
    ],
)
def test_there_must_be_one(alone, to, sentence):
    with pytest.raises(FileError, match=f"^{sentence}$"):
        find(True, to)


def test_one_that_this_process_writes_is_refused(alone):
    writer = Writer("runs/train-20260101-1200.norms", {"argv": sys.argv})
    with pytest.raises(StateError, match=r"^'runs/train.*' is still being written by this very process; close that"):
        find("auto", "runs/train-20260101-1200")
    assert found("auto") is None
    writer.close()
    assert found("auto") == "train-20260101-1200.norms"


WRITES = """
import sys, time
from normkit.recording.about import common_meta
from normkit.recording.search import this_process
from normkit.store.writer import Writer
writer = Writer(sys.argv[1], {**common_meta(), **this_process()})
writer.flush()
print("begun", flush=True)
time.sleep(60)
"""


def test_one_that_another_process_writes_is_refused(alone, tmp_path):
    path = tmp_path / "runs" / "train-20260101-1200.norms"
    process = start(WRITES, path)
    assert process.stdout.readline() == "begun\n"
    with pytest.raises(StateError, match=rf"is still being written by process {process.pid}; close that one first$"):
        find(True, path)
    process.kill()
    process.communicate()
    assert find(True, path) is not None


def test_a_number_that_now_is_another_process_is_no_writer(alone):
    path = put("mine", pid=os.getppid(), born=1, host=socket.gethostname())
    assert find(True, path) is not None


# where it stands


def squares(step, count=3):
    return dict(zip((one.name for one in params(count)), matrix(step, count, 6)[2].tolist(), strict=True))


@pytest.fixture
def before(tmp_path):
    return Past(Recording(write(tmp_path / "a.norms", range(0, 50, 5), meta={"counted_before": 100})))


@pytest.mark.parametrize(
    ("weights", "told", "counted", "expected"),
    [
        (squares(20), 7, 130, Start(7, "as step= says")),
        (squares(20), None, 130, Start(20, "whose weights are the present ones")),
        (squares(45), None, None, Start(45, "whose weights are the present ones")),
        (squares(21), None, 121, Start(21, "as the optimizer's state says")),
        (squares(21), None, 100, Start(45, LAST)),
        (squares(21), None, None, Start(45, LAST)),
        (
            {"elsewhere": 1.0},
            None,
            None,
            Start(45, LAST),
        ),
        (
            {"layer.1.weight": squares(30)["layer.1.weight"]},
            None,
            None,
            Start(30, "whose weights are the present ones"),
        ),
    ],
)
def test_the_step(before, weights, told, counted, expected):
    start = before.start(weights, told=told, counted=counted)
    assert start[:2] == expected[:2]
    assert (start.record is not None) == (expected.known == "whose weights are the present ones")


@pytest.mark.parametrize(("factor", "same"), [(1 + 1e-13, True), (1 - 1e-13, True), (1 + 1e-9, False), (np.nan, False)])
def test_equal_weights_are_equal_to_rounding(before, factor, same):
    weights = {name: value * factor for name, value in squares(20).items()}
    assert (before.start(weights, told=None, counted=None).step == 20) == same


def test_of_several_equal_records_the_newest(tmp_path):
    values = {"weight": matrix(1, 3, 6)}
    path = write(tmp_path / "a.norms", range(5), values=values)
    assert Past(Recording(path)).start(squares(1), told=None, counted=None).step == 4


def test_an_empty_recording_stands_at_0(tmp_path):
    one = Past(Recording(write(tmp_path / "a.norms", ())))
    assert one.start(squares(1), told=None, counted=None).step == 0
    assert one.before(10) == 0


@pytest.mark.parametrize(("step", "records"), [(0, 0), (1, 1), (5, 1), (6, 2), (99, 10)])
def test_how_many_records_stay(before, step, records):
    assert before.before(step) == records


def test_settling_is_noted(tmp_path):
    path = write(tmp_path / "a.norms", range(5), meta={"end": "interrupted", "started": "then"})
    one = Past(Recording(path))
    writer = Writer(path, {}, resume=True)
    recording = Recording(path)
    one.settle(writer, recording.reading(3), recording.tensors, told=None, counted=7)
    writer.close()
    recording = Recording(path)
    first, second = recording.meta["attempts"]
    assert first == {"began": 0, "started": "then", "counted": None, "end": "interrupted"}
    assert (second["began"], second["counted"]) == (3, 7)
    assert [(event.kind, event.step) for event in recording.events] == [("resumed", 3)]
