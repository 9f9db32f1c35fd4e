"""`add_penalty`: its numbers against the oracle, after `fit`, `save`, `load_model`, `clone_model`; what is refused."""

import importlib

import keras
import numpy as np
import pytest

import normkit.keras as nk
import pulled
from keras_pulled import PLAIN, QUICK, array, flat, floats
from keras_tiny import BACKEND, slow_on
from normkit.errors import ArgumentError, ModelError
from normkit.keras.walk import walk

layers = keras.layers
TERMS = {  # how it is asked for, the oracle's value and gradient; the out axis of a Dense kernel is the last
    "l1": (pulled.penalty_l1, pulled.gradient_l1),
    "l2": (pulled.penalty_l2, pulled.gradient_l2),
    "group": (lambda w: pulled.penalty_group(w, (1,)), lambda w: pulled.gradient_group(w, (1,))),
    "toward": (lambda w: pulled.penalty_toward(w, pulled.GOAL), lambda w: pulled.gradient_toward(w, pulled.GOAL)),
    "orthogonality": (
        lambda w: pulled.penalty_orthogonality(w, (1,)),
        lambda w: pulled.gradient_orthogonality(w, (1,)),
    ),
    "spectral": (lambda w: pulled.penalty_spectral(w, (1,)), lambda w: pulled.gradient_spectral(w, (1,))),
}


def dense(w=pulled.START, **keywords):
    layer = layers.Dense(w.shape[-1], **keywords)
    layer.build((None, w.shape[0]))
    layer.kernel.assign(w)
    return layer


def net(**keywords):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([layers.Dense(3, **keywords)], name="encoder")
    return keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="head")])


def gradient_of(layer, loss):
    """The gradient of `loss()` by the layer's kernel."""
    variable = layer.trainable_variables[0]
    if BACKEND == "tensorflow":
        tf = importlib.import_module("tensorflow")
        with tf.GradientTape() as tape:
            value = loss()
        return array(tape.gradient(value, variable.value))
    if BACKEND == "torch":
        torch = importlib.import_module("torch")
        return array(torch.autograd.grad(loss(), variable.value)[0])
    jax = importlib.import_module("jax")

    def of(w):
        with keras.StatelessScope(state_mapping=[(variable, w)]):
            return loss()

    return array(jax.jit(jax.grad(of))(variable.value))


def numbers(losses):
    return [float(array(each)) for each in losses]


def reference_for(name, goal=pulled.GOAL):
    return {"reference": {"kernel": goal}} if name == "toward" else {}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=slow_on("jax") if name == "spectral" else []) for name in TERMS]
)
def test_value_and_gradient_are_the_oracles(name):
    value, gradient = TERMS[name]
    loose = 1e-2 if name == "spectral" else 1e-12  # ten steps of power iteration from a cold start
    with floats("float64"):
        layer = dense()
        assert nk.add_penalty(layer, **{name: 0.3}, **reference_for(name)) == ["kernel"]
        found, slope = numbers(layer.losses), gradient_of(layer, lambda: sum(layer.losses))
        same = float(array(nk.penalty(layer, **{name: 0.3}, **reference_for(name))))
        alone = nk.penalty({"kernel": layer.kernel}, **{name: 0.3}, per=-1, **reference_for(name))
    assert found == pytest.approx([0.3 * value(pulled.START)], rel=loose)
    assert [same, float(array(alone))] == found * 2
    np.testing.assert_allclose(slope, 0.3 * gradient(pulled.START), rtol=loose, atol=10 * loose)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "spectral")) for name in TERMS]
)
def test_at_zero_the_gradient_is_finite(name):
    layer = dense(np.zeros((4, 3), "float32"))
    nk.add_penalty(layer, **{name: 0.5}, **reference_for(name, np.zeros((4, 3))))
    slope = gradient_of(layer, lambda: sum(layer.losses))
    assert (slope == 0).all()


