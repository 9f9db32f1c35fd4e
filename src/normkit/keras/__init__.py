"""The Keras 3 door, on TensorFlow, JAX and PyTorch alike: `import normkit.keras as nk`.

model.fit(x, y, callbacks=[nk.record()])   every norm of every weight while the model trains
nk.norms(model, "l2")                      a look right now: {name: value}
nk.explain(model, select=...)              which weights a rule takes, and why
nk.WeightNorm(layer)                       a layer with normalized weights, w = g v / |v|
nk.weight_norm(model)                      a new model with such layers; nk.remove_weight_norm(model) one without
nk.data_init(model, batch)                 lengths and biases from a first batch
nk.add_penalty(model, l2=1e-4)             terms added to the loss; nk.remove_penalty(model); nk.penalty(model, ...)
nk.decay(optimizer, 0.1)                   an optimizer that decays weights besides, by `kind=`: compile with it
nk.constrain(optimizer, max_norm=3.0)      one that keeps weights within a limit; nk.proximal: one that makes zeros
nk.decayed, nk.coupled, nk.soft_threshold, nk.group_threshold, nk.max_norm, nk.unit_norm, nk.min_max_norm, nk.hold,
nk.spectral_cap                            the same of one tensor, for loops without an optimizer
nk.convert_decay, nk.solve_decay           the coefficient elsewhere, and for a wish
"""

from __future__ import annotations

from normkit.constrain import hold, max_norm, min_max_norm, spectral_cap, unit_norm
from normkit.decay import convert_decay, coupled, decayed, solve_decay
from normkit.keras.attach import constrain, decay, proximal
from normkit.keras.callback import RecordNorms
from normkit.keras.first_batch import data_init
from normkit.keras.look import explain, norms
from normkit.keras.penalties import add_penalty, remove_penalty
from normkit.keras.penalty_value import penalty
from normkit.keras.recorder import KerasRecorder
from normkit.keras.rewriting import remove_weight_norm, weight_norm
from normkit.keras.ruled import RuledOptimizer
from normkit.keras.wrapper import WeightNorm
from normkit.normalize import norm_except_dim
from normkit.penalize import group_threshold, soft_threshold
from normkit.recording.board import TensorBoard
from normkit.types import Every

record = RecordNorms

__all__ = [
    "Every",
    "KerasRecorder",
    "RecordNorms",
    "RuledOptimizer",
    "TensorBoard",
    "WeightNorm",
    "add_penalty",
    "constrain",
    "convert_decay",
    "coupled",
    "data_init",
    "decay",
    "decayed",
    "explain",
    "group_threshold",
    "hold",
    "max_norm",
    "min_max_norm",
    "norm_except_dim",
    "norms",
    "penalty",
    "proximal",
    "record",
    "remove_penalty",
    "remove_weight_norm",
    "soft_threshold",
    "solve_decay",
    "spectral_cap",
    "unit_norm",
    "weight_norm",
]
