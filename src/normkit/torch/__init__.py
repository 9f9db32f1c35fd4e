"""The PyTorch door: `import normkit.torch as nk`.

nk.record(model, optimizer)     every norm of every weight, gradient and update while the model trains
nk.norms(model, "l2")           a look right now: {name: value}
nk.explain(model, select=...)   which parameters a rule takes, and why
nk.weight_norm(model)           weights as a length times a direction; nk.remove_weight_norm(model) folds them again
nk.data_init(model, batch)      lengths and biases of weight-normed layers by one batch
nk.set_weight(layer, value)     a value for a weight, also where the layer works it out
nk.convert_state_dict(...)      a state dict with plain weights, `weight_g`, or `parametrizations`
"""

from __future__ import annotations

from normkit.normalize import norm_except_dim
from normkit.recording.board import TensorBoard
from normkit.torch.entry import record
from normkit.torch.first_batch import data_init
from normkit.torch.look import explain, norms
from normkit.torch.recorder import TorchRecorder
from normkit.torch.remove import remove_weight_norm
from normkit.torch.set import set_weight
from normkit.torch.states import convert_state_dict
from normkit.torch.wrap import weight_norm
from normkit.types import Every

__all__ = [
    "Every",
    "TensorBoard",
    "TorchRecorder",
    "convert_state_dict",
    "data_init",
    "explain",
    "norm_except_dim",
    "norms",
    "record",
    "remove_weight_norm",
    "set_weight",
    "weight_norm",
]