def test_l2_is_keras_own_with_half_of_it():
    own, ours = dense(kernel_regularizer=keras.regularizers.L2(0.25)), dense()
    nk.add_penalty(ours, l2=0.5)
    assert numbers(own.losses) == numbers(ours.losses)
    gradients = [gradient_of(layer, lambda layer=layer: sum(layer.losses)) for layer in (own, ours)]
    np.testing.assert_array_equal(*gradients)
    np.testing.assert_array_equal(gradients[1], np.float32(0.5) * pulled.START.astype("float32"))


@pytest.mark.parametrize("policy", [pytest.param("float16", marks=slow_on("jax")), "mixed_float16"])
def test_half_precision_does_not_overflow(policy):
    layer = dense(np.ones((300, 300)), dtype=policy)
    nk.add_penalty(layer, l2=2.0)
    assert numbers(layer.losses) == [90000.0]
    assert keras.backend.standardize_dtype(layer.losses[0].dtype) == "float32"


def history(model, epochs=1, **keywords):
    found = model.fit(*flat(), batch_size=16, epochs=epochs, verbose=0, **keywords).history
    return {name: values[-1] for name, values in found.items()}


def test_after_fit_and_with_its_terms_in_the_logs():
    model = net(kernel_regularizer="l2")
    model.compile(keras.optimizers.SGD(0.0), "mse", **PLAIN)
    before = {**history(model), "val_loss": model.evaluate(*flat(), verbose=0)}
    kernels = [array(each.kernel) for each in (model.layers[0].layers[0], model.layers[1])]
    assert nk.add_penalty(model, l2=2.0, log=True) == ["encoder.dense.kernel", "head.kernel"]
    l2 = 2 * sum(pulled.penalty_l2(each) for each in kernels)
    after = history(model, validation_data=flat())
    for name in ("loss", "val_loss"):
        assert after[name] - before[name] == pytest.approx(l2, rel=1e-5)
    assert [after["penalty_l2"], after["val_penalty_l2"]] == pytest.approx([l2, l2], rel=1e-6)
    nk.add_penalty(model, l2=1.0, l1=1.0, select="head.*", log=True)
    l1 = pulled.penalty_l1(kernels[1])
    more = history(model)
    assert more["penalty_l2"] == pytest.approx(l2 + pulled.penalty_l2(kernels[1]), rel=1e-6)
    assert more["penalty_l1"] == pytest.approx(l1, rel=1e-6)
    assert nk.remove_penalty(model) == ["encoder.dense.kernel", "head.kernel"]
    assert model.evaluate(*flat(), verbose=0, return_dict=True) == pytest.approx({"loss": before["loss"]}, rel=1e-6)
    assert len(model.losses) == 1


@slow_on("jax")
def test_a_step_of_fit_moves_by_the_gradient():
    model = net()
    start = [array(each) for each in model.trainable_variables]
    moved = []
    for times in (None, 0.5):
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        if times:
            nk.add_penalty(model, l2=times)
        model.compile(keras.optimizers.SGD(0.1), "mse", **QUICK)
        history(model)
        moved.append([array(each) for each in model.trainable_variables])
    for first, plain, pulled_to in zip(start, *moved, strict=True):
        right = 0.05 * first if first.ndim == 2 else 0 * first
        np.testing.assert_allclose(plain - pulled_to, right, atol=1e-6)


EVERYTHING = {"l1": 0.1, "l2": 0.2, "group": 0.3, "toward": 0.4, "orthogonality": 0.5, "spectral": 0.6}


def test_it_outlives_save_load_and_clone(tmp_path):
    model = net(kernel_regularizer="l2")
    nk.add_penalty(model, **EVERYTHING)
    nk.add_penalty(model, l2=1.0, select="head.*")
    for variable in model.trainable_variables:
        variable.assign(array(variable) + 0.25)  # so that `toward` has some way to go
    model.save(tmp_path / "m.keras")
    loaded, clone = keras.saving.load_model(tmp_path / "m.keras"), keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert numbers(loaded.losses) == numbers(clone.losses) == numbers(model.losses)
    assert nk.remove_penalty(loaded) == ["encoder.dense.kernel", "head.kernel"]
    assert numbers(loaded.losses) == pytest.approx([0.01 * np.sum(array(model.trainable_variables[0]) ** 2)])


