"""The JAX door: `import normkit.jax as nk`.

nk.record("runs/mine.norms", params=params)             a recorder, called after each step
nk.stats(params=new, grads=grads, updates=updates)      what to return from the jitted step: a few numbers per tensor
nk.norms(params, "l2")                                  a look right now: {name: value}
nk.explain(params, select=...)                          which tensors a rule takes, and why

Trees of dicts and lists, flax nnx and linen, equinox, haiku; optax.
"""

from __future__ import annotations

from normkit.jax.entry import record
from normkit.jax.look import explain, norms
from normkit.jax.recorder import JaxRecorder
from normkit.jax.traced import StepStats, stats
from normkit.recording.board import TensorBoard
from normkit.types import Every

__all__ = ["Every", "JaxRecorder", "StepStats", "TensorBoard", "explain", "norms", "record", "stats"]
