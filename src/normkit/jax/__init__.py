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

Trees of dicts and lists, flax nnx and linen, equinox, haiku; optax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normkit.jax.entry import record
from normkit.jax.look import explain, norms
from normkit.jax.parts import Normalized
from normkit.jax.recorder import JaxRecorder
from normkit.jax.traced import StepStats, stats
from normkit.jax.wrap import fold, materialize, weight_norm
from normkit.normalize import norm_except_dim
from normkit.recording.board import TensorBoard
from normkit.types import Every

if TYPE_CHECKING:
    from normkit.jax.wrapper import WeightNorm as WeightNorm

__all__ = [  # without WeightNorm: `from normkit.jax import *` would import flax
    "Every",
    "JaxRecorder",
    "Normalized",
    "StepStats",
    "TensorBoard",
    "explain",
    "fold",
    "materialize",
    "norm_except_dim",
    "norms",
    "record",
    "stats",
    "weight_norm",
]


def __getattr__(name: str) -> Any:
    if name != "WeightNorm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from normkit.jax.wrapper import WeightNorm

    return WeightNorm


def __dir__() -> list[str]:
    return sorted({*globals(), "WeightNorm"})
