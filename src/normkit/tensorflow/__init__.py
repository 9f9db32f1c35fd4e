"""The TensorFlow door, for training loops of one's own: `import normkit.tensorflow as nk`.

nk.record(module)               every norm of every variable, gradient and update; `rec.step(grads=grads)` after a step
nk.norms(module, "l2")          a look right now: {name: value}
nk.explain(module, select=...)  which variables a rule takes, and why

`model.fit` of Keras 3 is recorded by `normkit.keras`.
"""

from __future__ import annotations

from normkit.recording.board import TensorBoard
from normkit.tensorflow.entry import record
from normkit.tensorflow.look import explain, norms
from normkit.tensorflow.recorder import TensorFlowRecorder
from normkit.types import Every

__all__ = ["Every", "TensorBoard", "TensorFlowRecorder", "explain", "norms", "record"]
