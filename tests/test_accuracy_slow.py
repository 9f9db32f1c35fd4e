"""Large arrays: where float32 accumulation elsewhere is wrong by a percent or ten, the sums here are right to 1e-12."""

from __future__ import annotations

import math

import numpy as np
import pytest

import reference
from normkit.norms import norm

pytestmark = pytest.mark.slow


def oracle(x, step=2**22):
    """l1, l2 and mean of a large array, piece by piece in extended precision."""
    total = length = square = np.longdouble(0)
    for start in range(0, x.size, step):
        piece = x[start : start + step].astype(np.float64)
        total += np.sum(piece, dtype=np.longdouble)
        length += np.sum(np.abs(piece), dtype=np.longdouble)
        square += np.sum(np.square(piece), dtype=np.longdouble)
    return float(length), math.sqrt(square), float(total / x.size)


@pytest.mark.parametrize("shape", ["normal", "constant", "heavy-tailed"])
@pytest.mark.parametrize("length", [17_000_000, 130_000_000])
def test_accuracy_up_to_130_million(shape, length):
    rng = np.random.default_rng(length)
    x = np.full(length, 0.1, np.float32) if shape == "constant" else rng.standard_normal(length, dtype=np.float32)
    if shape == "heavy-tailed":
        x **= 5
    l1, l2, mean = oracle(x)
    reference.assert_close(norm(x, "l1"), l1, 1e-12 * l1, "l1")
    reference.assert_close(norm(x, "l2"), l2, 1e-12 * l2, "l2")
    reference.assert_close(norm(x, "mean"), mean, 1e-12 * l2 / math.sqrt(length), "mean")


def test_the_embedding_of_a_large_language_model():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    generator = torch.Generator().manual_seed(0)
    w = torch.empty(128_256, 4096).normal_(generator=generator)
    _, l2, _ = oracle(w.numpy().reshape(-1))
    theirs = float(torch.linalg.vector_norm(w))
    assert abs(norm(w) / l2 - 1) < 1e-11
    assert abs(theirs / l2 - 1) > 0.05, "torch is right here now: the README and this test may say so"
