"""`nk.decay` around optax: every kind's trajectory against plain NumPy, Adam with it against AdamW."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import pulled

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp

import normkit.jax as nk
from jax_quickly import quickly  # noqa: F401  # for the whole file

STEPS = 10
REFERENCE = pulled.START + 0.5
KINDS = {
    "l2": {},
    "decoupled": {},
    "independent": {},
    "corrected": {"lr_ref": 0.2},
    "cautious": {},
    "toward": {"reference": "initial"},
    "toward a tree": {"reference": REFERENCE},
    "toward a length": {"length": 2.0, "per": "out"},
    "toward its length": {"length": "initial"},
}
OPTIMIZERS = {
    "sgd": optax.sgd,
    "adam": lambda lr: optax.adam(lr, *pulled.BETAS, eps=pulled.EPS),
}


def decaying(kind, optimizer, lr=pulled.rate, schedule=pulled.fading, weight_decay=pulled.WEIGHT_DECAY):
    more = dict(KINDS[kind])
    if kind == "toward a tree":
        more["reference"] = {"kernel": REFERENCE}
    tx = optimizer if not callable(optimizer) else optimizer(lr)
    return nk.decay(tx, weight_decay, learning_rate=lr, kind=kind.split()[0], schedule=schedule, **more)


def expected(kind, optimizer):
    initial = {"reference": pulled.START, "length": pulled.lengths(pulled.START)}
    more = {
        key: initial[key] if isinstance(value, str) else value for key, value in KINDS[kind].items() if key != "per"
    }
    kept = (1,) if "per" in KINDS[kind] else ()
    return pulled.trajectory(kind.split()[0], optimizer, STEPS, factor=pulled.fading, kept=kept, **more)


def gradient(params):
    return {"kernel": jnp.asarray(pulled.CURVE) * (params["kernel"] - jnp.asarray(pulled.GOAL))}


def steps(optimizer, params, count=STEPS):
    """[count + 1, ..] the kernel from step to step, in one scan."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["kernel"]

    path = jax.lax.scan(step, (params, optimizer.init(params)), length=count)[1]
    return jnp.concatenate([params["kernel"][None], path])


@cache
def paths(dtype):
    """All of them in one compiled function; in float32 with Adam alone."""
    optimizers = list(OPTIMIZERS.items())[-1 if dtype == "float32" else 0 :]
    with jax.enable_x64(dtype == "float64"):
        start = {"kernel": jnp.asarray(pulled.START, dtype)}
        run = jax.jit(
            lambda: {
                (kind, name): steps(decaying(kind, optimizer), start)
                for kind in KINDS
                for name, optimizer in optimizers
            },
        )
        return jax.tree.map(np.asarray, run())


@pytest.mark.parametrize(
    ("dtype", "close"), [("float64", 1e-12), pytest.param("float32", 1e-6, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_trajectories(kind, dtype, close):
    for optimizer in OPTIMIZERS if dtype == "float64" else ["adam"]:
        path = paths(dtype)[kind, optimizer]
        assert path.dtype == dtype
        np.testing.assert_allclose(path, expected(kind, optimizer), rtol=0, atol=close * 3)
        assert np.abs(path[-1] - pulled.trajectory(None, optimizer, STEPS)[-1]).max() > 1e-3


def test_decoupled_adam_is_adamw_and_not_coupled_adam():
    with jax.enable_x64(True):
        start = {"kernel": jnp.asarray(pulled.START)}

        @jax.jit
        def run():
            adam = optax.adam(0.02)
            ours = steps(nk.decay(adam, 0.5, learning_rate=0.02), start, 50)
            theirs = steps(optax.adamw(0.02, weight_decay=0.5), start, 50)
            return ours, theirs, steps(nk.decay(adam, 0.5, kind="l2"), start, 50)

        ours, theirs, coupled = run()
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
        assert np.abs(ours[-1] - coupled[-1]).max() > 0.1


def test_the_table_of_the_notebook():
    """4 digits printed by torch: three rows of x times a 4 x 5 weight, the sum as loss, lr 0.1; a row is cut off."""
    rng = np.random.RandomState(123)
    x, start = rng.random_sample((3, 4)), rng.random_sample((4, 5))
    first = """0.4386 0.0597 0.3980 0.7380 0.1825   0.1755 0.5316 0.5318 0.6344 0.8494
               0.7245 0.6110 0.7224 0.3230 0.3618   0.2283 0.2937 0.6310 0.0921 0.4337"""
    np.testing.assert_array_equal(start.ravel().round(4), np.array(first.split(), float))
    rows = {
        0: """0.2489 -0.1300 0.2084 0.5483 -0.0072   0.0653 0.4214 0.4217 0.5243 0.7393
              0.5694 0.4559 0.5674 0.1679 0.2067     0.0317 0.0972 0.4345 -0.1044 0.2372""",
        1: """0.2050 -0.1360 0.1686 0.4745 -0.0254   0.0478 0.3683 0.3685 0.4608 0.6544
              0.4969 0.3948 0.4951 0.1356 0.1705""",
    }
    with jax.enable_x64(True):
        params = {"weights": jnp.asarray(start)}
        grads = jax.grad(lambda p: jnp.sum(jnp.asarray(x) @ p["weights"]))(params)

        def stepped(kind, weight_decay):
            optimizer = nk.decay(optax.sgd(0.1), weight_decay, learning_rate=0.1, kind=kind, select="all")
            updates, _ = optimizer.update(grads, optimizer.init(params), params)
            return np.asarray(optax.apply_updates(params, updates)["weights"])

        for weight_decay, text in rows.items():
            printed = np.array(text.split(), float)
            np.testing.assert_array_equal(stepped("l2", weight_decay).ravel()[: len(printed)].round(4), printed)
        own = start - 0.1 * np.asarray(grads["weights"]) - 0.3 * start  # the notebook's formula, with 0.3
        np.testing.assert_allclose(stepped("independent", 0.3), own, rtol=1e-14)
