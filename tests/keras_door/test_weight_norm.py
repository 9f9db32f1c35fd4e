"""`WeightNorm` around each kind of layer: the function stays, w = g v / |v|, derivatives to the second."""

import inspect
import math

import keras
import numpy as np
import pytest

import normal
import normkit.keras as nk
from keras_normal import HERE, KINDS, array, doubles, gradients, inputs, loss, made
from keras_tiny import BACKEND
from normkit.errors import ArgumentError, ModelError
from normkit.keras.effective import all_effective
from normkit.keras.walk import walk

layers = keras.layers
SAME_CODE = {"LSTMCell", "GRUCell", "SimpleRNNCell"}  # inside those of the table
BUILT = ["Dense", "EinsumDense", "Conv2D", "Conv2DTranspose", "SeparableConv1D", "LSTM", "MultiHeadAttention"]
STEP = 1e-5


def effective(layer):
    """[(located, kept axes)] of the normalized weights."""
    return [item for item in walk(layer) if item.param.part == "effective"]


def test_every_layer_with_a_kernel_is_in_the_table():
    found = {
        cls.__name__
        for cls in vars(layers).values()
        if inspect.isclass(cls)
        and issubclass(cls, layers.Layer)
        and any(word in name for name in inspect.signature(cls).parameters for word in ("kernel_ini", "embeddings_ini"))
    }
    assert found - SAME_CODE <= set(KINDS)
    assert len(found) > 20


@pytest.mark.parametrize("kind", HERE)
def test_wrapping_changes_no_bit_and_fold_gives_the_layer_back(kind):
    layer, given = made(kind)
    before = array(layer(*given))
    plain = {item.param.name: array(item.value()) for item in walk(layer)}
    wrapper = nk.WeightNorm(layer)
    np.testing.assert_array_equal(array(wrapper(*given)), before)
    weights = effective(wrapper)
    assert {item.param.name for item in weights} <= set(plain)
    assert {item.param.name for item in weights} >= {name for name in plain if name.endswith("kernel")}
    for item in weights:
        np.testing.assert_array_equal(array(item.variable.v), plain[item.param.name])
        assert item.param.out_axes == item.variable.kept
        g = normal.lengths(plain[item.param.name], item.variable.kept)
        np.testing.assert_allclose(array(item.variable.g), g, rtol=3e-7)
        assert array(item.variable.g).shape == g.shape
        item.variable.g.assign(g * np.linspace(0.5, 2, g.size).reshape(g.shape))
        item.variable.v.assign(3 * plain[item.param.name])
    changed = array(wrapper(*given))
    assert abs(changed - before).max() > 1e-3
    for item in weights:
        right = normal.weight(array(item.variable.v), array(item.variable.g), item.variable.kept)
        np.testing.assert_allclose(array(item.value()), right, rtol=1e-6, atol=1e-9)
    folded = wrapper.fold()
    assert type(folded) is type(layer)
    assert not all_effective(folded)
    assert folded.name == wrapper.name
    np.testing.assert_array_equal(array(folded(*given)), changed)
    assert list(nk.norms(folded)) == list(plain)


@pytest.mark.parametrize("kind", [kind for kind in BUILT if kind in HERE])
def test_built_by_a_model_it_is_the_same_layer(kind):
    layer, given = made(kind)
    before = array(layer(*given))
    fresh, _ = made(kind)
    wrapper = nk.WeightNorm(fresh)
    symbols = [keras.Input(each.shape[1:], dtype=str(each.dtype)) for each in given]
    model = keras.Model(symbols, wrapper(*symbols))
    assert model.output_shape[1:] == before.shape[1:]
    for old, new in zip(
        walk(layer), [item for item in walk(wrapper) if item.param.part in ("whole", "effective")], strict=True
    ):
        new.variable.assign(array(old.variable))
    np.testing.assert_array_equal(array(model(given)), before)


DERIVED = [
    ("Double", "out", 2),
    ("Double", "in", 2),
    ("Double", "tensor", 2),
    ("Double", (0, 1), 2),
    ("Double", -1, 3),
    ("Double", 0, 1),
    ("Conv2D", "out", 2),
    ("Conv1DTranspose", "out", 2),
    ("SeparableConv1D", "out", 2),
    ("EinsumDense", "out", 2),
    ("Embedding", "out", 2),
    ("LSTM", "out", 2),
    ("MultiHeadAttention", "out", 2),
]
if BACKEND != "tensorflow":  # elsewhere Keras multiplies matrices in float32
    DERIVED = [row for row in DERIVED if row[0] not in ("EinsumDense", "LSTM", "MultiHeadAttention")]
