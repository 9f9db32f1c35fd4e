"""What people type when they mean a penalty, and what they are told."""

from __future__ import annotations

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
from normkit.errors import ArgumentError, ModelError, StateError

pytestmark = [pytest.mark.usefixtures("one_thread")]


def net():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


MISTAKES = [
    (nk.penalty, "penalty: no coefficient above 0 among l1, l2, group, toward, orthogonality, spectral"),
    (lambda m: nk.penalty(m, l2=0), "no coefficient above 0"),
    (lambda m: nk.penalty(m, l2=-0.1), "l2=-0.1: expected a finite number of at least 0"),
    (lambda m: nk.penalty(m, l1=float("nan")), "l1=nan: expected a finite number"),
    (lambda m: nk.penalty(m, l2=True), "l2=True: expected a finite number"),
    (lambda m: nk.penalty(m, l2="1e-4"), "l2='1e-4': expected a finite number"),
    (lambda m: nk.penalty(m, l2=torch.ones((), device="meta")), "expected a finite number"),
    (lambda m: nk.penalty(torch.optim.SGD(m.parameters(), lr=0.1)), "model=SGD: a penalty is of a model's weights"),
    (
        lambda m: nk.penalty(m, l2=0.1, reference=np.ones(3)),
        "reference=<ndarray of shape (3,)> without toward=; give toward=",
    ),
    (lambda m: nk.penalty(m, l2=torch.ones((), requires_grad=True)), "of at least 0 without a gradient"),
    (lambda m: nk.penalty(nn.Linear, l2=0.1), "model=Linear is a class; give an instance"),
    (lambda m: nk.penalty(None, l2=0.1), "model=None: expected a torch.nn.Module"),
    (lambda m: nk.penalty("model", l2=0.1), "model=str: expected a torch.nn.Module"),
    (lambda m: nk.penalty([], l2=0.1), "is empty; give a torch.nn.Module"),
    (
        lambda m: nk.penalty(m.state_dict(), l2=0.1),
        "none of these 4 tensors requires a gradient, so a penalty would pull",
    ),
    (lambda m: nk.penalty([m[0].weight, m], l2=0.1), "model=list holds Sequential; expected a module, or tensors only"),
    (
        lambda m: nk.penalty(torch.optim.SGD(m.parameters(), lr=0.1), l2=0.1),
        "model=SGD: a penalty is of a model's weights",
    ),
    (lambda m: nk.penalty(m, l2=0.1, select="conv*"), "select='conv*'"),
    (lambda m: nk.penalty(nn.Tanh(), l2=0.1), "model=Tanh has no parameters to pull"),
    (lambda m: nk.penalty(nn.LayerNorm(3), l2=0.1), "select=None leaves nothing to pull: weight is role scale"),
    (lambda m: nk.penalty(m.requires_grad_(False), l2=0.1), "select=None leaves nothing to pull: 0.weight is frozen"),
    (lambda m: nk.penalty(m, group=0.1, per=3), "0.weight: per is 3, and an array of shape (5, 4) has no axis 3"),
    (lambda m: nk.penalty(m, l2=0.1, reference={}), "reference={} without toward=; give toward=1e-3"),
    (lambda m: nk.penalty(m, toward=0.1, reference="start"), "reference='start': expected 'initial', or a mapping"),
    (
        lambda m: nk.penalty(m, toward=0.1, reference=m),
        "reference=Sequential: give its values, as reference=model.state_dict()",
    ),
    (
        lambda m: nk.penalty(m, toward=0.1, reference={"0.weight": m[0].weight}),
        "reference= has nothing for 2.weight: give its",
    ),
    (
        lambda m: nk.penalty(m, toward=0.1, reference={"0.weight": torch.ones(4, 5)}),
        "0.weight: the reference is of shape (4, 5) beside a weight of shape (5, 4)",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), MISTAKES, ids=[sentence[:40] for _, sentence in MISTAKES])
def test_a_mistake_is_told_in_a_sentence(call, sentence):
    with pytest.raises(ArgumentError, match=re.escape(sentence)):
        call(net())


def grown(loss, pull):
    loss += pull
    return loss


UNCALLED = {
    "loss + penalty": lambda loss, pull: loss + pull,
    "penalty + loss": lambda loss, pull: pull + loss,
    "loss += penalty": grown,
    "loss - penalty": lambda loss, pull: loss - pull,
    "0.1 * penalty": lambda loss, pull: 0.1 * pull,
    "penalty * 0.1": lambda loss, pull: pull * 0.1,
    "penalty / 2": lambda loss, pull: pull / 2,
    "-penalty": lambda loss, pull: -pull,
    "float(penalty)": lambda loss, pull: float(pull),
    "penalty.backward()": lambda loss, pull: pull.backward(),
    "penalty.item()": lambda loss, pull: pull.item(),
    "sum([loss, penalty])": lambda loss, pull: sum([loss, pull]),
}


@pytest.mark.parametrize("how", UNCALLED)
def test_a_penalty_that_was_not_called_says_so(how):
    loss = net()(torch.ones(1, 4)).sum()
    with pytest.raises(
        ArgumentError,
        match=re.escape("Penalty(l2=0.1: 2 parameters) was not called: write loss + penalty(), with the brackets"),
    ):
        UNCALLED[how](loss, nk.penalty(net(), l2=0.1))


def test_a_lazy_layer_must_have_seen_a_batch():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(StateError, match="no shape yet: run one batch through the model first"):
        nk.penalty(model, l2=0.1)
    model(torch.ones(1, 2))
    assert nk.penalty(model, l2=0.1)().item() > 0


def test_the_older_way_of_sharding_is_refused():
    outer = type(
        "FullyShardedDataParallel",
        (nn.Sequential,),
        {"__module__": "torch.distributed.fsdp.fully_sharded_data_parallel"},
    )
    with pytest.raises(ModelError, match="FullyShardedDataParallel, which flattens the weights: use fully_shard"):
        nk.penalty(outer(nn.Linear(2, 2)), l2=0.1)
