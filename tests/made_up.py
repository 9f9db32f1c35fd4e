"""Recordings made up from arrays: what the tests of `diagnose`, `report` and `cli` read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from normkit import diagnose
from normkit.errors import ArgumentError
from normkit.sums import from_matrix
from normkit.types import SUMS, Param, Reading

FORMULAS = {
    "l1": lambda s, n: s[1],
    "l2": lambda s, n: np.sqrt(s[2]),
    "linf": lambda s, n: s[3],
    "rms": lambda s, n: np.sqrt(s[2] / n),
    "mean": lambda s, n: s[0] / n,
    "std": lambda s, n: np.sqrt(np.maximum(s[2] / n - (s[0] / n) ** 2, 0)),
    "zeros": lambda s, n: s[4],
    "nonfinite": lambda s, n: s[5],
}


def sums_of(array, other=None):
    """The seven sums of one array, the last one its dot product with another; all NaN for None."""
    if array is None:
        return [np.nan] * 7
    with np.errstate(invalid="ignore"):
        w = np.asarray(array, dtype=np.float64).ravel()
        dot = np.nan if other is None else w @ np.asarray(other, dtype=np.float64).ravel()
        largest = np.abs(w).max() if w.size else 0.0
        return [w.sum(), np.abs(w).sum(), (w * w).sum(), largest, (w == 0).sum(), (~np.isfinite(w)).sum(), dot]


@dataclass
class MadeUp:
    """`weights[k][n]` is the array of tensor n at record k (None: not there); gradients and updates likewise."""

    params: list[Param]
    steps: np.ndarray
    weights: list[list]
    grads: list[list] = field(default_factory=list)
    updates: list[list] = field(default_factory=list)
    meta: dict = field(default_factory=dict)
    scalars: dict = field(default_factory=dict)
    path: Path = Path("runs/made-up.norms")
    taken: dict = field(default_factory=dict)

    @property
    def tensors(self):
        return [param.name for param in self.params]

    @property
    def walls(self):
        return 1.7e9 + np.asarray(self.steps, dtype=float)

    def all_sums(self, quantity):
        """[records][7][tensors], taken once: change the arrays before the first look."""
        if quantity not in self.taken:
            self.taken[quantity] = self._sums(quantity)
        return self.taken[quantity]

    def _sums(self, quantity):
        rows = {"weight": self.weights, "grad": self.grads, "update": self.updates}[quantity]
        out = np.full((len(self.steps), 7, len(self.params)), np.nan)
        for k, arrays in enumerate(rows):
            for n, array in enumerate(arrays):
                out[k, :, n] = sums_of(array, self.weights[k][n] if self.weights else None)
        return out

    def sums(self, name, quantity="weight"):
        return self.all_sums(quantity)[:, SUMS.index(name), :]

    def matrix(self, norm="l2", quantity="weight"):
        counts = np.array([max(param.count, 1) for param in self.params], dtype=float)
        with np.errstate(invalid="ignore"):
            return FORMULAS[norm](self.all_sums(quantity).transpose(1, 0, 2), counts)

    def at(self, step):
        (row,) = np.flatnonzero(np.asarray(self.steps) == step)
        quantities = ("weight", "grad", "update")
        matrices = {quantity: self.all_sums(quantity)[row] for quantity in quantities}
        stats = {word: from_matrix(matrix, [one.count for one in self.params]) for word, matrix in matrices.items()}
        return {
            name: {word: found[n] for word, found in stats.items() if found[n] is not None}
            for n, name in enumerate(self.tensors)
        }

    def scalar(self, name):
        if name not in self.scalars:
            raise ArgumentError(f"there is no scalar {name!r}")
        return np.asarray(self.scalars[name], dtype=float)

    def findings(self):
        return diagnose.findings(self)


def param(name, shape, role=None, layer="", **more):
    """A Param whose role follows from its name unless given."""
    guess = "bias" if name.endswith("bias") else "scale" if ("bn" in name or "ln" in name) else "kernel"
    return Param(name, tuple(shape), more.pop("dtype", "float32"), role or guess, layer=layer, **more)


def trained(params, steps, course, *, grad=1e-3, meta=None, scalars=None, **more):
    """Every tensor is random, times `course(name, t)` with t from 0 to 1; gradients are random of rms `grad`.

    `grad` may be a function of the name. The update is the difference to the record before.
    """
    rng = np.random.default_rng(0)
    steps = np.asarray(steps, dtype=np.int64)
    bases = [rng.normal(size=one.shape) for one in params]
    size = grad if callable(grad) else lambda name: grad
    span = max(int(steps[-1]), 1) if len(steps) else 1
    weights = [
        [course(one.name, step / span) * base for one, base in zip(params, bases, strict=True)] for step in steps
    ]
    nothing = [None] * len(params)
    grads = [
        nothing if step == 0 else [size(one.name) * rng.normal(size=one.shape) for one in params] for step in steps
    ]
    updates = [
        nothing
        if k == 0
        else [np.asarray(new) - np.asarray(old) for new, old in zip(weights[k], weights[k - 1], strict=True)]
        for k in range(len(steps))
    ]
    meta = {
        "steps": int(steps[-1]) if len(steps) else 0,
        "finished": "2026-11-21T10:00:00+00:00",
        "end": "finished",
    } | (meta or {})
    return MadeUp(list(params), steps, weights, grads, updates, meta, scalars or {}, **more)


def digits(**more):
    """The small convolutional net of the demo, whose convolutions have a bias before a BatchNorm."""
    params = [
        param("conv1.weight", (16, 1, 3, 3), layer="Conv2d"),
        param("conv1.bias", (16,), layer="Conv2d"),
        param("bn1.weight", (16,), layer="BatchNorm2d"),
        param("bn1.bias", (16,), layer="BatchNorm2d"),
        param("conv2.weight", (32, 16, 3, 3), layer="Conv2d"),
        param("conv2.bias", (32,), layer="Conv2d"),
        param("bn2.weight", (32,), layer="BatchNorm2d"),
        param("bn2.bias", (32,), layer="BatchNorm2d"),
        param("fc1.weight", (64, 512), layer="Linear"),
        param("fc1.bias", (64,), layer="Linear"),
        param("fc2.weight", (10, 64), layer="Linear"),
        param("fc2.bias", (10,), layer="Linear"),
    ]

    def course(name, t):
        if name == "bn2.bias":
            return t
        return {"conv1.weight": 1 - 0.013 * t, "fc1.weight": 1 + 0.471 * t, "fc2.weight": 1 - 0.4 * t}.get(
            name, 1 + 0.01 * t
        )

    return trained(
        params,
        [0, *range(1, 11), *range(20, 921, 20)],
        course,
        grad=lambda name: 1e-8 if name in ("conv1.bias", "conv2.bias") else 6e-3,
        meta={
            "optimizers": [{"name": "AdamW", "groups": [{"lr": 0.001, "weight_decay": 0.01, "params": []}]}],
            "every": "auto: each of the first 10 steps, then every 20 steps",
        },
        **more,
    )


def transformer(blocks=24):
    """About 300 tensors: 12 to a block, a tied embedding, a last norm."""
    inner = {
        "ln_1.weight": (8,),
        "ln_1.bias": (8,),
        "attn.c_attn.weight": (24, 8),
        "attn.c_attn.bias": (24,),
        "attn.c_proj.weight": (8, 8),
        "attn.c_proj.bias": (8,),
        "ln_2.weight": (8,),
        "ln_2.bias": (8,),
        "mlp.c_fc.weight": (32, 8),
        "mlp.c_fc.bias": (32,),
        "mlp.c_proj.weight": (8, 32),
        "mlp.c_proj.bias": (8,),
    }
    params = [param("wte.weight", (50, 8), role="embedding", aliases=("lm_head.weight",), layer="Embedding")]
    params += [
        param(f"transformer.h.{n}.{name}", shape, layer="LayerNorm" if "ln_" in name else "Linear")
        for n in range(blocks)
        for name, shape in inner.items()
    ]
    params += [param("transformer.ln_f.weight", (8,)), param("transformer.ln_f.bias", (8,))]
    return trained(params, range(0, 101, 10), lambda name, t: 1 + t * (0.1 + 0.01 * (sum(map(ord, name)) % 7)))


def write(made, path):
    """The same recording as a file, by the store's own writer."""
    from normkit.store.writer import Writer

    writer = Writer(path, made.meta)
    layout = writer.layout(made.params)
    sums = {quantity: made.all_sums(quantity) for quantity in ("weight", "grad", "update")}
    for k, step in enumerate(made.steps):
        values = {"weight": sums["weight"][k, :6], "grad": sums["grad"][k], "update": sums["update"][k]}
        scalars = {name: float(values[k]) for name, values in made.scalars.items()}
        writer.put(Reading(int(step), layout, 1.7e9 + int(step), values, scalars=scalars))
    writer.close()
    assert writer.error is None
    return Path(path)
