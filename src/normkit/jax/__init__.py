"""The JAX door: `import normkit.jax as nk`.

nk.record("runs/mine.norms", params=params)             a recorder, called after each step
nk.stats(params=new, grads=grads, updates=updates)      what to return from the jitted step: a few numbers per tensor
nk.norms(params, "l2")                                  a look right now: {name: value}
nk.explain(params, select=...)                          which tensors a rule takes, and why

nk.weight_norm(params, select, per)                     the tree with weights in two parts, g and v, both trained
nk.materialize(params)                                  the weights themselves, inside jit
nk.fold(params)                                         plain arrays again
nk.WeightNorm(layer)                                    the same for a layer or model of flax nnx, as an nnx module
nk.norm_except_dim(v, per)                              the lengths

nk.penalty(params, l2=1e-4)                             a number to add to the loss; nk.penalty_terms: each term of it
nk.decay(optimizer, 0.1, learning_rate=schedule)        an optax transformation that decays weights besides, by `kind=`
nk.constrain(optimizer, max_norm=3.0)                   one that keeps weights within a limit
nk.proximal(optimizer, l1=0.02, learning_rate=0.1)      one that makes exact zeros
nk.decayed, nk.coupled, nk.soft_threshold, nk.group_threshold, nk.max_norm, nk.unit_norm, nk.min_max_norm, nk.hold,
nk.spectral_cap                                         the same of one array, for loops without an optimizer
nk.convert_decay, nk.solve_decay                        the coefficient elsewhere, and for a wish

Trees of dicts and lists, flax nnx and linen, equinox, haiku; optax.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from normkit.constrain import hold, max_norm, min_max_norm, spectral_cap, unit_norm
from normkit.decay import convert_decay, coupled, decayed, solve_decay
from normkit.jax.entry import record
from normkit.jax.look import explain, norms
from normkit.jax.parts import Normalized
from normkit.jax.penalties import penalty, penalty_terms
from normkit.jax.recorder import JaxRecorder
from normkit.jax.traced import StepStats, stats
from normkit.jax.wrap import fold, materialize, weight_norm
from normkit.normalize import norm_except_dim
from normkit.penalize import group_threshold, soft_threshold
from normkit.recording.board import TensorBoard
from normkit.types import Every

if TYPE_CHECKING:
    from normkit.jax.decaying import decay as decay
    from normkit.jax.limiting import constrain as constrain
    from normkit.jax.thresholding import proximal as proximal
    from normkit.jax.wrapper import WeightNorm as WeightNorm

LATE = {  # what imports flax or optax -> its file; not in __all__: `from normkit.jax import *` would import both
    "WeightNorm": "wrapper",
    "constrain": "limiting",
    "decay": "decaying",
    "proximal": "thresholding",
}

__all__ = [
    "Every",
    "JaxRecorder",
    "Normalized",
    "StepStats",
    "TensorBoard",
    "convert_decay",
    "coupled",
    "decayed",
    "explain",
    "fold",
    "group_threshold",
    "hold",
    "materialize",
    "max_norm",
    "min_max_norm",
    "norm_except_dim",
    "norms",
    "penalty",
    "penalty_terms",
    "record",
    "soft_threshold",
    "solve_decay",
    "spectral_cap",
    "stats",
    "unit_norm",
    "weight_norm",
]


def __getattr__(name: str) -> Any:
    if name not in LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{LATE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *LATE})