CASES = {  # layers that keep their weights' regularizers in different places, and inputs
    "SeparableConv1D": (lambda: layers.SeparableConv1D(2, 2), (5, 3)),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(2), (5, 3)),
    "LSTM": (lambda: layers.LSTM(2), (3, 2)),
    "Bidirectional": (lambda: layers.Bidirectional(layers.SimpleRNN(2)), (3, 2)),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(2)), (3, 2)),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3)), (3, 4)),
    "WeightNorm": (lambda: nk.WeightNorm(layers.Dense(2)), (3,)),
    "WeightNormRNN": (lambda: nk.WeightNorm(layers.GRU(2)), (3, 2)),
    "LayerNormalization": (layers.LayerNormalization, (3,)),
}


FEW = ("TimeDistributed", "WeightNorm")  # JAX compiles each


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[] if kind in FEW else slow_on("jax")) for kind in CASES])
def test_each_kind_of_layer_saves_it(kind):
    make, shape = CASES[kind]
    model = keras.Sequential([keras.Input(shape), make()])
    select = "scale" if kind == "LayerNormalization" else None
    names = nk.add_penalty(model, l2=2.0, group=0.5, per="tensor", select=select)
    config = model.get_config()
    again = keras.Sequential.from_config(config)
    again.set_weights(model.get_weights())
    assert numbers(again.losses) == pytest.approx(numbers(model.losses), rel=1e-6)
    right = [pulled.lengths(w) ** 2 + 0.5 * pulled.penalty_group(w, ()) for w in weights_of(model, names)]
    assert numbers(model.losses) == pytest.approx([each.item() for each in right], rel=1e-5)
    assert len(names) > 0


def weights_of(model, names):
    located = {item.param.name: item for item in walk(model)}
    return [array(located[name].value()) for name in names]


@slow_on("jax")
def test_attention_saves_one_for_all_its_kernels_and_says_what_it_cannot():
    symbol = keras.Input((3, 4))
    model = keras.Model(symbol, layers.MultiHeadAttention(2, 2)(symbol, symbol))
    nk.add_penalty(model, l2=1.0)
    assert len(keras.Model.from_config(model.get_config()).losses) == 4
    with pytest.warns(UserWarning, match=r"query\.kernel, .* acts in this model and is not saved with it"):
        nk.add_penalty(model, group=1.0)
    assert len(model.losses) == 4


class Own(keras.Model):
    def build(self, shape):
        self.raw = self.add_weight(shape=(shape[-1], 2), name="raw")

    def call(self, x):
        return keras.ops.matmul(x, self.raw)


def test_a_weight_of_ones_own_layer_acts_and_is_said_not_to_be_saved():
    model = Own()
    model.build((None, 4))
    with pytest.warns(UserWarning, match="the penalty of raw acts in this model and is not saved with it"):
        nk.add_penalty(model, l2=2.0)
    assert numbers(model.losses) == pytest.approx([np.sum(array(model.raw) ** 2)])
    model.compile(keras.optimizers.SGD(0.1), "mse", **QUICK)
    assert history(model)["loss"] > np.sum(array(model.raw) ** 2)


def test_tensors_of_a_loop_of_ones_own():
    w = pulled.START.astype("float32")
    lone = keras.ops.convert_to_tensor(w)
    right = 0.5 * pulled.penalty_l2(w)
    for given in (lone, keras.Variable(w), w):
        assert float(array(nk.penalty(given, l2=0.5))) == pytest.approx(right)
    assert float(array(nk.penalty([lone, lone], l2=0.5))) == pytest.approx(2 * right)
    toward = nk.penalty([lone], toward=1.0, reference=[pulled.GOAL.astype("float32")])
    assert float(array(toward)) == pytest.approx(pulled.penalty_toward(w, pulled.GOAL))


