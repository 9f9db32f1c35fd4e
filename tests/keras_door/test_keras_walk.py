"""Which weights a Keras model has: all of them, once, under names that another build gives too, with roles and axes."""

import keras
import numpy as np
import pytest
from keras import layers

import normkit.keras as nk
from normkit.errors import ArgumentError, ModelError
from normkit.keras.walk import walk

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation",  # Keras' own, with numpy 2
    "ignore:.*build.*was called on layer",  # of models written without a build method, as most are
)


@pytest.fixture
def unfilled():
    """Variables are made and not filled, which on JAX takes a compilation each."""
    with keras.StatelessScope():
        yield
        keras.src.backend.common.global_state.set_global_attribute("uninitialized_variables", [])


def inner(name):
    here = keras.Input((4,))
    return keras.Model(here, layers.Dense(4, name="fc")(here), name=name)


def nested():
    here = keras.Input((4,))
    return keras.Model(here, inner("sb")(inner("sa")(here)))


class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = inner("sub"), inner("sub")

    def call(self, inputs):
        return self.two(self.one(inputs))


def equal_names():
    return keras.Sequential([keras.Input((4,)), Block(), Block(name="mine")])


class Holder(keras.Model):
    def __init__(self):
        super().__init__()
        self.several = [layers.Dense(4), layers.Dense(4)]
        self.named = {"q": layers.Dense(4, name="query")}
        self.raw = keras.Variable("ones", shape=(3,))
        self.free = [keras.Variable("ones", shape=(2,)) for _ in range(2)]
        self.kept = self.add_weight(shape=(3,), trainable=False)

    def build(self, shape):
        self.temperature = self.add_weight(shape=(), name="temperature")

    def call(self, inputs):
        for layer in self.several:
            inputs = layer(inputs)
        return self.named["q"](inputs) * self.temperature


def held():
    model = Holder()
    model(np.ones((1, 4), "float32"))
    return model


def shared():
    dense, here = layers.Dense(4), keras.Input((4,))
    one, two = keras.Sequential([dense], name="a"), keras.Sequential([dense], name="b")
    return keras.Model(here, two(one(here)))


def recurrent():
    cells = layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)], return_sequences=True)
    both = layers.Bidirectional(layers.GRU(2, return_sequences=True))
    return keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, return_sequences=True), both, cells])


class Tied(keras.Model):
    def __init__(self):
        super().__init__()
        self.embed = layers.ReversibleEmbedding(7, 4)

    def call(self, tokens):
        return self.embed(self.embed(tokens), reverse=True)


def tied():
    model = Tied()
    model(np.ones((1, 2), "int32"))
    return model


def wrapped():
    spectral = layers.SpectralNormalization(layers.Conv2D(4, 3))
    return keras.Sequential([keras.Input((8, 8, 3)), spectral, layers.TimeDistributed(layers.Dense(2))])


NAMES = {
    nested: ["sa.fc.kernel", "sa.fc.bias", "sb.fc.kernel", "sb.fc.bias"],
    equal_names: [
        f"{block}.{sub}.fc.{own}"
        for block in ("block", "mine")
        for sub in ("sub", "sub~2")
        for own in ("kernel", "bias")
    ],
    held: [
        *("temperature", "raw", "variable", "variable_1", "kept"),
        *("dense.kernel", "dense.bias", "dense_1.kernel", "dense_1.bias", "query.kernel", "query.bias"),
    ],
    shared: ["a.dense.kernel", "a.dense.bias"],
    recurrent: [
        *(f"lstm.lstm_cell.{own}" for own in ("kernel", "recurrent_kernel", "bias")),
        *(f"bidirectional.forward_gru.gru_cell.{own}" for own in ("kernel", "recurrent_kernel", "bias")),
        *(f"bidirectional.backward_gru.gru_cell.{own}" for own in ("kernel", "recurrent_kernel", "bias")),
        *(f"rnn.stacked_rnn_cells.lstm_cell.{own}" for own in ("kernel", "recurrent_kernel", "bias")),
        *(f"rnn.stacked_rnn_cells.gru_cell.{own}" for own in ("kernel", "recurrent_kernel", "bias")),
    ],
    tied: ["reversible_embedding.embeddings"],
    wrapped: [
        *("spectral_normalization.conv2d.kernel", "spectral_normalization.vector_u"),
        *("spectral_normalization.conv2d.bias", "time_distributed.dense.kernel", "time_distributed.dense.bias"),
    ],
}


