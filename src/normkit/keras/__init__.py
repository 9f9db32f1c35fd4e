"""The Keras 3 door, on TensorFlow, JAX and PyTorch alike: `import normkit.keras as nk`.

model.fit(x, y, callbacks=[nk.record()])   every norm of every weight while the model trains
nk.norms(model, "l2")                      a look right now: {name: value}
nk.explain(model, select=...)              which weights a rule takes, and why
nk.WeightNorm(layer)                       a layer with normalized weights, w = g v / |v|
nk.weight_norm(model)                      a new model with such layers; nk.remove_weight_norm(model) one without
nk.data_init(model, batch)                 lengths and biases from a first batch
"""

from __future__ import annotations

from normkit.keras.callback import RecordNorms
from normkit.keras.first_batch import data_init
from normkit.keras.look import explain, norms
from normkit.keras.recorder import KerasRecorder
from normkit.keras.rewriting import remove_weight_norm, weight_norm
from normkit.keras.wrapper import WeightNorm
from normkit.normalize import norm_except_dim
from normkit.recording.board import TensorBoard
from normkit.types import Every

record = RecordNorms

__all__ = [
    "Every",
    "KerasRecorder",
    "RecordNorms",
    "TensorBoard",
    "WeightNorm",
    "data_init",
    "explain",
    "norm_except_dim",
    "norms",
    "record",
    "remove_weight_norm",
    "weight_norm",
]
