"""What penalize, decay and constrain must give, in float64 NumPy, written apart from the rooms.

Terms, each without its coefficient, and the gradient of each:
    penalty_l1(w)             gradient_l1(w)
    penalty_l2(w)             gradient_l2(w)                    1/2 sum w^2, so the gradient is w
    penalty_group(w, kept)    gradient_group(w, kept)           `kept`: a tuple of axes from 0; () is the whole tensor
    penalty_toward(w, ref)    gradient_toward(w, ref)
    penalty_orthogonality(w, kept)    gradient_orthogonality(w, kept)
    penalty_spectral(w, kept)         gradient_spectral(w, kept)      exact, by SVD
Steps that make zeros:        soft_threshold(w, threshold)      group_threshold(w, threshold, kept)
Constraints, without the room's margins:
    max_norm(w, limit, kept)  unit_norm(w, kept)  min_max_norm(w, (lo, hi), kept)  hold(w, target, kept)
    spectral_cap(w, limit, kept)      sigmas(w, kept): the singular values of the layer's matrix
Decay:
    shrunk(w, kind, weight_decay, lr=, lr_ref=, factor=, update=, reference=, length=, kept=)    one step without update
    trajectory(kind, optimizer=, steps=, ...)    [steps + 1, *shape]: the weights from `START` on
        optimizer: sgd, momentum, nesterov, adam (as torch and optax have them); keras_momentum, keras_adam (as Keras)
        kind: None (no decay), l2, decoupled, independent, corrected, cautious, toward
        lr, factor: a number or step -> number, steps from 0; `rate` and `fading` are such
        penalty: w -> what is added to the gradient; after: (w, lr) -> w, applied after each step
The problem, small enough for a Dense layer's kernel of 4 by 3, exact in float32 and far from a fixed point:
    loss = 1/2 sum CURVE (w - GOAL)^2        loss_gradient(w) = CURVE (w - GOAL)        START, CURVE, GOAL
"""

from __future__ import annotations

import numpy as np

START = np.array([[1.5, -0.5, 0.25], [-2.0, 0.75, 1.0], [0.5, 1.25, -1.0], [0.125, -0.25, 2.0]])
CURVE = np.array([[1.0, 0.5, 2.0], [0.25, 1.5, 1.0], [0.75, 1.0, 0.5], [2.0, 1.25, 0.125]])
GOAL = np.array([[0.5, -1.0, 0.75], [-1.5, -0.25, 0.5], [1.0, 0.25, -0.125], [-0.5, 0.5, 1.25]])

WEIGHT_DECAY, MOMENTUM, BETAS, EPS = 0.3, 0.9, (0.9, 0.99), 1e-8


def loss_gradient(w):
    return CURVE * (w - GOAL)


def rate(step):
    """A learning rate that falls from its highest, 0.1, at once; for traced steps too."""
    return 0.1 / (1 + 0.125 * step)


def fading(step):
    """A schedule's factor on the coefficient: 1 at step 0, towards a half."""
    return 0.5 + 0.5 / (1 + step)


# -- lengths and matrices -----------------------------------------------------------------------------------------


def wide(w):
    return np.asarray(w).astype(np.float64)


def others(w, kept):
    return tuple(axis for axis in range(np.ndim(w)) if axis not in kept)


def lengths(w, kept=()):
    """[size of each kept axis, 1 for the others]"""
    top = np.abs(wide(w)).max(axis=others(w, kept), keepdims=True, initial=0.0)
    top = np.where(top > 0, top, 1.0)
    return top * np.sqrt(np.sum((wide(w) / top) ** 2, axis=others(w, kept), keepdims=True))


def entries(w, kept):
    """How many share a group."""
    return int(np.prod([np.shape(w)[axis] for axis in others(w, kept)], dtype=int))


def matrix(w, kept=(0,)):
    """The layer's: a row for each index of the kept axes."""
    rows = int(np.prod([np.shape(w)[axis] for axis in kept], dtype=int))
    return np.transpose(wide(w), (*kept, *others(w, kept))).reshape(rows, entries(w, kept))


def unmatrix(m, shape, kept=(0,)):
    order = (*kept, *(axis for axis in range(len(shape)) if axis not in kept))
    return m.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def sigmas(w, kept=(0,)):
    return np.linalg.svd(matrix(w, kept), compute_uv=False)


# -- terms --------------------------------------------------------------------------------------------------------


def penalty_l1(w):
    return np.sum(np.abs(wide(w)))


def gradient_l1(w):
    return np.sign(wide(w))


def penalty_l2(w):
    return 0.5 * np.sum(wide(w) ** 2)


def gradient_l2(w):
    return wide(w)


def penalty_group(w, kept=(0,)):
    return np.sqrt(entries(w, kept)) * np.sum(lengths(w, kept))


def gradient_group(w, kept=(0,)):
    size = lengths(w, kept)
    return np.sqrt(entries(w, kept)) * wide(w) / np.where(size > 0, size, 1.0)


def penalty_toward(w, reference):
    return 0.5 * np.sum((wide(w) - wide(reference)) ** 2)


def gradient_toward(w, reference):
    return wide(w) - wide(reference)


def _off(m):
    """The smaller of W W' - 1 and W'W - 1, and whether it is the first."""
    product = m @ m.T if (left := m.shape[0] <= m.shape[1]) else m.T @ m
    return product - np.eye(len(product)), left


def penalty_orthogonality(w, kept=(0,)):
    return np.sum(_off(matrix(w, kept))[0] ** 2)


def gradient_orthogonality(w, kept=(0,)):
    m = matrix(w, kept)
    off, left = _off(m)
    return unmatrix(4 * (off @ m if left else m @ off), np.shape(w), kept)


