"""One callback over several `fit`s, whatever comes between them: one recording, and nothing of it lost."""

import gc
import weakref

import keras
import numpy as np
import pytest

import normkit
import normkit.keras as nk
from keras_tiny import Stop, Witness, assert_seen, fit, fresh, net, own, state_of


@pytest.fixture
def ours(tmp_path):
    return nk.record(tmp_path / "run.norms", every=4, quiet=True)


def test_before_and_after_training(ours):
    assert (ours.recorder, ours.path, ours.findings, ours.busy) == (None, None, [], False)
    ours.close()
    fit(fresh(), [ours])
    assert ours.recorder.closed
    assert not ours.busy
    assert ours.path.name == "run.norms"
    assert isinstance(ours.findings, list)
    ours.close()


def test_a_second_fit_goes_on(ours):
    model, witness = fresh(), Witness()
    for _ in range(2):
        fit(model, [witness, ours])
    run = normkit.load(ours.path)
    assert run.steps.tolist() == list(range(0, 33, 4))
    assert_seen(run, witness.seen)
    assert [attempt["began"] for attempt in run.meta["attempts"]] == [0, 16]
    assert run.epochs[-1] == 4


def test_a_fit_that_was_interrupted_goes_on(ours):
    model, witness = fresh(), Witness()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [witness, ours, Stop(6)])
    assert not ours.recorder.closed
    fit(model, [witness, ours])
    run = normkit.load(ours.path)
    assert {0, 4, 8, 12, 16, 20} <= {*run.steps.tolist()}
    assert_seen(run, witness.seen)
    assert run.steps[-1] == int(model.optimizer.iterations)
    assert [attempt.get("end") for attempt in run.meta["attempts"]] == ["interrupted", None]


def test_an_interrupted_fit_can_be_closed_by_hand(ours):
    model, witness = fresh(), Witness()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [witness, ours, Stop(6)])
    ours.close("interrupted")
    run = normkit.load(ours.path)
    assert run.steps.tolist() == [0, 4, 6]
    assert_seen(run, witness.seen)


def test_gradients_of_an_interrupted_fit_are_kept(tmp_path):
    ours = nk.record(tmp_path / "run.norms", every=1, what=("weight", "grad"), quiet=True)
    model = fresh()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [ours, Stop(6)])
    fit(model, [ours], epochs=1)
    run = normkit.load(ours.path)
    assert run.steps.tolist() == list(range(15))
    assert np.isfinite(run.series("dense.kernel", quantity="grad")[1:]).all()


def test_weights_that_were_put_back_before_the_next_fit(ours):
    """Nothing is recorded at the step of the interruption that was not there then."""
    model, witness = fresh(), Witness()
    first = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [witness, ours, Stop(6)])
    model.set_weights(first)
    fit(model, [ours], epochs=1)
    run = normkit.load(ours.path)
    assert run.meta["attempts"][1]["began"] == 0
    np.testing.assert_allclose(run.reading(0).values["weight"][2, 0], np.square(first[0].astype("float64")).sum())


def another(units=5):
    keras.utils.set_random_seed(1)
    model = net(units=units)
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("units", [5, 4])
def test_another_model_gets_a_file_of_its_own(tmp_path, capsys, units):
    ours = nk.record(tmp_path / "run.norms", every=4, csv=tmp_path / "run.csv")
    for model in (fresh(), another(units)):
        fit(model, [ours], epochs=1)
    assert ours.path.name == "run-2.norms"
    assert "run.norms exists and is kept" in capsys.readouterr().err
    assert (tmp_path / "run-2.csv").exists()
    assert [normkit.load(tmp_path / name).steps.tolist() for name in ("run.norms", "run-2.norms")] == [[0, 4, 8]] * 2


def test_a_model_with_the_same_weights_goes_on(ours):
    model, same = fresh(), another()
    fit(model, [ours])
    same.set_weights(model.get_weights())  # as after `load_model`
    fit(same, [ours], epochs=1)
    run = normkit.load(ours.path)
    assert run.steps.tolist() == [0, 4, 8, 12, 16, 20, 24]
    assert run.series("dense.kernel")[-1] == nk.norms(same)["dense.kernel"]


