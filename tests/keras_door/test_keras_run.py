"""`normkit run`: a script that knows nothing of normkit, with a fit in any form."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import normkit
import normkit.keras as nk
from keras_tiny import Stop, data, fit, fresh, net
from normkit.keras.run import arm
from normkit.recording.options import Options


@pytest.fixture
def session(tmp_path):
    plain = keras.Model.fit
    armed = arm(Options(to=str(tmp_path / "script.norms"), every=4, quiet=True))
    yield armed
    armed.close()
    assert keras.Model.fit is plain


def early():
    return keras.callbacks.EarlyStopping("loss", patience=9)


FORMS = {
    "none": lambda model: None,
    "alone": lambda model: early(),
    "list": lambda model: [early()],
    "tuple": lambda model: (early(),),
    "dict": lambda model: {"stop": early()},
    "CallbackList": lambda model: keras.callbacks.CallbackList([early()], add_history=True, model=model, epochs=1),
}


@pytest.mark.parametrize("form", FORMS)
def test_callbacks_in_any_form(session, form):
    model = fresh()
    callbacks = FORMS[form](model)
    history = fit(model, callbacks, epochs=1)
    assert "weight_l2" not in history.history  # what the script prints stays as it is
    if form == "CallbackList":
        assert len(callbacks.callbacks) == 2
    run = normkit.load(session.close())
    assert run.steps.tolist() == [0, 4, 8]


def test_positional_arguments_and_their_mistakes(session):
    model = fresh()
    model.fit(*data(), 8, 1, 0, [early()])
    with pytest.raises(TypeError, match="unexpected keyword"):
        model.fit(*data(), epoch=1)
    assert normkit.load(session.close()).steps.tolist() == [0, 4, 8]


def test_later_fits_of_a_model_go_on(session):
    model = fresh()
    for _ in range(3):
        fit(model, epochs=1)
    assert len(session.paths) == 1
    run = normkit.load(session.close())
    assert run.steps.tolist() == [0, 4, 8, 12, 16, 20, 24]
    assert run.epochs[-1] == 3
    assert run.meta.get("attempts") is None


def test_a_recompiled_and_an_unfrozen_model_goes_on(session):
    keras.utils.set_random_seed(1)
    model = net()
    model.layers[0].trainable = False
    for _ in range(2):
        model.compile("sgd", "mse", run_eagerly=True)
        fit(model, epochs=1)
        model.layers[0].trainable = True
    run = normkit.load(session.close())
    assert run.steps.tolist() == [0, 4, 8, 12, 16]
    assert np.isnan(run.series("dense.kernel")).tolist() == [True, True, True, False, False]


def test_each_model_has_a_recording(session):
    for _ in range(2):
        model = net()
        model.compile("sgd", "mse", run_eagerly=True)
        fit(model, epochs=1)
    session.close()
    assert [normkit.load(path).steps.tolist() for path in session.paths] == [[0, 4, 8]] * 2


def test_an_interrupted_fit(session):
    model = fresh()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [Stop(6)])
    run = normkit.load(session.close("interrupted"))
    assert run.steps.tolist() == [0, 4, 6]
    assert run.meta["end"] == "interrupted"


def test_a_script_that_records_itself(session, tmp_path):
    fit(fresh(), [nk.record(tmp_path / "own.norms", quiet=True)], epochs=1)
    assert session.refused == "the script records itself"
    assert session.close() is None
    assert normkit.load(tmp_path / "own.norms").steps.tolist() == [0, 8]


def test_a_recorder_that_cannot_begin_does_not_break_training(session, monkeypatch):
    monkeypatch.setattr(nk.KerasRecorder, "start", lambda *_: 1 / 0)
    model = fresh()
    with pytest.warns(RuntimeWarning, match="normkit does not record this fit"):
        fit(model)
    assert int(model.optimizer.iterations) == 16
    assert session.refused == "division by zero"


SCRIPT = """
import keras, numpy as np
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
model.compile(keras.optimizers.SGD(), "mse")
model.fit(np.ones((16, 3)), np.ones((16, 2)), batch_size=4, verbose=0)
"""


def test_an_unchanged_script(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "normkit", "run", "--every", "1", "--to", "out.norms", "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "recorded 4 of 4 steps x 2 tensors in out.norms" in done.stderr
    assert normkit.load(tmp_path / "out.norms").steps.tolist() == [0, 1, 2, 3, 4]