WRONG = [
    (lambda: nk.add_penalty(net()), ArgumentError, "penalty: no coefficient above 0 among"),
    (lambda: nk.add_penalty(net(), l2=0), ArgumentError, "penalty: no coefficient above 0 among"),
    (lambda: nk.add_penalty(net(), l2=-1), ArgumentError, "l2=-1: expected a finite number"),
    (lambda: nk.add_penalty(net(), l2=True), ArgumentError, "l2=True: expected a finite number"),
    (lambda: nk.add_penalty(net(), l1="0.1"), ArgumentError, "l1='0.1': expected a finite number"),
    (lambda: nk.add_penalty(net(), l2=float("inf")), ArgumentError, "l2=inf: expected a finite number"),
    (lambda: nk.add_penalty(keras.optimizers.SGD(), l2=1.0), ArgumentError, "model=SGD: expected a keras.Model"),
    (lambda: nk.add_penalty(keras.Sequential([layers.Dense(2)]), l2=1.0), ModelError, "has no weights yet"),
    (lambda: nk.add_penalty(net(), l2=1.0, select="nothing"), ArgumentError, "matches none of 4 parameters"),
    (lambda: nk.add_penalty(dense(), l2=1.0, log=True), ArgumentError, "log=True is for what `fit` logs"),
    (
        lambda: nk.add_penalty(net(), toward=1.0, reference={"a": 1}),
        ArgumentError,
        "reference has 'a', and the weights",
    ),
    (
        lambda: nk.add_penalty(dense(), toward=1.0, reference={"kernel": np.ones(3)}),
        ArgumentError,
        "beside a weight of",
    ),
    (lambda: nk.add_penalty(net(), toward=1.0, reference={}), ArgumentError, "reference has no array for encoder"),
    (lambda: nk.add_penalty(net(), toward=1.0, reference=3), ArgumentError, "toward= needs reference="),
    (lambda: nk.add_penalty(net(), l2=1.0, reference={"a": 1}), ArgumentError, "is for toward=, which was not given"),
    (lambda: nk.add_penalty(net(), group=1.0, per=5), ArgumentError, "has no axis 5"),
    (lambda: nk.remove_penalty(net()), ModelError, "add_penalty has put none on a weight of it"),
    (lambda: nk.penalty([], l2=1.0), ArgumentError, "is empty: expected a Keras model, or tensors"),
    (lambda: nk.penalty("model", l2=1.0), ArgumentError, "model='model': expected a keras.Model"),
    (lambda: nk.penalty(pulled.START, group=1.0), ArgumentError, "does not say which these are: give axis numbers"),
    (lambda: nk.penalty(pulled.START, l2=1.0, select="kernel"), ArgumentError, "chooses among a model's weights"),
    (lambda: nk.penalty(pulled.START, toward=1.0), ArgumentError, "toward= needs reference="),
    (lambda: nk.penalty(dense(), toward=1.0, reference="initial"), ArgumentError, "of this very call are at distance"),
    (lambda: nk.penalty([pulled.START, "w"], l2=1.0), ArgumentError, "model has 'w' at '1': expected a tensor"),
    (lambda: nk.add_penalty(net(), l2=1.0, per="rows"), ArgumentError, "per is 'rows'; it must be 'tensor'"),
]


@pytest.mark.parametrize(("call", "kind", "sentence"), WRONG)
def test_what_users_type_wrong(call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call()


def test_a_refused_call_leaves_the_model_as_it_was():
    model = net(kernel_regularizer="l2")
    before = [each.regularizer for each in model.trainable_variables]
    with pytest.raises(ArgumentError, match="reference has no array for head"):
        nk.add_penalty(model, l2=1.0, toward=1.0, reference={"encoder.dense.kernel": np.ones((4, 3))})
    assert [each.regularizer for each in model.trainable_variables] == before
