"""Every kind of decay on Keras optimizers: the oracle's trajectories through `fit` and `apply`; what outlives them."""

import keras
import numpy as np
import pytest

import normkit.keras as nk
import pulled
from keras_pulled import (
    OPTIMIZERS,
    Rate,
    applied,
    apply,
    array,
    assert_same,
    fading,
    fitted,
    floats,
    net,
    problem,
    trained,
    trajectory,
)
from keras_tiny import BACKEND, only_on, slow_on

layers = keras.layers


KINDS = {  # name of a weight -> how it is decayed, and what the oracle is told besides
    "l2": ({"kind": "l2"}, {}),
    "decoupled": ({"kind": "decoupled"}, {}),
    "independent": ({"kind": "independent"}, {}),
    "corrected": ({"kind": "corrected", "lr_ref": 0.2}, {"lr_ref": 0.2}),
    "cautious": ({"kind": "cautious"}, {}),
    "toward": ({"kind": "toward", "reference": "initial"}, {}),
    "length": ({"kind": "toward", "length": 1.0, "per": 1}, {"length": 1.0, "kept": (1,)}),
    "rows": (
        {"kind": "toward", "length": "initial", "per": 0},
        {"length": pulled.lengths(pulled.START, (0,)), "kept": (0,)},
    ),
}


def kind_of(name):
    return KINDS[name][0]["kind"]


def ruled(optimizer, model=None, names=tuple(KINDS), **keywords):
    for name in names:
        asked = KINDS[name][0]
        optimizer = nk.decay(optimizer, pulled.WEIGHT_DECAY, select=f"*.{name}", model=model, **asked, **keywords)
    return optimizer


def assert_as_the_oracle(paths, optimizer, *, rtol, **keywords):
    for name, path in paths.items():
        right = trajectory(kind_of(name), optimizer, len(path) - 1, **KINDS[name][1], **keywords)
        np.testing.assert_allclose(path, right, rtol=rtol, atol=rtol, err_msg=name)


FEW = [
    ("keras_adam", "float64", ["l2", "cautious", "corrected", "rows"]),  # compiled once more for each kind
    pytest.param("keras_momentum", "float32", list(KINDS), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("optimizer", "dtype", "names"), FEW)
def test_kinds_through_fit(optimizer, dtype, names):
    with floats(dtype):
        model, _ = problem(names)
        paths = fitted(model, ruled(OPTIMIZERS[optimizer](Rate()), names=names, schedule=fading))
    assert_as_the_oracle(paths, optimizer, rtol=1e-12 if dtype == "float64" else 1e-6, factor=pulled.fading)


WAYS = [(name, {}) for name in OPTIMIZERS] + [("keras_adam", {"run_eagerly": True})]
WAYS += [(name, {"jit_compile": True}) for name in OPTIMIZERS] * (BACKEND == "tensorflow")  # JAX does so by itself


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("optimizer", "way"), WAYS)
def test_all_kinds_every_way(optimizer, way, dtype):
    with floats(dtype):
        model, _ = problem(KINDS)
        paths = fitted(model, ruled(OPTIMIZERS[optimizer](Rate()), model), steps=8, **way)
    assert_as_the_oracle(paths, optimizer, rtol=1e-12 if dtype == "float64" else 2e-6)


@pytest.mark.parametrize(("dtype", "near"), [pytest.param("float32", 1e-6, marks=slow_on("jax")), ("float64", 1e-12)])
def test_each_kind_through_apply(dtype, near):
    with floats(dtype):
        model, layer = problem(KINDS)
        optimizer = ruled(keras.optimizers.SGD(0.1), model)
        found = applied(optimizer, [getattr(layer, name) for name in KINDS], pulled.loss_gradient)
    assert_as_the_oracle(dict(zip(KINDS, found, strict=True)), "sgd", rtol=near, lr=0.1)


@only_on("jax")
def test_a_stateless_loop_on_jax():
    import jax

    with floats("float64"):
        model, layer = problem(["decoupled"])
        optimizer = ruled_one = nk.decay(keras.optimizers.SGD(Rate()), pulled.WEIGHT_DECAY, model=model)
        optimizer.build(model.trainable_variables)

        @jax.jit
        def step(weights, state):
            return ruled_one.stateless_apply(state, [pulled.loss_gradient(weights[0])], weights)

        weights, state, path = [layer.decoupled.value], [v.value for v in optimizer.variables], [pulled.START]
        for _ in range(5):
            weights, state = step(weights, state)
            path.append(np.array(weights[0]))
    assert_as_the_oracle({"decoupled": np.array(path)}, "sgd", rtol=1e-12)


