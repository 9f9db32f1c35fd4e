"""What users type by mistake: refused in a sentence, before a step is made."""

import keras
import pytest

import normkit.keras as nk
from keras_tiny import fit, fresh, net, own
from normkit.errors import ArgumentError, FileError
from normkit.types import Every

AT_ONCE = [
    (lambda: nk.record(fresh()), r"^to=Sequential: record\(\) takes no model; give the callback to fit: model.fit"),
    (lambda: nk.record(keras.optimizers.SGD()), r"^to=SGD: record\(\) takes no model"),
    (lambda: nk.record(every="epoch"), r"^every='epoch': expected a number of optimizer steps"),
    (lambda: nk.record(every=0), r"^every=0: expected"),
    (lambda: nk.record(every=Every(10, epochs=1)), r"^Every\(steps=10, epochs=1\): expected one of the two"),
    (lambda: nk.record(what="weights"), r"^what='weights': expected some of weight, grad, update$"),
    (lambda: nk.record(per="filter"), r"^per='filter': expected 'tensor', 'out', 'in'"),
    (lambda: nk.record(overhead=2), r"^overhead=2: expected a share"),
    (lambda: nk.record(budget="much"), r"^budget='much': expected a size"),
    (lambda: nk.record(5), "^to=5: expected the path of a file"),
    (lambda: nk.record(select=3), "^select=3 is of type int; expected a role"),
    (lambda: nk.record(resume="yes"), "^resume='yes': expected True, False or 'auto'$"),
    (lambda: nk.record(what=()), r"^what=\(\) is empty: expected some of weight, grad, update$"),
    (lambda: nk.record(per="out", what="grad"), "^per='out' with gradients or updates: .* give fit two callbacks"),
    (lambda: nk.record(per={"head": "out"}, what=["update"]), "^per={'head': 'out'} with gradients"),
    (lambda: nk.record(step=3), r"^step=3 says where a resumed run stands; it needs resume=True or 'auto'$"),
]


@pytest.mark.parametrize(("mistake", "sentence"), AT_ONCE)
def test_refused_at_once(mistake, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        mistake()


def test_refused_before_the_first_step(tmp_path):
    model = fresh()
    for asked, kind, sentence in (
        ({"select": "denze"}, ArgumentError, "denze"),
        ({"to": tmp_path / "no" / "such.txt" / "x.norms", "resume": True}, FileError, "there is no recording"),
    ):
        with pytest.raises(kind, match=sentence):
            fit(model, [nk.record(**{"to": tmp_path / "run.norms", "quiet": True} | asked)])
    assert int(model.optimizer.iterations) == 0
    assert not list(tmp_path.iterdir())


def test_a_failure_ends_the_recording_and_not_the_training(tmp_path, monkeypatch):
    model, ours = fresh(), nk.record(tmp_path / "run.norms", every=1, quiet=True)
    monkeypatch.setattr(nk.KerasRecorder, "_present", lambda self: 1 / 0)
    with pytest.warns(RuntimeWarning, match="normkit stopped recording at step 0 .ZeroDivisionError"):
        fit(model, [ours], epochs=1)
    assert int(model.optimizer.iterations) == 8
    assert ours.recorder.broken == "ZeroDivisionError: division by zero"


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")  # what this is about
def test_a_frozen_model_is_told_what_to_do(tmp_path, capsys):
    model = net()
    model.trainable = False
    fit(own(model), [nk.record(tmp_path / "run.norms")], epochs=1)
    assert "nothing of this model is trainable; select='all' records all of it" in capsys.readouterr().err
