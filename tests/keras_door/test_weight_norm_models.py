"""Whole models with normalized weights: made anew, saved, cloned, trained, recorded, and made plain again."""

import itertools

import keras
import numpy as np
import pytest

import normal
import normkit
import normkit.keras as nk
from keras_normal import array, flat, inputs, small
from keras_tiny import BACKEND, only_on
from normkit.errors import ArgumentError, ModelError
from normkit.keras.effective import all_effective
from normkit.keras.walk import walk
from reference import sums

layers = keras.layers
X = inputs(8, 4, 3)


def deep():
    """Nested, with a model used twice, a sum, a recurrent layer and one of each that must keep working."""
    keras.utils.set_random_seed(3)
    start = keras.Input((4, 3))
    block = keras.Sequential(
        [keras.Input((4, 3)), layers.Dense(3, activation="relu"), layers.BatchNormalization()], name="block"
    )
    found = layers.Dropout(0.2)(block(block(start)) + start)  # an operation that is no layer
    return keras.Model(start, layers.Dense(3, name="head")(layers.SimpleRNN(3)(found)))


@only_on("tensorflow", "torch")  # op by op, JAX takes seconds for each layer
def test_the_new_model_is_the_same_function_under_the_same_names():
    model = deep()
    model.compile("sgd", "mse")
    before = array(model(X))
    weights = [array(each) for each in model.weights]
    new = nk.weight_norm(model)
    np.testing.assert_array_equal(array(new(X)), before)
    assert not new.compiled
    assert model.compiled
    assert all((one == array(other)).all() for one, other in zip(weights, model.weights, strict=True))
    assert type(new) is type(model)
    assert [each.name for each in new.layers[1:]] == [each.name for each in model.layers[1:]]  # Keras renames an input
    plain, wrapped = nk.norms(model), nk.norms(new)
    assert {name: wrapped[name] for name in plain} == plain
    kernels = [name for name in plain if name.endswith("kernel")]
    assert set(wrapped) - set(plain) == {f"{name}.{part}" for name in kernels for part in "gv"}
    assert [n for n in wrapped if n.startswith("head")] == [
        "head.kernel",
        "head.kernel.g",
        "head.kernel.v",
        "head.bias",
    ]
    parts = {item.param.name: item.param.part for item in walk(new)}
    assert (parts["head.kernel"], parts["head.kernel.g"], parts["head.kernel.v"]) == ("effective", "g", "v")
    assert "head.kernel.v" in str(nk.explain(new))
    assert new.count_params() == model.count_params() + sum(int(np.prod(each.g.shape)) for each in all_effective(new))

    back = nk.remove_weight_norm(new)
    assert list(nk.norms(back)) == list(plain)
    np.testing.assert_array_equal(array(back(X)), before)
    with pytest.raises(ModelError, match="has no normalized weight: no layer in it is a WeightNorm"):
        nk.remove_weight_norm(back)


@only_on("tensorflow", "torch")
def test_some_weights_and_what_is_frozen():
    model = deep()
    model.get_layer("head").trainable = False
    new = nk.weight_norm(model, "*recurrent_kernel", per="tensor", p=1)
    assert [item.param.name for item in walk(new) if item.param.part == "g"] == [
        "simple_rnn.simple_rnn_cell.recurrent_kernel.g"
    ]
    assert all_effective(new)[0].g.shape == (1, 1)
    np.testing.assert_array_equal(array(new(X)), array(model(X)))
    assert [v.name for v in new.trainable_variables] == [
        *[v.name for v in model.trainable_variables][:-2],
        "recurrent_kernel_g",
        "recurrent_kernel_v",
        "bias",
    ]
    rest = nk.weight_norm(new, "block.*")
    np.testing.assert_array_equal(array(rest(X)), array(model(X)))