if BACKEND == "jax":
    DERIVED = DERIVED[:1]


@pytest.mark.parametrize(("kind", "per", "p"), DERIVED)
def test_derivatives_are_those_of_finite_differences(kind, per, p):
    with doubles():
        layer, given = made(kind, dtype="float64")
        given = [each if each.dtype.kind == "i" else each.astype("float64") for each in given]
        wrapper = nk.WeightNorm(layer, per=per, p=p)
        wrapper(*given)
        variables = wrapper.trainable_variables
        rng = np.random.default_rng(2)
        start = [array(each) * rng.uniform(0.5, 2, each.shape) for each in variables]
        along = [rng.normal(size=each.shape) for each in variables]

        def moved(t, what, *rest):
            for variable, value, way in zip(variables, start, along, strict=True):
                variable.assign(value + t * way)
            return what(wrapper, given, *rest)

        first = moved(0, gradients)
        assert all(each.dtype == np.float64 for each in first)
        slope = (moved(STEP, loss) - moved(-STEP, loss)) / (2 * STEP)
        assert sum((g * d).sum() for g, d in zip(first, along, strict=True)) == pytest.approx(slope, rel=1e-6, abs=1e-7)
        second = moved(0, gradients, along)
        bend = [(a - b) / (2 * STEP) for a, b in zip(moved(STEP, gradients), moved(-STEP, gradients), strict=True)]
        for one, other in zip(second, bend, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * max(1, abs(other).max()))


def test_the_gradient_is_the_closed_form_and_orthogonal():
    with doubles():
        layer, given = made("Double", dtype="float64", use_bias=False)
        given = [given[0].astype("float64")]
        layer(*given)
        (of_w,) = gradients(layer, given)
        w = array(layer.kernel)
        wrapper = nk.WeightNorm(layer)
        wrapper(*given)
        of_g, of_v = gradients(wrapper, given)
        right_v, right_g = normal.gradients(of_w, w, normal.lengths(w, (1,)), (1,))
        np.testing.assert_allclose(of_g, right_g, rtol=1e-12)
        np.testing.assert_allclose(of_v, right_v, rtol=1e-11, atol=1e-13)
        assert abs((of_v * w).sum(0)).max() < 1e-12


def test_a_zero_group_has_finite_derivatives_of_the_closed_form():
    with doubles():
        layer, given = made("Double", dtype="float64", use_bias=False)
        given = [given[0].astype("float64")]
        wrapper = nk.WeightNorm(layer)
        wrapper(*given)
        v = array(layer.kernel.v)
        v[:, 1] = 0
        layer.kernel.v.assign(v)
        layer.kernel.g.assign([[1.0, 2.0, 3.0]])
        folded = wrapper.fold()
        assert not array(folded.kernel)[:, 1].any()
        (of_w,) = gradients(folded, given)
        of_g, of_v = gradients(wrapper, given)
        right_v, right_g = normal.gradients(of_w, v, np.array([[1.0, 2.0, 3.0]]), (1,))
        np.testing.assert_allclose(of_g, right_g, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(of_v, right_v, rtol=1e-11, atol=1e-13)
        second = gradients(wrapper, given, [np.ones((1, 3)), np.zeros((5, 3))])
        assert all(np.isfinite(each).all() for each in second)
        np.testing.assert_allclose(second[1][:, 1], of_w[:, 1], rtol=1e-12)  # d2w/dg dv = 1, and L is linear in w at 0


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["Dense", "Embedding"])
def test_half_precision_goes_through_float32(kind, policy):
    layer, given = made(kind, dtype=policy)
    before = layer(*given)
    wrapper = nk.WeightNorm(layer)
    after = wrapper(*given)
    assert keras.backend.standardize_dtype(after.dtype) == policy.removeprefix("mixed_")
    g = all_effective(wrapper)[0].g
    assert g.dtype == ("float32" if policy.startswith("mixed") else policy)
    before, after = (array(each).astype("float64") for each in (before, after))
    # bit-equal where g is float32; where g itself is rounded to half precision, one ulp of a weight
    scale = 0 if policy.startswith("mixed") else {"float16": 2**-9, "bfloat16": 2**-6}[policy] * abs(before).max()
    np.testing.assert_allclose(after, before, rtol=0, atol=scale)