def test_what_is_frozen_in_between_goes_on_being_recorded(ours):
    model = own()
    fit(model, [ours], epochs=1)
    model.layers[0].trainable = False
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, [ours], epochs=1)
    series = normkit.load(ours.path).series("dense.kernel")
    assert len(series) == 5
    assert len(set(series[2:])) == 1


class Restorer(keras.callbacks.Callback):
    """Puts back weights and optimizer as `BackupAndRestore` does: in its own `on_train_begin`, behind ours."""

    def __init__(self, model):
        super().__init__()
        self.values = [np.array(keras.ops.convert_to_numpy(each.value)) for each in state_of(model)]

    def on_train_begin(self, logs=None):
        for variable, value in zip(state_of(self.model), self.values, strict=True):
            variable.assign(value)


@pytest.mark.parametrize("what", [("weight",), ("weight", "grad")], ids=len)
def test_weights_restored_when_training_begins(tmp_path, what):
    model, witness = fresh(), Witness()
    fit(model, epochs=1)
    restorer = Restorer(model)
    ours = nk.record(tmp_path / "run.norms", every=1, what=what, quiet=True)
    fit(fresh(), [ours, restorer, witness], epochs=1)
    run = normkit.load(ours.path)
    assert run.steps.tolist() == list(range(8, 17))
    assert_seen(run, witness.seen)


def test_another_callback_goes_on_with_resume(ours, tmp_path):
    model = fresh()
    fit(model, [ours], epochs=1)
    fit(model, [nk.record(ours.path, resume=True, quiet=True)], epochs=3, initial_epoch=1)
    run = normkit.load(ours.path)
    assert run.steps.tolist() == [0, 4, 8, 16, 24]
    assert run.epochs[-2:].tolist() == [2, 3]


def test_a_trained_model_begins_at_its_step(tmp_path):
    model = fresh()
    fit(model, epochs=1)
    fit(model, [nk.record(tmp_path / "run.norms", quiet=True)], epochs=1)
    assert normkit.load(tmp_path / "run.norms").steps.tolist() == [8, 16]


LEAVES = {
    "restore_best_weights": (
        None,
        [keras.callbacks.EarlyStopping("loss", mode="max", patience=1, restore_best_weights=True)],
    ),
    "use_ema": (keras.optimizers.SGD(0.1, use_ema=True), []),
}


@pytest.mark.parametrize("case", LEAVES)
@pytest.mark.parametrize("what", [("weight",), ("weight", "grad")], ids=len)
def test_weights_changed_after_the_last_step_leave_its_record_alone(tmp_path, case, what):
    optimizer, callbacks = LEAVES[case]
    model = fresh() if optimizer is None else own(None, optimizer.from_config(optimizer.get_config()))
    witness = Witness()
    ours = nk.record(tmp_path / "run.norms", what=what, quiet=True)
    fit(model, [witness, *callbacks, ours], epochs=3)
    run = normkit.load(ours.path)
    assert_seen(run, witness.seen)
    assert run.meta["left"] == pytest.approx(nk.norms(model), rel=1e-12)
    (event,) = run.events
    assert (event.kind, event.step) == ("left", run.steps[-1])
    assert event.text.startswith(f"weights were changed after step {run.steps[-1]} without a step")


def test_nothing_is_said_of_weights_that_nobody_changed(tmp_path):
    ours = nk.record(tmp_path / "run.norms", what=("weight", "grad"), quiet=True)
    fit(fresh(), [ours], epochs=1)
    assert normkit.load(ours.path).events == []


def test_a_fit_without_epochs_records_the_weights(ours):
    fit(fresh(), [ours], epochs=0)
    assert normkit.load(ours.path).steps.tolist() == [0]


def test_a_model_may_go_and_an_unfinished_file_is_finished(tmp_path):
    def main():
        keras.utils.set_random_seed(1)
        model, ours = net(), nk.record(tmp_path / "run.norms", quiet=True)
        model.compile("sgd", "mse", run_eagerly=True)
        fit(model, [ours], epochs=1)
        return weakref.ref(model), ours

    model, ours = main()
    ours.set_model(None)
    gc.collect()
    assert model() is None or not any(isinstance(each, nk.KerasRecorder) for each in gc.get_referrers(model()))
    assert normkit.load(ours.path).meta["end"] == "finished"
