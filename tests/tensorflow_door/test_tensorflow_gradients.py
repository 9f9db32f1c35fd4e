"""Gradients and the variables that they belong to, in lists, dicts and pairs."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import normkit.tensorflow as nk
from normkit import ArgumentError, load


def ones(*shape):
    return tf.Variable(tf.ones(shape))


class Dense(tf.Module):
    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.w, self.b = ones(fan_in, fan_out), ones(fan_out)


class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.layers = [Dense(4, 8), Dense(8, 2)]
        self.table = ones(10, 4)


@pytest.mark.parametrize(
    ("grads", "sentence"),
    [
        (
            [None],
            r"step\(grads=\[\.\.\. 1 \.\.\.\]\): expected 5 gradients, one for each trainable variable; give a dict",
        ),
        ({"layers.0.W": tf.zeros((4, 8))}, r"no variable has this name; is 'layers\.0\.w' meant\?"),
        ({"layers.0.w": tf.zeros((8, 4))}, r"step\(grads=\.\.\.\): shape \(8, 4\) for layers\.0\.w of shape \(4, 8\)"),
        ({"layers.0.w": 3.0}, r"step\(grads=\.\.\.\): float for layers\.0\.w; expected a tensor or None"),
        (
            {"A": tf.zeros(3), "B": tf.zeros(3), "C": None, "D": None},
            r"step\(grads=\.\.\.\): none of the names 'A', 'B', 'C', \.\.\. \(4 in all\) is that of a variable; those ",
        ),
        ([{"w": tf.zeros(3)}], r"step\(grads=\.\.\.\): none of the names '0\.w' is that of a variable"),
        (
            {"table": tf.IndexedSlices(tf.ones((1, 5)), [0])},
            r"IndexedSlices with values of shape \(1, 5\) at \(1,\) rows, for table of shape \(10, 4\)$",
        ),
        (
            {"table": tf.IndexedSlices(tf.ones((2, 4)), [0])},
            r"IndexedSlices with values of shape \(2, 4\) at \(1,\) rows, for table of shape \(10, 4\)$",
        ),
        (
            {"table": tf.IndexedSlices(tf.ones((1, 4)), [10])},
            r"IndexedSlices with row 10, for table of shape \(10, 4\)$",
        ),
        (tf.zeros(3), r"step\(grads='EagerTensor'\): expected the list that tape\.gradient gives, or a dict"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(tmp_path, grads, sentence):
    with nk.record(Net(), to=tmp_path / "a.norms", quiet=True) as rec, pytest.raises(ArgumentError, match=sentence):
        rec.step(grads=grads)


def test_pairs_and_single_gradients_find_their_variables(tmp_path):
    a, b = tf.Variable([1.0], name="a"), tf.Variable([1.0], name="b")
    with nk.record([a, b], to=tmp_path / "a.norms", every=1, quiet=True) as rec:
        rec.step([(tf.constant([2.0]), b), (tf.constant([3.0]), a)])
    assert load(tmp_path / "a.norms").series("a", "l2", quantity="grad")[1] == 3.0
    with nk.record(b, to=tmp_path / "b.norms", every=1, quiet=True) as rec:
        rec.step(tf.constant([4.0]))
    assert load(tmp_path / "b.norms").series("b", "l2", quantity="grad")[1] == 4.0


@pytest.mark.parametrize("within", ["list", "dict"])
def test_gradients_in_dicts_find_their_variables_by_name(tmp_path, within):
    """`tape.gradient` gives them in the dicts of the sources; `tf.nest` would sort these."""
    layer = {"w": ones(3, 3), "a": ones(3, 3)}
    model = [layer] if within == "list" else {"layers": [layer]}
    with nk.record(model, to=tmp_path / "a.norms", every=1, quiet=True) as rec:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(10 * layer["w"]) + tf.reduce_sum(layer["a"])
        rec.step(tape.gradient(loss, model))
    recording = load(tmp_path / "a.norms")
    found = {name[-1]: recording.series(name, "linf", quantity="grad")[1] for name in recording.tensors}
    assert found == {"w": 10.0, "a": 1.0}


def test_a_flat_list_for_dicts_is_refused_where_it_may_mean_two_things(tmp_path):
    layer = {"w": ones(3, 3), "a": ones(3, 3)}
    with nk.record([layer], to=tmp_path / "a.norms", quiet=True) as rec:
        with pytest.raises(
            ArgumentError,
            match=r"2 \.\.\.\]\): is number 0 the gradient of '0\.w', or of '0\.a' as tf\.nest sorts dicts\?",
        ):
            rec.step([tf.ones((3, 3)), tf.ones((3, 3))])
        rec.step([(tf.ones((3, 3)), layer["a"])])
    with nk.record([{"a": ones(2), "w": ones(2)}], to=tmp_path / "b.norms", every=1, quiet=True) as rec:
        rec.step([tf.fill((2,), 3.0), None])
    assert load(tmp_path / "b.norms").series("0.a", "linf", quantity="grad")[1] == 3.0


def test_a_variable_that_is_not_trainable_takes_no_gradient(tmp_path):
    model = [tf.Variable([1.0], name="a"), tf.Variable([1.0], name="b", trainable=False), tf.Variable([1.0], name="c")]
    with nk.record(model, to=tmp_path / "a.norms", every=1, quiet=True) as rec:
        with pytest.raises(ArgumentError, match=r"1 \.\.\.\]\): expected 2 gradients, one for each trainable variable"):
            rec.step([tf.ones(1)])
        rec.step([tf.constant([2.0]), tf.constant([3.0])])
    assert load(tmp_path / "a.norms").series("c", "linf", quantity="grad")[1] == 3.0


def test_names_of_variables_that_are_not_recorded_are_no_mistake(tmp_path):
    with nk.record(Net(), to=tmp_path / "a.norms", every=1, select="table", quiet=True) as rec:
        rec.step({"layers.0.w": tf.ones((4, 8))})
    assert rec.steps == 1


@pytest.mark.parametrize("dense_shape", [None, [5, 2]])
def test_slices_count_the_rows_that_they_leave_out(tmp_path, dense_shape):
    table = tf.Variable(tf.ones((5, 2)), name="emb")
    slices = tf.IndexedSlices(tf.constant([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]), tf.constant([1, 1, 3]), dense_shape)
    with nk.record({"emb": table}, to=tmp_path / "a.norms", every=1, per={"emb": "out"}, quiet=True) as rec:
        rec.step({"emb": slices})
    recording = load(tmp_path / "a.norms")
    assert recording.series("emb", "zeros", quantity="grad")[1] == 6
    rows = recording.rows("emb", quantity="grad")[1]
    np.testing.assert_allclose(rows, [0, np.sqrt(18), 0, np.sqrt(32), 0], rtol=1e-12)