@pytest.mark.parametrize("build", NAMES)
def test_every_weight_has_one_name_in_each_build(build, unfilled):
    for _ in range(2):
        model = build()
        located = walk(model)
        assert sorted(item.param.name for item in located) == sorted(NAMES[build])
        assert {id(item.variable) for item in located} == {id(variable) for variable in model.weights}


def test_what_is_used_twice_has_aliases():
    kernel, _ = walk(shared())
    assert kernel.param.aliases == ("b.dense.kernel",)


def test_random_state_is_no_weight():
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.Dense(2)])
    assert len(model.variables) == 3
    assert [item.param.name for item in walk(model)] == ["dense.kernel", "dense.bias"]


IMAGE, SERIES = (6, 6, 4), (6, 4)
WEIGHTS = [  # layer, its input, weight, shape, role, out axes, in axes
    (lambda: layers.Dense(3), SERIES, "kernel", (4, 3), "kernel", (1,), (0,)),
    (lambda: layers.Dense(3), SERIES, "bias", (3,), "bias", (0,), None),
    (lambda: layers.Conv2D(3, 2), IMAGE, "kernel", (2, 2, 4, 3), "kernel", (3,), (2,)),
    (lambda: layers.Conv2D(6, 2, groups=2), IMAGE, "kernel", (2, 2, 2, 6), "kernel", (3,), None),
    (lambda: layers.Conv1D(3, 2), SERIES, "kernel", (2, 4, 3), "kernel", (2,), (1,)),
    (lambda: layers.Conv2DTranspose(3, 2), IMAGE, "kernel", (2, 2, 3, 4), "kernel", (2,), (3,)),
    (lambda: layers.DepthwiseConv2D(2), IMAGE, "kernel", (2, 2, 4, 1), "kernel", (2, 3), (2,)),
    (lambda: layers.SeparableConv2D(3, 2), IMAGE, "depthwise_kernel", (2, 2, 4, 1), "kernel", (2, 3), (2,)),
    (lambda: layers.SeparableConv2D(3, 2), IMAGE, "pointwise_kernel", (1, 1, 4, 3), "kernel", (3,), (2,)),
    (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3)), SERIES, "kernel", (4, 2, 3), "kernel", (1, 2), (0,)),
    (lambda: layers.EinsumDense("...x,xy->...y", 3, bias_axes="y"), SERIES, "kernel", (4, 3), "kernel", (1,), (0,)),
    (lambda: layers.LSTM(3), SERIES, "recurrent_kernel", (3, 12), "kernel", (1,), (0,)),
    (lambda: layers.GRU(3), SERIES, "bias", (2, 9), "bias", (1,), None),
    (lambda: layers.ConvLSTM1D(3, 2), (5, 6, 4), "kernel", (2, 4, 12), "kernel", (2,), (1,)),
    (layers.BatchNormalization, IMAGE, "gamma", (4,), "scale", (0,), None),
    (layers.BatchNormalization, IMAGE, "moving_variance", (4,), "buffer", None, None),
    (layers.LayerNormalization, SERIES, "beta", (4,), "bias", (0,), None),
    (lambda: layers.GroupNormalization(2), IMAGE, "gamma", (4,), "scale", (0,), None),
    (layers.RMSNormalization, SERIES, "scale", (4,), "scale", (0,), None),
    (layers.PReLU, SERIES, "alpha", (6, 4), "other", (0, 1), None),
    (lambda: layers.Embedding(7, 3), SERIES, "embeddings", (7, 3), "embedding", (0,), (1,)),
    (
        lambda: layers.ReversibleEmbedding(7, 3, tie_weights=False),
        (6,),
        "reverse_embeddings",
        (3, 7),
        "kernel",
        (1,),
        (0,),
    ),
    (layers.Normalization, SERIES, "mean", (4,), "buffer", None, None),
]


