"""NumPy and torch as the properties of `pulled_methods` want them."""

from __future__ import annotations

import numpy as np
import torch
from ml_dtypes import bfloat16

from normal_methods import Library


def grad_of_torch(function, x):
    x = x if x.requires_grad else x.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(x), x, create_graph=True, materialize_grads=True)
    return found if found.requires_grad else found + 0 * x.sum()  # of a piecewise constant: still a function of x


def compiled_by_torch(function):
    torch._dynamo.reset()  # each row is the same code to dynamo, and of one code it compiles few
    return torch.compile(function, fullgraph=True, backend="aot_eager")


FEW = (0, (0, 2)), ("float32", "bfloat16")  # for torch: groups and dtypes; NumPy has the others

NUMPY = Library(
    array=lambda x, dtype: np.asarray(x).astype(bfloat16 if dtype == "bfloat16" else dtype),
    numpy=lambda x: np.asarray(x).astype(np.float64),
    dtype=lambda x: x.dtype.name,
)
TORCH = Library(
    array=lambda x, dtype: torch.tensor(np.asarray(x, np.float64)).to(getattr(torch, dtype)),
    numpy=lambda x: x.detach().double().numpy(),
    dtype=lambda x: str(x.dtype).removeprefix("torch."),
    grad=grad_of_torch,
    total=lambda x, other: (x * torch.as_tensor(other)).sum(),
    compiled=compiled_by_torch,
)