@only_on("tensorflow", "torch")
def test_a_wrapper_deep_in_a_layer_is_removed_too():
    model = keras.Sequential(
        [keras.Input((4, 3)), layers.TimeDistributed(nk.WeightNorm(layers.Dense(2, name="inner")))]
    )
    plain = nk.remove_weight_norm(model)
    np.testing.assert_array_equal(array(plain(X)), array(model(X)))
    assert list(nk.norms(plain)) == ["time_distributed.inner.kernel", "time_distributed.inner.bias"]


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = nk.WeightNorm(layers.Dense(3))
        self.last = layers.Dense(3)

    def call(self, x):
        return self.last(self.first(x))


def in_columns():
    return keras.Sequential([keras.Input((5,)), nk.WeightNorm(layers.Dense(3, name="dense"), per="in")])


REFUSED = [
    (lambda: nk.weight_norm("model"), ArgumentError, "model='model': expected a keras.Model"),
    (lambda: nk.weight_norm(Own()), ModelError, "Own is a model of its own class, .* self.head = nk.WeightNorm"),
    (lambda: nk.weight_norm(layers.Dense(2)), ModelError, "Dense is a layer of its own class"),
    (lambda: nk.remove_weight_norm(Own()), ModelError, r"use what fold\(\) of its WeightNorm layers gives"),
    (lambda: nk.weight_norm(keras.Sequential([layers.Dense(2)])), ModelError, "Sequential has no weights yet"),
    (lambda: nk.weight_norm(nk.weight_norm(small())), ModelError, "dense.kernel of shape .* is already normalized"),
    (lambda: nk.weight_norm(small(), "conv*"), ArgumentError, "select='conv\\*' matches none of 4 parameters"),
    (lambda: nk.weight_norm(small(), per=7), ArgumentError, "per is 7, and an array of shape"),
    (lambda: nk.weight_norm(small(), p=0), ArgumentError, "p=0: expected a number of at least 1"),
    (lambda: nk.data_init(small(), X), ArgumentError, "Sequential has no layer that a batch can start"),
    (
        lambda: nk.data_init(in_columns(), flat()[0]),
        ArgumentError,
        "dense is normalized with per='in'",
    ),
    (lambda: nk.WeightNorm(layers.Dense(2)).fold(), ModelError, "has no weights yet: build it"),
]


