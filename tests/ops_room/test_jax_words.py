"""float64 numbers that leave a function compiled without x64 as pairs of words."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from normkit.ops.jax import traced_step_sums
from normkit.ops.jax_words import as_words, from_words

NUMBERS = [0.1, -0.0, 5e-324, 1e308, -np.inf, np.nan, 1 + 2**-52, 1 / 3]


def test_every_bit_comes_back():
    import jax.numpy as jnp

    def words():
        with jax.enable_x64(True):
            return as_words([jnp.asarray(NUMBERS[:6]).reshape(2, 3), jnp.asarray(NUMBERS[6:]).reshape(1, 2)])

    assert not jax.config.jax_enable_x64
    packed = jax.jit(words)()
    assert (packed.dtype.name, packed.shape) == ("uint32", (8, 2))
    assert from_words(np.asarray(packed)).tobytes() == np.array(NUMBERS).tobytes()


def test_words_of_several_rows_are_read_at_once():
    rows = np.array([NUMBERS, NUMBERS[::-1]])
    assert from_words(rows.view(np.uint32).reshape(2, 8, 2)).tobytes() == rows.tobytes()


def test_an_update_is_a_float64_difference():
    new, old = np.float32([1 + 2**-20, 3]), np.float32([2**-30, 3])
    words = jax.jit(lambda new, old: as_words(traced_step_sums([new], [old])))(new, old)
    difference = new.astype(np.float64) - old
    assert from_words(np.asarray(words))[6] == difference.sum()
    assert difference.astype(np.float32).sum() != difference.sum()
