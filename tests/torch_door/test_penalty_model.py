"""Which weights of a model a penalty pulls: computed ones, tied ones, frozen ones, and those that come later."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import weight_norm as old_weight_norm

import normkit.torch as nk
import pulled
from normkit.errors import ModelError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def value(weights, term="l2", *more):
    return sum(getattr(pulled, f"penalty_{term}")(w.detach().numpy(), *more) for w in weights)


def close(number):
    return pytest.approx(number, rel=1e-6)


def test_kernels_only_unless_told():
    model = net()
    assert nk.penalty(model, l2=1.0)().item() == close(value([model[0].weight, model[3].weight]))
    assert nk.penalty(model, l2=1.0, select="bias")().item() == close(
        value([model[0].bias, model[1].bias, model[3].bias])
    )
    assert nk.penalty(model, l1=1.0, select="3.*")().item() == close(value([model[3].weight], "l1"))


def test_groups_are_output_units_in_every_layout():
    layer = nn.ConvTranspose2d(2, 5, 3)
    assert nk.penalty(layer, group=1.0)().item() == close(value([layer.weight], "group", (1,)))
    assert nk.penalty(layer, group=1.0, per="in")().item() == close(value([layer.weight], "group", (0,)))
    assert nk.penalty(layer, orthogonality=1.0)().item() == close(value([layer.weight], "orthogonality", (1,)))


def test_frozen_and_tied_weights_and_buffers():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    pull = nk.penalty(model, l2=1.0)
    pull().backward()
    assert pull().item() == close(value([model[0].weight]))
    assert torch.equal(model[0].weight.grad, model[0].weight.detach())
    assert str(pull.explain()).splitlines()[1:3] == [
        "0.weight = 1.weight  kernel  layer Linear  + role kernel by default: l2 1",
        "2.weight             kernel  layer Linear  - frozen",
    ]


def test_everything_leaves_out_what_no_gradient_can_reach():
    model = net()
    model[0].weight.requires_grad_(False)
    model.register_buffer("table", torch.ones(3))
    rows = {row.name: row.why for row in nk.penalty(model, l2=1.0, select="all").explain().rows}
    assert rows["0.weight"] == "frozen"
    assert rows["table"] == "buffer: nothing trains it"
    assert rows["1.num_batches_tracked"] == "int64, not floating-point"
    assert rows["1.weight"] == "all"


WEIGHT_NORMS = {
    "ours": nk.weight_norm,
    "torch": parametrizations.weight_norm,
    "hook": old_weight_norm,
}


def parts(layer):
    by_hook = [layer._parameters.get(f"weight_{part}") for part in "gv"]
    return (
        by_hook
        if by_hook[0] is not None
        else [layer.parametrizations.weight.original0, layer.parametrizations.weight.original1]
    )


@pytest.mark.parametrize("how", WEIGHT_NORMS)
def test_a_weight_normed_weight_is_pulled_as_the_layer_uses_it(how):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    plain = layer.weight.detach().clone()
    layer = WEIGHT_NORMS[how](layer)
    g, v = parts(layer)
    pull = nk.penalty(layer, l2=0.5)
    total = pull()
    total.backward()
    assert total.item() == close(0.5 * value([plain]))
    assert torch.equal(g.grad, 0.5 * g.detach())
    assert v.grad is None
    several = nk.penalty(layer, l1=0.5, group=0.25, l2=0.5)
    total = several()
    expected = 0.5 * value([plain], "l1") + 0.25 * value([plain], "group", (0,)) + 0.5 * value([plain])
    assert total.item() == close(expected)
    layer.zero_grad()
    total.backward()
    w = plain.requires_grad_()
    (0.5 * w.abs().sum() + 0.5 * w.norm(dim=1).sum() + 0.25 * w.square().sum()).backward()
    direction = plain.detach() / plain.detach().norm(dim=1, keepdim=True)
    torch.testing.assert_close(g.grad, (w.grad * direction).sum(1, keepdim=True))
    torch.testing.assert_close(v.grad, w.grad - (w.grad * direction).sum(1, keepdim=True) * direction)
    assert [(row.why, row.told) for row in several.explain().rows if row.name != "bias"] == [
        ("role kernel by default", "l1 0.5, l2 of its lengths g 0.5, group 0.25"),
        ("part of weight", ""),
        ("part of weight", ""),
    ]


def test_another_p_has_no_lengths_to_stand_for_it():
    layer = nk.weight_norm(nn.Linear(4, 3), p=1)
    assert nk.penalty(layer, l2=1.0)().item() == close(value([layer.weight]))


def test_direction_alone_only_where_it_is_asked_for():
    layer = nk.weight_norm(nn.Linear(4, 3))
    _, v = parts(layer)
    assert nk.penalty(layer, l2=1.0, select="*.v")().item() == close(value([v]))


@pytest.mark.parametrize("how", ["spectral", "pruned"])
def test_other_computed_weights_are_seen_without_side_effects(how):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    if how == "spectral":
        parametrizations.spectral_norm(layer)
        now = layer.eval().weight.detach().clone()
        layer.train()
    else:
        prune.random_unstructured(layer, "weight", 0.5)
        now = layer.weight.detach().clone()
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    pull = nk.penalty(layer, l2=1.0)
    total = pull()
    total.backward()
    assert total.item() == close(value([now]))
    assert any(p.grad is not None and p.grad.any() for p in layer.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in layer.state_dict().items())
    assert layer.training


def test_parameters_that_were_replaced_are_found_again():
    model = net()
    pull = nk.penalty(model, l2=1.0, l1=0.5, toward=0.25)
    pull()
    model.double()
    doubled = pull()
    assert doubled.dtype is torch.float64
    weights = [model[0].weight, model[3].weight]
    assert doubled.item() == close(value(weights) + 0.5 * value(weights, "l1"))
    model[3].weight = nn.Parameter(2 * model[3].weight.detach())
    weights = [model[0].weight, model[3].weight]
    whole = value(weights) + 0.5 * value(weights, "l1") + 0.25 * 0.5 * (weights[1].detach() / 2).square().sum().item()
    assert pull().item() == close(whole)
    nk.weight_norm(model)
    assert pull().item() == close(whole)
    nk.remove_weight_norm(model)
    assert pull().item() == close(whole)
    model.requires_grad_(False)
    assert pull().item() == 0.0
    model.requires_grad_(True)
    assert pull().item() == close(whole)


def test_toward_takes_the_values_at_the_call_or_given_ones():
    model = net()
    pull = nk.penalty(model, toward=2.0)
    assert pull().item() == 0.0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model[3].weight.add_(1)
    assert pull().item() == close(2.0 * 0.5 * model[3].weight.numel())
    given = nk.penalty(model, toward=2.0, reference=before)
    assert given().item() == close(pull().item())
    arrays = {name: tensor.numpy() for name, tensor in before.items()}
    assert nk.penalty(model, toward=2.0, reference=arrays)().item() == close(pull().item())
    given().backward()
    torch.testing.assert_close(model[3].weight.grad, torch.full((3, 16), 2.0))
    before["3.weight"].add_(5)
    assert given().item() == close(pull().item())


def test_a_copy_looks_at_its_own_model():
    class Task(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()
            self.penalty = nk.penalty(self.net, l2=1.0, toward=0.5)

    task = Task()
    other = copy.deepcopy(task)
    with torch.no_grad():
        other.net[3].weight.mul_(2)
    other.penalty().backward()
    assert task.net[3].weight.grad is None
    assert other.net[3].weight.grad is not None
    assert other.penalty().item() > task.penalty().item()
    loaded = pickle.loads(pickle.dumps(nk.penalty(net(), l2=1.0)))
    assert repr(loaded) == "Penalty(l2=1: 2 parameters)"
    assert loaded().item() == close(nk.penalty(net(), l2=1.0)().item())


def test_several_models_lists_and_generators():
    one, two = nn.Linear(3, 2), nn.Linear(2, 3)
    both = value([one.weight, two.weight])
    assert nk.penalty({"G": one, "D": two}, l2=1.0)().item() == close(both)
    assert nk.penalty([one.weight, two.weight], l2=1.0)().item() == close(both)
    everything = value([one.weight, one.bias])
    assert nk.penalty(one.parameters(), l2=1.0)().item() == close(everything)
    assert nk.penalty(one.named_parameters(), l2=1.0)().item() == close(everything)
    named = nk.penalty(dict(one.named_parameters()), l2=1.0, select="weight")
    assert named().item() == close(value([one.weight]))


def test_a_penalty_that_is_not_finite_names_the_weight():
    model = net()
    pull = nk.penalty(model, l2=1.0)
    pull.check()
    with torch.no_grad():
        model[3].weight[1, 2] = float("nan")
    assert torch.isnan(pull())
    with pytest.raises(ModelError, match=r"3\.weight has 1 of 48 entries that are not finite"):
        pull.check()
    with torch.no_grad():
        model[3].weight.fill_(1e30)
    assert torch.isinf(pull())
    with pytest.raises(ModelError, match="l2 is inf over finite weights: the sum is beyond its dtype"):
        pull.check()


def test_a_compiled_model_has_the_names_of_its_own():
    model = net()
    pull = nk.penalty(torch.compile(model, backend="eager"), l2=1.0, select="0.weight")
    assert pull().item() == close(value([model[0].weight]))


def test_training_with_it_shrinks_the_weights():
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    pull = nk.penalty(layer, l2=0.5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    start = layer.weight.detach().clone()
    for _ in range(10):
        optimizer.zero_grad()
        (layer(torch.ones(2, 4)).sum() * 0 + pull()).backward()
        optimizer.step()
    np.testing.assert_allclose(layer.weight.detach(), start * 0.75**10, rtol=1e-5)
