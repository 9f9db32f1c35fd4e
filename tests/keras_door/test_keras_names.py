"""Names that the user gave stay, though they look like Keras' own; those are numbered anew for each build."""

import keras
import pytest
from keras import layers

import normkit.keras as nk
from normkit.keras.walk import walk

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own, with numpy 2


@pytest.fixture(autouse=True)
def unfilled():
    """Variables are made and not filled, which on JAX takes a compilation each."""
    with keras.StatelessScope():
        yield
        keras.src.backend.common.global_state.set_global_attribute("uninitialized_variables", [])


def numbered_by_hand():
    """As many do; Keras gives a third the same name, where it may."""
    block = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(4, name="query")], name="block")
    ours = [layers.Dense(4, name="dense_1"), layers.Dense(4, name="dense_2"), layers.Dense(4, name="predictions")]
    return keras.Sequential([keras.Input((4,)), *ours, block])


def test_names_numbered_by_hand_are_the_same_in_each_build():
    for _ in range(2):
        assert first_names(numbered_by_hand()) == ["dense_1", "dense_2", "predictions", "block.dense", "block.query"]


def first_names(model):
    return [item.param.name.removesuffix(".kernel") for item in walk(model) if item.param.role == "kernel"]


def test_a_name_that_the_user_gave_stays():
    """Whether it stands in the program, or is put together before Keras has come so far; and it stays in a copy."""

    class Fresh(layers.Dense):
        """Keras has not counted any yet."""

    model = keras.Sequential([keras.Input((4,)), *(Fresh(4, name=f"fresh_{i + 1}") for i in range(2))])
    assert first_names(model) == ["fresh_1", "fresh_2"]
    _ = [Fresh(4) for _ in range(3)]
    assert first_names(model) == ["fresh_1", "fresh_2"]
    literal = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense_1"), layers.Dense(4, name="dense_2")])
    assert first_names(literal) == ["dense_1", "dense_2"]
    assert first_names(keras.models.clone_model(literal)) == ["dense_1", "dense_2"]
    assert list(nk.norms(literal, select="dense_1.kernel")) == ["dense_1.kernel"]


def test_who_gave_a_name_is_first_to_have_it():
    class Both(keras.Model):
        def __init__(self):
            super().__init__()
            self.several = [layers.Dense(4), layers.Dense(4), layers.Dense(4, name="dense_1")]

        def build(self, shape):
            for layer in self.several:
                layer.build(shape)

    for _ in range(2):
        model = Both()
        model.build((None, 4))
        assert first_names(model) == ["dense", "dense_1~2", "dense_1"]
