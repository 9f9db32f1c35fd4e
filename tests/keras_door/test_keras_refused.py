"""What cannot be normalized is refused in a sentence, and left as it was."""

import re

import keras
import numpy as np
import pytest

import normkit.keras as nk
from keras_normal import Own, array, inputs
from normkit.errors import ArgumentError, ModelError

layers = keras.layers


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
        "Own does not say which axes of matrix of shape .* give the",
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


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method")  # Keras' own
@pytest.mark.parametrize(
    ("later", "done"),
    [(lambda layer: layer.quantize("int8"), "quantized"), (lambda layer: layer.enable_lora(2), "adapted by LoRA")],
)
def test_nothing_else_takes_the_place_of_the_weight_later(later, done):
    wrapper = nk.WeightNorm(layers.Dense(3, name="dense"))
    given = inputs(4, 5)
    before = array(wrapper(given))
    said = f"Dense dense has normalized weights and cannot be {done}: make it plain first, by nk.remove_weight_norm"
    with pytest.raises(NotImplementedError, match=re.escape(said)):
        later(wrapper.layer)
    model = keras.Sequential([keras.Input((5,)), wrapper])
    with pytest.warns(UserWarning, match="Dense dense has normalized weights and cannot be quantized"):
        model.quantize("int8")
    assert [each.name for each in wrapper.weights] == ["kernel_g", "kernel_v", "bias"]
    np.testing.assert_array_equal(array(model(given)), before)
    later(wrapper.fold())
