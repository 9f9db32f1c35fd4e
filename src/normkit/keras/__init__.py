"""The Keras 3 door, on TensorFlow, JAX and PyTorch alike: `import normkit.keras as nk`.

model.fit(x, y, callbacks=[nk.record()])   every norm of every weight while the model trains
nk.norms(model, "l2")                      a look right now: {name: value}
nk.explain(model, select=...)              which weights a rule takes, and why
"""

from __future__ import annotations

from normkit.keras.callback import RecordNorms
from normkit.keras.look import explain, norms
from normkit.keras.recorder import KerasRecorder
from normkit.recording.board import TensorBoard
from normkit.types import Every

record = RecordNorms

__all__ = ["Every", "KerasRecorder", "RecordNorms", "TensorBoard", "explain", "norms", "record"]
