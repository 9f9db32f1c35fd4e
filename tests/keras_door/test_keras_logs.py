"""What stands in `logs` at the end of an epoch: of its last step, under the same names each time."""

import keras
import numpy as np
import pytest

import normkit
import normkit.keras as nk
from keras_tiny import fit, fresh
from normkit.types import Every

ALL = ("weight", "grad", "update")
OF_WEIGHTS, OF_ALL = ["weight_l2", "weight_linf"], ["weight_l2", "weight_linf", "grad_l2", "update_l2", "update_ratio"]


class Truth(keras.callbacks.Callback):
    """The length of all trainable weights at each epoch's end."""

    def __init__(self):
        super().__init__()
        self.lengths = []

    def on_epoch_end(self, epoch, logs=None):
        weights = [keras.ops.convert_to_numpy(each.value) for each in self.model.trainable_weights]
        self.lengths.append(np.sqrt(sum(np.square(each, dtype="float64").sum() for each in weights)))


@pytest.mark.parametrize(("what", "names"), [(("weight",), OF_WEIGHTS), (ALL, OF_ALL)], ids=["weights", "all"])
@pytest.mark.parametrize("every", [10, Every(epochs=2)], ids=str)
def test_each_epoch_has_its_own_numbers_under_the_same_names(tmp_path, every, what, names):
    truth = Truth()
    history = fit(fresh(), [truth, nk.record(tmp_path / "run.norms", every=every, what=what, quiet=True)], epochs=3)
    assert [*history.history] == ["loss", *names]
    assert {len(series) for series in history.history.values()} == {3}
    np.testing.assert_allclose(history.history["weight_l2"], truth.lengths, rtol=1e-12)
    if what == ALL:  # of the last step, or nothing
        known = [isinstance(every, Every) and epoch == 1 for epoch in range(3)]
        assert np.isfinite(history.history["grad_l2"]).tolist() == known


def test_the_names_stay_when_recording_stops(tmp_path, monkeypatch):
    ours = nk.record(tmp_path / "run.norms", quiet=True)

    class Breaker(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                ours.recorder._break(OSError("no space left"))

    with pytest.warns(RuntimeWarning, match="no space left"):
        history = fit(fresh(), [Breaker(), ours], epochs=3)
    assert np.isfinite(history.history["weight_l2"]).tolist() == [True, False, False]


def test_units_and_gradients_by_two_callbacks(tmp_path):
    units = nk.record(tmp_path / "units.norms", every=4, per="out", quiet=True)
    steps = nk.record(tmp_path / "steps.norms", every=4, what=ALL, quiet=True)
    fit(fresh(), [units, steps], epochs=1)
    run = normkit.load(units.path)
    assert np.isfinite(run.rows("dense.kernel")).all()
    np.testing.assert_allclose(run.matrix(), normkit.load(steps.path).matrix(), rtol=1e-12)
    assert np.isfinite(normkit.load(steps.path).series("dense.kernel", quantity="grad")[1:]).all()