@pytest.mark.parametrize(("make", "kind", "sentence"), REFUSED)
def test_what_is_refused(make, kind, sentence):
    with pytest.raises(kind, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A model in two fits, the second with all quantities of each step recorded."""
    x, y = flat()
    model = nk.weight_norm(small())
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=BACKEND == "jax")
    model.fit(x, y, batch_size=8, verbose=0)
    seen = [[array(item.value()) for item in walk(model)]]
    record = nk.record(tmp_path_factory.mktemp("run") / "a", every=1, what=("weight", "grad", "update"), quiet=True)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[record, Watch(seen)])
    return model, record, seen


class Watch(keras.callbacks.Callback):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([array(item.value()) for item in walk(self.model)])


def test_a_recording_knows_the_weight_and_its_parts(fitted):
    model, record, seen = fitted
    run = normkit.load(record.path)
    names = [item.param.name for item in walk(model)]
    assert list(run.tensors) == names
    assert names[:4] == ["dense.kernel", "dense.kernel.g", "dense.kernel.v", "dense.bias"]
    assert list(run.steps) == [2, 3, 4]
    for step, (before, after) in zip(run.steps[1:], itertools.pairwise(seen), strict=False):
        reading = run.reading(int(step))
        for column, (old, new) in enumerate(zip(before, after, strict=True)):
            # an effective weight is worked out in the step, fused otherwise: some float32 ulps
            right = list(sums(new).values())
            np.testing.assert_allclose(reading.values["weight"][:6, column], right, rtol=1e-6, atol=1e-6)
            l2 = np.linalg.norm(new.astype("float64") - old)
            assert reading.values["update"][2, column] ** 0.5 == pytest.approx(l2, rel=1e-4, abs=1e-6)
        grads = reading.values["grad"]
        assert np.isnan(grads[:, [0, 4]]).all()  # an effective weight has none
        assert not np.isnan(grads[:, [1, 2, 5, 6]]).any()
        moved = reading.values["update"][2, [1, 2, 3]] ** 0.5
        np.testing.assert_allclose(moved, 0.1 * grads[2, [1, 2, 3]] ** 0.5, rtol=1e-3, atol=1e-7)


def test_saved_and_loaded_to_the_last_bit(fitted, tmp_path):
    model, _, _ = fitted
    x, _ = flat()
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    other = nk.weight_norm(small())
    other.load_weights(tmp_path / "m.weights.h5")
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    for again in (keras.models.load_model(tmp_path / "m.keras"), other, cloned):
        assert [each.name for each in again.weights] == ["kernel_g", "kernel_v", "bias"] * 2
        assert all((one == two).all() for one, two in zip(model.get_weights(), again.get_weights(), strict=True))
        np.testing.assert_array_equal(array(again(x)), array(model(x)))
        assert list(nk.norms(again)) == list(nk.norms(model))


@only_on("tensorflow", "torch")
def test_recurrent_time_distributed_and_embedding_layers_are_saved(tmp_path):
    tokens = np.array([[0, 1, 2], [3, 4, 1]], "int32")
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            nk.WeightNorm(layers.Embedding(5, 3, mask_zero=True)),
            nk.WeightNorm(layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True)), p=float("inf")),
            nk.WeightNorm(layers.TimeDistributed(layers.Dense(2)), select=["kernel"], per=(0, 1)),
        ]
    )
    for weight in all_effective(model):
        weight.g.assign(array(weight.g) * 1.5)
    out = array(model(tokens))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(array(again(tokens)), out)
    assert [each.path.split("/")[-1] for each in again.weights] == [each.path.split("/")[-1] for each in model.weights]
    assert (again.layers[1].p, list(again.layers[2].per), again.layers[2].select) == (float("inf"), [0, 1], ["kernel"])


def test_a_subclassed_model_is_built_by_fit():
    x, y = flat()
    model = Own()
    model.compile("sgd", "mse", run_eagerly=BACKEND != "jax")
    model.fit(x, y, batch_size=16, verbose=0)
    weight = model.first.layer.kernel
    np.testing.assert_array_equal(array(weight), array(model.first.fold().kernel))
    right = normal.weight(array(weight.v), array(weight.g), (1,))
    np.testing.assert_allclose(array(weight), right, rtol=1e-6)


@only_on("tensorflow")
@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_compiled_step_in_half_precision(jit_compile):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = nk.weight_norm(small())
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = flat()
    model.compile("sgd", "mse", jit_compile=jit_compile)
    before = model.get_weights()
    model.fit(x, y, batch_size=16, verbose=0)
    assert all(np.isfinite(each).all() for each in model.get_weights())
    assert all((one != two).any() for one, two in zip(before, model.get_weights(), strict=True))
    assert all_effective(model)[0].g.dtype == "float32"


@only_on("tensorflow")
def test_tensorflow_exports_and_checkpoints_the_parts(tmp_path):
    import tensorflow as tf

    model = nk.weight_norm(small())
    x, _ = flat()
    model.export(tmp_path / "served", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(loaded.serve(x), model(x), rtol=1e-5, atol=1e-6)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "c")
    assert sum("kernel_g" in name or "kernel_v" in name for name, _ in tf.train.list_variables(path)) == 4


@only_on("torch")
def test_pytorch_sees_the_parts_as_parameters():
    model = nk.weight_norm(small())
    names = [name for name, _ in model.named_parameters()]
    assert sum(name.endswith(("kernel_g", "kernel_v")) for name in names) == 4
    assert not any(name.endswith("kernel") for name in names)
