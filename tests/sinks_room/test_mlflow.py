"""Curves in MLflow: the real library, with its files in a folder."""

import math

import pytest

from normkit.errors import ArgumentError, StateError
from normkit.sinks import mlflow as room
from normkit.sinks.mlflow import Curves, begun, check, run_of
from slice_made import made, params

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # protobuf's and mlflow's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # mlflow's, of its own store of files
]


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The library with a store of files: another one needs more than mlflow-skinny brings."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    yield mlflow
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


def points(library, run, name):
    return [(point.step, point.value) for point in library.MlflowClient().get_metric_history(run, f"normkit/{name}")]


def parts(steps):
    return [made(s, params(), scalars={"loss (all)": s / 2}, figures={"weight_l2": 10.0 + s}) for s in steps]


def test_every_step_reads_back(library):
    with library.start_run():
        run = run_of(True)
        sink = Curves(run)
        for part in parts(range(300)):
            sink.put(part)
        sink.close()
    assert points(library, run, "weight_l2") == [(step, 10.0 + step) for step in range(300)]
    assert points(library, run, "loss _all_") == [(step, step / 2) for step in range(300)]


def test_the_run_stays_the_one_that_was_active(library, tmp_path):
    """The script may end its run, begin another and look elsewhere: threads and later runs get nothing of it."""
    with library.start_run():
        run = run_of(True)
        sink = Curves(run)
    library.set_tracking_uri((tmp_path / "other").as_uri())
    with library.start_run():
        for part in parts([1]):
            sink.put(part)
        sink.flush()
    library.set_tracking_uri((tmp_path / "runs").as_uri())
    assert points(library, run, "weight_l2") == [(1, 11.0)]


def test_what_is_not_finite_is_stored(library):
    with library.start_run():
        run = run_of(True)
        sink = Curves(run)
        sink.put(made(1, params(), figures={"weight_l2": math.nan, "grad_l2": math.inf}))
        sink.close()
    assert math.isnan(points(library, run, "weight_l2")[0][1])
    assert points(library, run, "grad_l2") == [(1, math.inf)]


def test_a_run_may_be_given_as_such_or_by_its_id(library):
    with library.start_run() as run:
        assert run_of(True) == run_of(run) == run_of(run.info.run_id) == run.info.run_id
    with pytest.raises(
        StateError, match=r"^mlflow=True means the active run, and there is none; call mlflow.start_run"
    ):
        run_of(True)


NAMES = ["a&b", "a+b", "a b", 300 * "x", 300 * "x" + "y", 200 * "é", "/loss/", "a//b", "up/../b", "mine."]


def test_every_name_is_taken_and_kept_apart(library):
    """MLflow takes a batch as a whole: one name that it refuses costs all the others."""
    with library.start_run() as begun:
        sink = Curves(run_of(True))
        for step in (1, 2):
            scalars = {name: float(place) for place, name in enumerate(NAMES)}
            sink.put(made(step, params(), scalars=scalars, figures={"weight_l2": 1.0}))
        sink.close()
    found = library.MlflowClient().get_run(begun.info.run_id).data.metrics
    assert sorted(found.values()) == sorted([1.0, *map(float, range(len(NAMES)))])
    assert found["normkit/a_b"] == 0.0
    assert found["normkit/a_b-2"] == 1.0
    assert found["normkit/a b"] == 2.0
    assert points(library, begun.info.run_id, "a_b-2") == [(1, 1.0), (2, 1.0)]


def test_an_unknown_id_is_said(library):
    with pytest.raises(ArgumentError, match=r"^mlflow='nosuchrun' is the id of no run that can be reached \(.+\)$"):
        run_of("nosuchrun")


def test_a_new_run_ends_with_its_block(library):
    with begun("norms", "mine") as run:
        pass
    found = library.MlflowClient().get_run(run)
    assert (found.info.run_name, found.info.status) == ("mine", "FINISHED")
    assert library.MlflowClient().get_experiment(found.info.experiment_id).name == "norms"


def test_many_values_are_few_requests(monkeypatch):
    class Client:
        def __init__(self, uri):
            self.sizes = []

        def log_batch(self, run, metrics):
            self.sizes.append(len(metrics))

    class Library:
        MlflowClient = Client
        get_tracking_uri = staticmethod(lambda: "")

        class entities:  # noqa: N801
            Metric = staticmethod(lambda *values: values)

    monkeypatch.setattr(room, "mlflow", Library)
    sink = Curves("run")
    for part in parts(range(1200)):
        sink.put(part)
    sink.close()
    assert sum(sink._client.sizes) == 2400
    assert max(sink._client.sizes) <= 1000
    assert len(sink._client.sizes) <= 5


@pytest.mark.parametrize("given", ["", "  ", 7, object()])
def test_what_a_run_cannot_be(given):
    with pytest.raises(ArgumentError, match=r"^mlflow=.*: expected True \(the active run\) or the id of a run$"):
        check(given)
