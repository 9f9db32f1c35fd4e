"""The PyTorch door: `import normkit.torch as nk`.

nk.record(model, optimizer)     every norm of every weight, gradient and update while the model trains
nk.norms(model, "l2")           a look right now: {name: value}
nk.explain(model, select=...)   which parameters a rule takes, and why
nk.weight_norm(model)           weights as a length times a direction; nk.remove_weight_norm(model) folds them again
nk.penalty(model, l2=...)       terms on the weights, to be added to the loss: `loss + penalty()`
nk.proximal(optimizer, l1=...)  exact zeros after each step
nk.constrain(optimizer, ...)    weights brought back within a limit after each step
nk.decay(optimizer, 0.1)        any kind of weight decay on any optimizer
nk.decay_groups(model, 0.1)     parameter groups for an optimizer's own decay: kernels decay, the rest does not
nk.data_init(model, batch)      lengths and biases of weight-normed layers by one batch
nk.set_weight(layer, value)     a value for a weight, also where the layer works it out
nk.convert_state_dict(...)      a state dict with plain weights, `weight_g`, or `parametrizations`
"""

from __future__ import annotations

from normkit.constrain import hold, max_norm, min_max_norm, spectral_cap, unit_norm
from normkit.decay import convert_decay, coupled, decayed, solve_decay
from normkit.normalize import norm_except_dim
from normkit.penalize import group_threshold, soft_threshold
from normkit.recording.board import TensorBoard
from normkit.torch.constrain_entry import constrain
from normkit.torch.constrain_handle import Constraint
from normkit.torch.decay_entry import decay
from normkit.torch.decay_handle import Decay
from normkit.torch.entry import record
from normkit.torch.first_batch import data_init
from normkit.torch.groups import DecayGroups, decay_groups
from normkit.torch.look import explain, norms
from normkit.torch.penalty_call import Penalty, penalty
from normkit.torch.proximal_entry import Proximal, proximal
from normkit.torch.recorder import TorchRecorder
from normkit.torch.remove import remove_weight_norm
from normkit.torch.set import set_weight
from normkit.torch.states import convert_state_dict
from normkit.torch.wrap import weight_norm
from normkit.types import Every

__all__ = [
    "Constraint",
    "Decay",
    "DecayGroups",
    "Every",
    "Penalty",
    "Proximal",
    "TensorBoard",
    "TorchRecorder",
    "constrain",
    "convert_decay",
    "convert_state_dict",
    "coupled",
    "data_init",
    "decay",
    "decay_groups",
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
    "remove_weight_norm",
    "set_weight",
    "soft_threshold",
    "solve_decay",
    "spectral_cap",
    "unit_norm",
    "weight_norm",
]
