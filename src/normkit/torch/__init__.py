"""The PyTorch door: `import normkit.torch as nk`.

nk.record(model, optimizer)     every norm of every weight, gradient and update while the model trains
nk.norms(model, "l2")           a look right now: {name: value}
nk.explain(model, select=...)   which parameters a rule takes, and why
"""

from __future__ import annotations

from normkit.recording.board import TensorBoard
from normkit.torch.entry import record
from normkit.torch.look import explain, norms
from normkit.torch.recorder import TorchRecorder
from normkit.types import Every

__all__ = ["Every", "TensorBoard", "TorchRecorder", "explain", "norms", "record"]