def penalty_spectral(w, kept=(0,)):
    return 0.5 * sigmas(w, kept).max(initial=0.0) ** 2


def gradient_spectral(w, kept=(0,)):
    u, s, v = np.linalg.svd(matrix(w, kept), full_matrices=False)
    return unmatrix(s[0] * np.outer(u[:, 0], v[0]), np.shape(w), kept)


# -- steps that make zeros ----------------------------------------------------------------------------------------


def soft_threshold(w, threshold):
    return np.sign(wide(w)) * np.maximum(np.abs(wide(w)) - threshold, 0)


def group_threshold(w, threshold, kept=(0,)):
    size, reach = lengths(w, kept), threshold * np.sqrt(entries(w, kept))
    return wide(w) * np.maximum(0, 1 - reach / np.where(size > 0, size, np.inf))


# -- constraints --------------------------------------------------------------------------------------------------


def max_norm(w, limit, kept=(0,)):
    size = lengths(w, kept)
    return np.where(size > limit, wide(w) * (limit / np.where(size > 0, size, 1.0)), wide(w))


def min_max_norm(w, limits, kept=(0,)):
    size = lengths(w, kept)
    return wide(w) * np.where(size > 0, np.clip(size, *limits) / np.where(size > 0, size, 1.0), 0)


def hold(w, target, kept=(0,)):
    size = lengths(w, kept)
    return wide(w) * np.where(size > 0, target / np.where(size > 0, size, 1.0), 0)


def unit_norm(w, kept=(0,)):
    return hold(w, 1.0, kept)


def spectral_cap(w, limit, kept=(0,)):
    u, s, v = np.linalg.svd(matrix(w, kept), full_matrices=False)
    return unmatrix(u * np.minimum(s, limit) @ v, np.shape(w), kept)


# -- decay --------------------------------------------------------------------------------------------------------


def shrunk(
    w,
    kind,
    weight_decay,
    *,
    lr,
    lr_ref=None,
    factor=1.0,
    update=None,
    reference=None,
    length=None,
    kept=(),
):
    """The weight after the decay of one step; for "cautious", `update` is what the optimizer will add."""
    w = wide(w)
    if kind in (None, "l2"):
        return w
    times = {"independent": lr / (lr_ref or lr), "corrected": lr * lr / (lr_ref or lr)}.get(kind, lr)
    taken = times * weight_decay * factor
    if kind == "toward":
        return w - taken * (w - _aim(w, length, reference, kept))
    assert kind in ("decoupled", "independent", "corrected", "cautious"), kind
    return w - taken * w * (wide(update) * w <= 0) if kind == "cautious" else w - taken * w


def _aim(w, length, reference, kept):
    """What a weight is pulled toward: the reference, or itself with the length."""
    if length is None:
        return wide(reference)
    size = lengths(w, kept)
    return w * np.where(size > 0, length / np.where(size > 0, size, 1.0), 1.0)


class _Moved:
    """What an optimizer adds to a weight, from the gradients so far."""

    def __init__(self, optimizer, momentum=MOMENTUM, betas=BETAS, eps=EPS):
        self.optimizer, self.mu, self.betas, self.eps = optimizer, momentum, betas, eps
        self.first, self.second, self.count = 0.0, 0.0, 0

    def __call__(self, g, lr):
        self.count += 1
        if self.optimizer == "sgd":
            return -lr * g
        if self.optimizer == "keras_momentum":  # the rate goes into the memory
            self.first = self.mu * self.first - lr * g
            return self.first
        if self.optimizer in ("momentum", "nesterov"):
            self.first = self.mu * self.first + g
            return -lr * (g + self.mu * self.first if self.optimizer == "nesterov" else self.first)
        assert self.optimizer in ("adam", "keras_adam"), self.optimizer
        b1, b2 = self.betas
        self.first = b1 * self.first + (1 - b1) * g
        self.second = b2 * self.second + (1 - b2) * g * g
        left1, left2 = 1 - b1**self.count, np.sqrt(1 - b2**self.count)
        if self.optimizer == "adam":
            return -lr * (self.first / left1) / (np.sqrt(self.second) / left2 + self.eps)
        return -lr * left2 / left1 * self.first / (np.sqrt(self.second) + self.eps)


def trajectory(
    kind,
    optimizer="sgd",
    steps=10,
    *,
    weight_decay=WEIGHT_DECAY,
    lr=rate,
    factor=None,
    lr_ref=None,
    reference=None,
    length=None,
    kept=(),
    momentum=MOMENTUM,
    betas=BETAS,
    eps=EPS,
    start=START,
    gradient=loss_gradient,
    penalty=None,
    after=None,
):
    """[steps + 1, *shape]; `lr_ref` is the rate of step 0 and `reference` the start unless they are given."""
    lr_at = lr if callable(lr) else lambda step: lr
    factor_at = factor if callable(factor) else lambda step: 1.0 if factor is None else factor
    moved, w = _Moved(optimizer, momentum, betas, eps), wide(start)
    path = [w]
    for step in range(steps):
        now, times = lr_at(step), factor_at(step)
        g = gradient(w)
        if penalty is not None:
            g = g + penalty(w)
        if kind == "l2":
            g = g + weight_decay * times * w
        update = moved(g, now)
        left = shrunk(
            w,
            kind,
            weight_decay,
            lr=now,
            lr_ref=lr_at(0) if lr_ref is None else lr_ref,
            factor=times,
            update=update,
            reference=start if reference is None else reference,
            length=length,
            kept=kept,
        )
        w = left + update
        if after is not None:
            w = after(w, now)
        path.append(w)
    return np.array(path)
