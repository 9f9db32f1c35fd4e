"""`nk.proximal` around optax: zeros that are exact."""

from __future__ import annotations

import numpy as np
import pytest

import pulled

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp

import normkit.jax as nk
from jax_quickly import quickly  # noqa: F401  # for the whole file

OUT = (1,)  # the kept axis of `x @ kernel`


def numbers(seed=0):
    return np.random.default_rng(seed).standard_normal((6, 5))


KERNEL = numbers() * np.array([0.01, 0.3, 1.0, 3.0, 100.0])


def tree(kernel=KERNEL):
    return {"kernel": jnp.asarray(kernel, "float32"), "bias": jnp.full(5, 9.0)}


def test_steps():
    params, grads = tree(), tree(0.3 * numbers(seed=1))

    @jax.jit
    def run(params, grads):
        def path(**terms):
            optimizer, here = nk.proximal(optax.sgd(pulled.rate), learning_rate=pulled.rate, **terms), params
            state, kernels = optimizer.init(here), []
            for _ in range(3):
                updates, state = optimizer.update(grads, state, here)
                here = optax.apply_updates(here, updates)
                kernels.append(here["kernel"])
            return kernels

        return path(l1=4.0), path(l1=2.0, group=0.5)

    for kernels, (l1, group) in zip(run(params, grads), ((4.0, 0.0), (2.0, 0.5)), strict=True):
        w = pulled.wide(params["kernel"])
        for step, kernel in enumerate(kernels):
            lr = pulled.rate(step)
            w = pulled.soft_threshold(w - lr * pulled.wide(grads["kernel"]), lr * l1)
            w = pulled.group_threshold(w, lr * group, OUT)
            np.testing.assert_allclose(kernel, w, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(np.asarray(kernel) == 0, w == 0)
        assert (w == 0).any()
        assert not (w == 0).all()


def sparse_problem():
    """A regression on 20 columns of which 6 matter: the lasso leaves 14 out."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 20))
    true = np.zeros(20)
    true[:6] = rng.standard_normal(6) * 2 + np.sign(rng.standard_normal(6))
    return x, x @ true + 0.05 * rng.standard_normal(200)


def test_all_zeros_are_found_and_none_by_the_subgradient():
    x, y = sparse_problem()
    coefficient, lr = 0.1, 0.1

    @jax.jit
    def run():
        def loss(params):
            return 0.5 * jnp.mean((jnp.asarray(x) @ params["w"][:, 0] - jnp.asarray(y)) ** 2)

        def end(optimizer, loss):
            def step(carry, _):
                params, state = carry
                updates, state = optimizer.update(jax.grad(loss)(params), state, params)
                return (optax.apply_updates(params, updates), state), None

            params = {"w": jnp.ones((20, 1))}
            return jax.lax.scan(step, (params, optimizer.init(params)), length=500)[0][0]["w"][:, 0]

        def penalized(params):
            return loss(params) + nk.penalty(params, l1=coefficient)

        proximal = nk.proximal(optax.sgd(lr), l1=coefficient, learning_rate=lr)
        return end(proximal, loss), end(optax.sgd(lr), penalized), end(optax.adam(0.01), penalized)

    found, subgradient, adam = map(np.asarray, run())
    assert (found[6:] == 0).all()
    assert (found[:6] != 0).all()
    assert np.count_nonzero(subgradient == 0) == np.count_nonzero(adam == 0) == 0


def test_groups_of_weights_in_two_parts():
    parts = nk.weight_norm(tree())
    step = nk.proximal(optax.sgd(0.1), group=0.3, learning_rate=0.1)
    updates, _ = jax.jit(step.update)(jax.tree.map(np.zeros_like, parts), step.init(parts), parts)
    new = nk.materialize(optax.apply_updates(parts, updates))["kernel"]
    np.testing.assert_allclose(new, pulled.group_threshold(KERNEL, 0.03, OUT), rtol=1e-5, atol=1e-7)
    assert not new[:, 0].any()


@pytest.mark.slow
def test_the_fourteen_zeros_of_a_lasso_with_a_known_solution():
    """Orthogonal columns: the solution is the soft threshold of w*, drawn as torch draws it (its seed 0)."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    draw = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    for shape in ((12, 9), (12, 9), (9, 9)):  # of another problem, drawn before
        drawn(*shape)
    q = torch.linalg.qr(drawn(100, 40))[0].numpy()
    target, starts = drawn(40).numpy(), [drawn(40).numpy() for _ in range(3)]
    exact = pulled.soft_threshold(target, 0.5)
    with jax.enable_x64(True):

        def end(optimizer, start, l1=None):
            def loss(params):
                fit = 0.5 * jnp.sum((jnp.asarray(q) @ (params["w"][:, 0] - jnp.asarray(target))) ** 2)
                return fit if l1 is None else fit + nk.penalty(params, l1=l1)

            def step(carry, _):
                params, state = carry
                updates, state = optimizer.update(jax.grad(loss)(params), state, params)
                return (optax.apply_updates(params, updates), state), None

            params = {"w": jnp.asarray(start)[:, None]}
            carry = (params, optimizer.init(params))
            return np.asarray(jax.jit(lambda: jax.lax.scan(step, carry, length=4000)[0][0]["w"][:, 0])())

        subgradient = end(optax.sgd(0.05), starts[0], l1=0.5)
        found = end(nk.proximal(optax.sgd(0.05), l1=0.5, learning_rate=0.05), starts[1])
        adam = end(optax.adam(0.01), starts[2], l1=0.5)
    assert np.count_nonzero(exact == 0) == 14
    np.testing.assert_array_equal(found == 0, exact == 0)
    np.testing.assert_allclose(found, exact, rtol=1e-12)
    assert np.count_nonzero(subgradient == 0) == np.count_nonzero(adam == 0) == 0
