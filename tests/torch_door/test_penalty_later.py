"""What a model becomes after its penalty was made: weights that were on no device yet, modes, other dtypes."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
from normkit.errors import ArgumentError, StateError

pytestmark = [pytest.mark.usefixtures("one_thread")]

EVERY = {"l1": 0.1, "l2": 0.1, "group": 0.1, "toward": 0.1, "orthogonality": 0.1, "spectral": 0.1}


def test_the_values_on_meta_are_no_reference_the_first_real_ones_are():
    with torch.device("meta"):
        model = nn.Linear(4, 3)
    pull = nk.penalty(model, toward=1.0)
    assert pull().is_meta
    model.to_empty(device="cpu")
    nn.init.ones_(model.weight)
    assert pull().item() == 0
    nn.init.constant_(model.weight, 2.0)
    assert pull().item() == 6.0


@pytest.mark.parametrize("first", ["made", "called"])
def test_a_penalty_that_was_first_used_in_inference_mode_trains(first):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    with torch.inference_mode():
        inside = nk.penalty(model, **EVERY)
        if first == "called":
            inside()
    pull = nk.penalty(model, **EVERY)
    expected = torch.autograd.grad(pull(), model.weight)[0]
    if first == "called":  # the power iteration is a step further there
        expected = torch.autograd.grad(pull(), model.weight)[0]
    assert inside().item() == pytest.approx(pull().item(), rel=1e-4)
    found = torch.autograd.grad(inside(), model.weight, create_graph=True)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def head(outputs):
    torch.manual_seed(outputs)
    return nn.Linear(4, outputs)


@pytest.mark.parametrize("term", EVERY)
def test_a_head_of_another_size_is_pulled_from_then_on(term):
    model = nn.Sequential(nn.Linear(3, 4), head(2))
    pull = nk.penalty(model, **{term: 0.1})
    pull().backward()
    model[1] = head(5)
    pull().backward()
    assert model[1].weight.grad.isfinite().all()
    if term == "toward":
        assert pull().item() == 0
    else:
        assert pull().item() == pytest.approx(nk.penalty(model, **{term: 0.1})().item(), rel=1e-2)


def test_a_given_reference_does_not_fit_a_head_of_another_size():
    model = nn.Sequential(nn.Linear(3, 4), head(2))
    pull = nk.penalty(model, toward=0.1, reference=model.state_dict())
    model[1] = head(5)
    with pytest.raises(ArgumentError, match=r"1.weight: the reference is of shape \(2, 4\) beside a weight of shape"):
        pull()


def test_a_tensor_that_has_grown_does_not_read_beyond_its_reference():
    w = nn.Parameter(torch.ones(2))
    pull = nk.penalty(w, toward=0.1)
    w.data = torch.ones(1000)
    with pytest.raises(StateError, match=r"a weight of shape \(1000,\) beside a reference of shape \(2,\)"):
        pull()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # of torch.compile
def test_a_compiled_loss_sees_a_backbone_that_is_freed_and_frozen():
    backbone = nn.Linear(3, 4).requires_grad_(False)
    model = nn.Sequential(backbone, head(2))
    pull = nk.penalty(model, l2=1.0)
    compiled = torch.compile(lambda: 2 * pull(), backend="eager")
    halves = [0.5 * layer.weight.detach().square().sum().item() for layer in model]
    for trained in (False, True, False):
        backbone.requires_grad_(trained)
        expected = sum(halves) if trained else halves[1]
        assert compiled().item() == pytest.approx(2 * expected, rel=1e-6)


def test_a_copy_may_be_called_in_a_compiled_loss_first():
    pull = nk.penalty(nn.Sequential(head(2)), l2=1.0)
    value = torch.compile(copy.deepcopy(pull), backend="eager")()
    assert value.item() == pytest.approx(pull().item(), rel=1e-6)


def test_a_quantized_weight_is_left_out():
    model = nn.Sequential(nn.Linear(3, 4).to(torch.float8_e4m3fn), head(2))
    pull = nk.penalty(model, l2=1.0)
    assert pull().item() == pytest.approx(0.5 * model[1].weight.square().sum().item(), rel=1e-6)
    assert "0.weight   kernel  layer Linear  - float8_e4m3fn, quantized" in str(pull.explain())