@pytest.mark.parametrize("row", WEIGHTS)
def test_what_a_weight_is(row, unfilled):
    make, given, weight, *expected = row
    layer = make()
    layer.build((None, *given))
    (param,) = (item.param for item in walk(layer) if item.param.name.rpartition(".")[2] == weight)
    assert [param.shape, param.role, param.out_axes, param.in_axes] == expected
    assert param.trainable == (param.role != "buffer")


def test_heads_of_attention(unfilled):
    layer = layers.MultiHeadAttention(2, 3)
    layer.build((None, 6, 4), (None, 6, 4))
    axes = {item.param.name: (item.param.out_axes, item.param.in_axes) for item in walk(layer)}
    assert axes["query.kernel"] == ((1, 2), (0,))
    assert axes["attention_output.kernel"] == ((2,), (0, 1))


class Mixed(layers.Layer):
    def build(self, shape):
        self.g = self.add_weight(shape=(shape[-1],), name="g")
        self.pos_embedding = self.add_weight(shape=(5, shape[-1]), name="pos_embedding")
        self.cls_token = self.add_weight(shape=(1, 1, shape[-1]), name="cls_token")
        self.mix = self.add_weight(shape=(shape[-1], 2), name="mix")


def test_layers_of_ones_own_go_by_weight_name_and_shape(unfilled):
    layer = Mixed()
    layer.build((None, 4))
    roles = {item.param.name: item.param.role for item in walk(layer)}
    assert roles == {"g": "scale", "pos_embedding": "embedding", "cls_token": "other", "mix": "kernel"}


def test_frozen_layers_are_told_apart():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, trainable=False), layers.Dense(2)])
    assert [item.param.trainable for item in walk(model)] == [False, False, True, True]
    assert [*nk.norms(model)] == ["dense_1.kernel", "dense_1.bias"]


# --- norms and explain ----------------------------------------------------------------------------------------------


def test_norms_agree_with_numpy():
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(5, 2)])
    kernel = np.array(keras.ops.convert_to_numpy(model.weights[0].value), np.float64)
    assert nk.norms(model, "l1", select="kernel")["conv2d.kernel"] == pytest.approx(np.abs(kernel).sum(), rel=1e-12)
    per_filter = nk.norms(model, "l2", per="out", select="kernel")["conv2d.kernel"]
    np.testing.assert_allclose(per_filter, np.sqrt((kernel**2).sum((0, 1, 2))), rtol=1e-12)
    per_channel = nk.norms(model, per="in", select="kernel")["conv2d.kernel"]
    np.testing.assert_allclose(per_channel, np.sqrt((kernel**2).sum((0, 1, 3))), rtol=1e-12)
    largest = np.linalg.svd(kernel.reshape(-1, 5), compute_uv=False)[0]
    assert nk.norms(model, "spectral")["conv2d.kernel"] == pytest.approx(largest, rel=1e-6)


def test_explain_says_why():
    text = str(nk.explain(keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.BatchNormalization()]), "all"))
    assert "layer Dense" in text
    assert "not trainable" in text


class Foreign:
    __module__ = "tf_keras.src.models"


MISTAKES = [
    (lambda: nk.norms(keras.Sequential), ArgumentError, r"^model=Sequential is a class; give an instance"),
    (lambda: nk.norms("l2"), ArgumentError, r"^model='l2': the model comes first: nk.norms\(model, 'l2'\)$"),
    (lambda: nk.norms([1.0]), ArgumentError, r"^model=list: expected a keras.Model, as in nk.norms\(model\)$"),
    (lambda: nk.explain(None), ArgumentError, r"^model=None: expected a keras.Model"),
    (lambda: nk.norms(Foreign()), ArgumentError, r"^model=Foreign is of tf_keras \(Keras 2\).*normkit.tensorflow"),
    (lambda: nk.norms(keras.Sequential([layers.Dense(2)])), ModelError, r"^Sequential has no weights yet: build it"),
    (lambda: nk.norms(inner("x"), select="fcc"), ArgumentError, r"fcc"),
    (lambda: nk.norms(inner("x"), 2), ArgumentError, r"^kind is 2, and such a number means different norms"),
]


@pytest.mark.parametrize(("mistake", "kind", "sentence"), MISTAKES)
def test_mistakes(mistake, kind, sentence):
    with pytest.raises(kind, match=sentence):
        mistake()
