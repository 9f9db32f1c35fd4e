"""Curves in W&B: the real library, offline, and what it wrote into its own file."""

import json
import struct
import time
from pathlib import Path
from types import ModuleType

import pytest

from normkit.errors import ArgumentError, StateError
from normkit.sinks import wandb as room
from normkit.sinks.wandb import Curves, check
from slice_made import made, params

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # protobuf's, pydantic's and wandb's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # wandb's service
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def begin(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return lambda: wandb.init(project="tests", dir=tmp_path, reinit="finish_previous")


def history(run):
    """The rows and the step metrics in the file of a run that was finished, once its service has written all of it."""
    path = Path(run.settings.sync_file)
    run.finish()
    deadline = time.monotonic() + 20
    while not any(record.HasField("exit") for record in records(path)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = list(records(path))
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    metrics = [record.metric for record in found if record.HasField("metric")]
    return rows, {metric.glob_name or metric.name: metric.step_metric for metric in metrics}


def records(path):
    """A log of blocks, as LevelDB writes them."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        _, size, kind = struct.unpack_from("<IHB", data, at)
        if left < 7 or kind == 0:
            at += left
            continue
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record, whole = Record.FromString(whole), b""
            yield record


def parts(steps):
    return [made(s, params(), scalars={"loss": s / 2} if s else {}, figures={"weight_l2": 10.0 + s}) for s in steps]


def own(rows, name="weight_l2"):
    return [(row["normkit/step"], row.get(f"normkit/{name}")) for row in rows if "normkit/step" in row]


def test_rows_in_the_real_library(begin):
    """Three runs: of a script that logs nothing; of one that gives its own `step=`; of the recorder alone."""
    run = begin()
    sink = Curves(run)
    for part in parts(range(4)):
        sink.put(part)
        sink.flush()
    sink.close()
    rows, axes = history(run)
    assert own(rows) == [(step, 10.0 + step) for step in range(4)]
    assert own(rows, "loss")[1:] == [(step, step / 2) for step in range(1, 4)]
    assert axes == {"normkit/*": "normkit/step"}

    run = begin()
    sink = Curves(run)
    for epoch in range(3):
        for part in parts(range(10 * epoch, 10 * epoch + 10)):
            sink.put(part)
        run.log({"mine": epoch}, step=epoch)
        sink.flush()
    sink.close()
    rows, _ = history(run)
    assert [row["mine"] for row in rows if "mine" in row] == [0, 1, 2]  # not one of the script's own rows is lost
    assert own(rows)[-1] == (29, 39.0)
    assert len(own(rows)) >= 2

    run = begin()
    sink = Curves(run, alone=True)
    for part in parts(range(3)):
        sink.put(part)
    sink.close()
    rows, _ = history(run)
    assert own(rows) == [(step, 10.0 + step) for step in range(3)]


class Run:
    """What a run is as far as `Curves` knows."""

    step = 0

    def __init__(self):
        self.logged = []

    def define_metric(self, name, step_metric=None):
        pass

    def log(self, values, commit=None):
        self.logged.append(values)


def test_there_are_at_most_twenty_curves():
    run = Run()
    scalars = {f"loss{n}": 1.0 for n in range(50)}
    Curves(run).put(made(1, params(), scalars=scalars, figures={"zeros": 0.5}))
    assert len(run.logged[0]) == 1 + 20
    assert "normkit/zeros" in run.logged[0]


def test_a_run_that_is_finished_first_is_said(monkeypatch):
    def finished(*_, **__):
        raise RuntimeError("Run (abc) is finished. The call to `log` will be ignored.")

    run = Run()
    sink = Curves(run)
    monkeypatch.setattr(run, "log", finished)
    with pytest.raises(
        StateError, match=r"^the run was finished before the recorder, at step 7; close that one first$"
    ):
        sink.put(made(7, params()))


def test_the_library_means_its_active_run(monkeypatch):
    """As in `wandb=wandb`; the library has the methods of a run, and not its attributes."""
    library = ModuleType("wandb")
    library.log = library.define_metric = print
    monkeypatch.setattr(room, "wandb", lambda: library)
    library.run = Run()
    check(library)
    assert room.run_of(library) is room.run_of(True) is library.run
    library.run = None
    with pytest.raises(
        StateError, match=r"^wandb=wandb means the active run, and there is none; call wandb.init\(\) f"
    ):
        room.run_of(library)


@pytest.mark.parametrize("given", [None, True, False, Run()])
def test_what_a_run_can_be(given):
    check(given)


@pytest.mark.parametrize("given", ["project", Run, 7])
def test_what_a_run_cannot_be(given):
    with pytest.raises(ArgumentError, match=r"^wandb=.*: expected True \(the active run\) or a run"):
        check(given)