def test_tables_are_worked_out_once_per_call(monkeypatch):
    from normkit.keras import effective as module

    layer, given = made("SimpleRNN")
    wrapper = nk.WeightNorm(layer)
    wrapper(*given)
    count = []
    true = module.normalized
    monkeypatch.setattr(module, "normalized", lambda *a, **k: count.append(1) or true(*a, **k))
    wrapper(*given)
    assert len(count) == 2  # kernel and recurrent kernel, for three time steps
    monkeypatch.setattr(layer, "call", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wrapper.call(*given)
    assert not module._HELD.values


def test_regularizer_acts_on_the_weight_once_and_the_activity_too():
    layer = layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1")
    symbol = keras.Input((5,))
    wrapper = nk.WeightNorm(layer)
    model = keras.Model(symbol, wrapper(wrapper(symbol)[:, :1] + symbol))
    layer.kernel.g.assign([[1.0, 2.0, 3.0]])
    model(inputs(4, 5))
    assert [float(array(each)) for each in model.losses][-1] == pytest.approx(0.01 * 14, rel=1e-6)
    assert len(model.losses) == 3


def test_freezing_the_wrapper_or_the_layer():
    layer, given = made("Dense")
    wrapper = nk.WeightNorm(layer)
    wrapper(*given)
    assert [each.name for each in wrapper.trainable_variables] == ["kernel_g", "kernel_v", "bias"]
    for one in (wrapper, layer):
        one.trainable = False
        assert not layer.trainable_variables
        assert not any(item.param.trainable for item in walk(keras.Sequential([wrapper])))
        one.trainable = True
    layer.kernel.trainable = False
    assert [each.name for each in wrapper.trainable_variables] == ["bias"]
    frozen = nk.WeightNorm(layers.Dense(2, trainable=False))
    frozen(*given)
    assert (len(frozen.weights), len(frozen.trainable_weights), frozen.trainable) == (3, 0, False)


def test_assigning_the_weight_sets_both_parts():
    layer, given = made("Dense")
    wrapper = nk.WeightNorm(layer, per="tensor")
    wrapper(*given)
    layer.kernel.assign(np.full((5, 3), 2.0))
    assert array(layer.kernel.g) == pytest.approx(2 * math.sqrt(15))
    layer.kernel.assign(layer.kernel * 2)
    np.testing.assert_allclose(array(layer.kernel), 4, rtol=1e-6)


class Own(layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 2), name="matrix")
        self.held = [self.add_weight(shape=(2, 2), name="listed")]

    def call(self, x):
        return keras.ops.matmul(keras.ops.matmul(x, self.matrix), self.held[0])


def test_weights_of_other_layers_by_name():
    wrapper = nk.WeightNorm(Own(), select="matrix", per=-1)
    plain = wrapper.layer.call
    out = array(wrapper(inputs(4, 5)))
    np.testing.assert_array_equal(out, array(plain(inputs(4, 5))))
    assert list(nk.norms(wrapper)) == ["matrix", "matrix.g", "matrix.v", "listed"]
    scale = nk.WeightNorm(layers.LayerNormalization(), select="gamma", per="tensor")
    scale(inputs(4, 5))
    assert [each.name for each in scale.weights] == ["gamma_g", "gamma_v", "beta"]


class Echo(layers.Layer):
    """Applies the kernel of another layer."""

    def __init__(self, other):
        super().__init__()
        self.other = [other]

    def build(self, shape):
        self.kernel = self.other[0].kernel

    def call(self, x):
        return keras.ops.matmul(x, self.kernel)


class Tied(layers.Layer):
    def __init__(self):
        super().__init__()
        self.one = layers.Dense(4)
        self.two = Echo(self.one)

    def build(self, shape):
        self.one.build(shape)
        self.two.build(shape)

    def call(self, x):
        return self.two(self.one(x))


def lora():
    return layers.Dense(3, lora_rank=1)


