"""The float64 oracle of weight normalization: the formula by loops over groups, and a training worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np


def groups(shape, kept):
    """An index for each group of entries: one per combination of the kept axes."""
    ranges = [range(size) if axis in kept else [slice(None)] for axis, size in enumerate(shape)]
    return itertools.product(*ranges)


def lengths(v, kept, p=2):
    """|v|_p of each group, with size 1 along the axes that are not kept."""
    v = np.asarray(v, np.float64)
    found = np.zeros([size if axis in kept else 1 for axis, size in enumerate(v.shape)])
    for index in groups(v.shape, kept):
        entries = np.abs(v[index]).ravel()
        top = entries.max(initial=0.0)
        length = top if top == 0 or p == math.inf else top * math.fsum((entries / top) ** p) ** (1 / p)
        found[tuple(0 if isinstance(each, slice) else each for each in index)] = length
    return found


def weight(v, g, kept, p=2):
    """w = g v / |v|, 0 for a zero group."""
    v, g = np.asarray(v, np.float64), np.asarray(g, np.float64)
    length = lengths(v, kept, p)
    return np.where(length == 0, 0.0, v / np.where(length == 0, 1.0, length)) * g


def gradients(grad_w, v, g, kept):
    """dL/dv and dL/dg, group by group; where v is zero, those of w = g v."""
    grad_w, v, g = (np.asarray(x, np.float64) for x in (grad_w, v, g))
    length = lengths(v, kept)
    length = np.where(length == 0, 1.0, length)
    others = tuple(axis for axis in range(v.ndim) if axis not in kept)
    grad_g = (grad_w * v).sum(axis=others, keepdims=True) / length
    return g / length * grad_w - g * grad_g / length**2 * v, grad_g


# --- a training of two layers, known to the last digit ------------------------------------------------------------

SIZES, ROWS, RATE, STEPS = (4, 6, 3), 16, 0.1, 100


def start():
    """Inputs, targets, and the weights [out][in] and biases of both layers."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(ROWS, SIZES[0])), rng.normal(size=(ROWS, SIZES[-1]))
    layers = [(rng.normal(size=(o, i)) / np.sqrt(i), rng.normal(size=o) / 4) for i, o in itertools.pairwise(SIZES)]
    return x, y, layers


def trained(steps=STEPS, rate=RATE):
    """After `steps` of SGD on the mean squared error of tanh(x W1' + b1) W2' + b2: (v, g, b) of both layers."""
    x, y, layers = start()
    parts = [[w.copy(), lengths(w, (0,)), b.copy()] for w, b in layers]
    for _ in range(steps):
        w1, w2 = (weight(v, g, (0,)) for v, g, _ in parts)
        hidden = np.tanh(x @ w1.T + parts[0][2])
        away = 2 * (hidden @ w2.T + parts[1][2] - y) / y.size
        back = (away @ w2) * (1 - hidden**2)
        for part, grad_out, given in ((parts[0], back, x), (parts[1], away, hidden)):
            grad_v, grad_g = gradients(grad_out.T @ given, part[0], part[1], (0,))
            part[0] -= rate * grad_v
            part[1] -= rate * grad_g
            part[2] -= rate * grad_out.sum(axis=0)
    return [tuple(part) for part in parts]