def test_the_notebook_with_weight_decay_0_and_1():
    """The 4x5 example: its printed digits, by the coupled decay that it ran; and the formula that it states."""
    rng = np.random.RandomState(123)
    x, w = rng.random_sample((3, 4)), rng.random_sample((4, 5))
    gradient = np.repeat(x.sum(0)[:, None], 5, axis=1)
    printed = {
        0: [[0.2489, -0.1300, 0.2084, 0.5483, -0.0072], [0.0653, 0.4214, 0.4217, 0.5243, 0.7393]],
        1: [[0.2050, -0.1360, 0.1686, 0.4745, -0.0254], [0.0478, 0.3683, 0.3685, 0.4608, 0.6544]],
    }
    with floats("float64"):
        for times, digits in printed.items():
            layer = layers.Dense(5, use_bias=False)
            layer.build((None, 4))
            for kind, right in (("l2", np.array(digits)), ("independent", None)):
                layer.kernel.assign(w)
                optimizer = nk.decay(keras.optimizers.SGD(0.1), times, kind=kind, model=layer)
                after = applied(optimizer, [layer.kernel], lambda _: gradient, 1)[0][1]
                formula = w - 0.1 * gradient - (0.1 if kind == "l2" else 1) * times * w
                np.testing.assert_allclose(after, formula, rtol=1e-14, atol=1e-15)
                if right is not None:
                    assert (after[:2].round(4) == right).all()


CLIPPED = [
    {"gradient_accumulation_steps": 2, "use_ema": True, "ema_overwrite_frequency": 2},
    {"global_clipnorm": 0.1, "loss_scale_factor": 128.0},
]


@pytest.mark.slow
@pytest.mark.parametrize("keywords", CLIPPED)
def test_decoupled_is_keras_own_with_its_exclusions(keywords):
    own = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.5, **keywords)
    own.exclude_from_weight_decay(var_names=["bias"])
    one = trained(net(), own, epochs=2)
    optimizer = nk.decay(keras.optimizers.SGD(0.1, momentum=0.9, **keywords), 0.5)
    assert_same(one, trained(net(), optimizer, epochs=2))
    assert int(array(optimizer.iterations)) == int(array(own.iterations))


@slow_on("jax")
def test_adamw_is_not_adam_with_coupled_decay():
    with floats("float64"):
        model, layer = problem(["l2", "decoupled"])
        optimizer = nk.decay(keras.optimizers.Adam(0.1), 2.0, kind="l2", select="*.l2", model=model)
        optimizer = nk.decay(optimizer, 2.0, select="*.decoupled", model=model)
        one, other = applied(optimizer, [layer.l2, layer.decoupled], pulled.loss_gradient, 8)
    assert abs(one[-1] - other[-1]).max() > 0.1


@pytest.mark.slow
def test_l2_is_a_penalty_before_clipping():
    one = net()
    nk.add_penalty(one, l2=0.5)
    trained(one, keras.optimizers.SGD(0.1, global_clipnorm=0.2))
    assert_same(one, trained(net(), nk.decay(keras.optimizers.SGD(0.1, global_clipnorm=0.2), 0.5, kind="l2")))


@pytest.mark.slow
def test_mixed_precision_is_wrapped_once_more_and_decays(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        own = keras.optimizers.SGD(0.1, weight_decay=0.5)
        own.exclude_from_weight_decay(var_names=["bias"])
        one, other = trained(net(), own), trained(net(), nk.decay(keras.optimizers.SGD(0.1), 0.5))
        assert_same(one, other)
        scaler = other.optimizer
        assert type(scaler).__name__ == "LossScaleOptimizer"
        assert nk.decay(scaler, 0.1, select=["bias", "head.bias"]) is scaler
        other.save(tmp_path / "m.keras")
        loaded = keras.saving.load_model(tmp_path / "m.keras").optimizer
        assert loaded.inner_optimizer.told == "decoupled 0.5, decoupled 0.1"
    finally:
        keras.config.set_dtype_policy(before)
    with pytest.warns(UserWarning, match="variables and this one 2, so its state is not loaded"):
        keras.saving.load_model(tmp_path / "m.keras")  # with another policy Keras puts no loss scaling around it
    around = nk.decay(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), 0.5)
    assert type(around.inner_optimizer) is nk.RuledOptimizer


@pytest.mark.slow
def test_several_optimizers_in_one():
    parts = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), {".*head.*": keras.optimizers.SGD(0.01)})
    optimizer = nk.decay(keras.optimizers.MultiOptimizer(parts), 0.5)
    model = net()
    before = [array(each) for each in model.trainable_variables]
    optimizer.build(model.trainable_variables)
    apply(optimizer, model.trainable_variables, [np.zeros_like(each) for each in before])
    for variable, old, left in zip(model.trainable_variables, before, (0.95, 1, 0.995, 1), strict=True):
        np.testing.assert_allclose(array(variable), left * old, rtol=1e-6)