REFUSED = [
    (
        lambda: nk.WeightNorm(64),
        ArgumentError,
        r"layer=64: expected a keras\.layers\.Layer, as in WeightNorm\(Dense\(64\)\)",
    ),
    (lambda: nk.WeightNorm(layers.Dense), ArgumentError, "layer=Dense is a class; give an instance"),
    (lambda: nk.WeightNorm(nk.WeightNorm(layers.Dense(2))), ModelError, "is already normalized: it is a WeightNorm"),
    (lambda: nk.WeightNorm(layers.Dense(2), p=0.5), ArgumentError, "p=0.5: expected a number of at least 1"),
    (
        lambda: nk.WeightNorm(layers.Dense(2), layers.Dense),
        ArgumentError,
        "by names or roles, as text that can be saved",
    ),
    (lambda: nk.WeightNorm(layers.ReLU()), ModelError, "ReLU .* has no weights, so none to normalize"),
    (lambda: nk.WeightNorm(layers.LayerNormalization()), ArgumentError, "no weight here has the role kernel: name the"),
    (lambda: nk.WeightNorm(layers.Dense(2), "weight"), ArgumentError, "select='weight' matches none of 2 parameters"),
    (lambda: nk.WeightNorm(layers.Dense(2), per="rows"), ArgumentError, "per is 'rows'; it must be 'tensor'"),
    (lambda: nk.WeightNorm(layers.Dense(2), per=2), ArgumentError, "per is 2, and an array of shape .* has no axis 2"),
    (lambda: nk.WeightNorm(layers.Dense(2, kernel_constraint="non_neg")), ModelError, "has the constraint NonNeg"),
    (lambda: nk.WeightNorm(lora()), ModelError, "kernel of shape .* is adapted by LoRA: Dense"),
    (lambda: nk.WeightNorm(layers.Dense(2, dtype="int8_from_float32")), ModelError, r"is quantized \(int8\)"),
    (
        lambda: nk.WeightNorm(Own(), "matrix"),
        ArgumentError,
        "Own does not say which axes of matrix, of shape .* give the",
    ),
    (
        lambda: nk.WeightNorm(Own(), "listed", per=-1),
        ModelError,
        "no attribute of Own is this variable, which is in a list",
    ),
    (lambda: nk.WeightNorm(Tied()), ModelError, "dense.kernel of shape .* is shared by Dense .* and Echo echo"),
    (lambda: nk.WeightNorm(layers.SpectralNormalization(layers.Dense(2))), ModelError, "is shared by SpectralNorm"),
    (
        lambda: nk.WeightNorm(layers.TimeDistributed(nk.WeightNorm(layers.Dense(2)))),
        ModelError,
        "is already normalized",
    ),
]


@pytest.mark.parametrize(("make", "kind", "sentence"), REFUSED)
def test_what_is_refused(make, kind, sentence):
    given = inputs(2, 4, 4)
    with pytest.raises(kind, match=sentence) as caught:
        make()(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "select"),
    [
        (lambda: layers.Dense(3, kernel_constraint="non_neg"), None),
        (lora, None),
        (Own, ["matrix", "listed"]),
        (Tied, None),
    ],
)
def test_a_refused_layer_that_is_built_is_left_as_it_was(make, select):
    layer, given = make(), inputs(2, 4)
    before = array(layer(given))
    variables = list(layer.variables)
    with pytest.raises(ModelError):
        nk.WeightNorm(layer, select, per=-1)
    assert all(one is other for one, other in zip(layer.variables, variables, strict=True))
    np.testing.assert_array_equal(array(layer(given)), before)


def test_only_the_table_of_an_embedding_that_is_wrapped_itself():
    class Words(layers.Layer):
        def __init__(self):
            super().__init__()
            self.table, self.head = layers.Embedding(5, 3), layers.Dense(2)

        def build(self, shape):
            self.table.build(shape)
            self.head.build((*shape, 3))

        def call(self, x):
            return self.head(self.table(x))

    wrapper = nk.WeightNorm(Words())
    wrapper(np.array([[1, 2]], "int32"))
    assert [item.param.name for item in effective(wrapper)] == ["dense.kernel"]
    both = nk.WeightNorm(Words(), ["embedding", "kernel"])
    both(np.array([[1, 2]], "int32"))
    assert [item.param.name for item in effective(both)] == ["embedding.embeddings", "dense.kernel"]
    assert BACKEND
