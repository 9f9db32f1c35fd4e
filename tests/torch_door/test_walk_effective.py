"""Weights computed from parts: found, told apart, evaluated without a trace; and what changes a signature."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from normkit.torch.walk import signature, walk

DEPRECATED = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


def found(model):
    return {place.param.name: place for place in walk(model)}


def rows(w):
    return np.sqrt((w.detach().double().numpy() ** 2).reshape(w.shape[0], -1).sum(1))


def state(model):
    """Everything a look could change, as plain values."""
    own = [
        {k: v for k, v in m.__dict__.items() if isinstance(v, int | float | str | bool | list)} for m in model.modules()
    ]
    tensors = {name: (id(t), t._version, t.detach().clone()) for name, t in model.state_dict(keep_vars=True).items()}
    return copy.deepcopy(own), tensors, torch.get_rng_state(), random.getstate()


def assert_unchanged(before, after):
    assert before[0] == after[0]
    assert before[1].keys() == after[1].keys()
    for name, (identity, version, values) in before[1].items():
        assert (identity, version) == after[1][name][:2], name
        assert torch.equal(values, after[1][name][2]), name
    assert torch.equal(before[2], after[2])
    assert before[3] == after[3]


# --- weight norm ---------------------------------------------------------------------------------------------------


def old_weight_norm(layer):
    return nn.utils.weight_norm(layer)


@DEPRECATED
@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, old_weight_norm])
def test_a_weight_normed_weight_has_its_parts_and_its_plain_name(wrap):
    model = nn.Sequential(wrap(nn.Conv2d(2, 3, 3)))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("original0", "weight_g")):
                p.mul_(2.0)
    places = found(model)
    assert [(name, p.param.part, p.param.shape) for name, p in places.items()] == [
        ("0.weight", "effective", (3, 2, 3, 3)),
        ("0.weight.g", "g", (3, 1, 1, 1)),
        ("0.weight.v", "v", (3, 2, 3, 3)),
        ("0.bias", "whole", (3,)),
    ]
    assert {p.param.role for name, p in places.items() if name != "0.bias"} == {"kernel"}
    assert all(p.param.layer == "Conv2d" and p.param.layer_type is nn.Conv2d for p in places.values())
    effective = places["0.weight"]
    assert effective.tensor is None
    assert effective.param.trainable
    weight = effective.effective()
    assert not weight.requires_grad
    np.testing.assert_allclose(rows(weight), places["0.weight.g"].tensor.detach().flatten(), rtol=1e-6)
    x = torch.ones(1, 2, 3, 3)
    torch.testing.assert_close(nn.functional.conv2d(x, weight, model[0].bias), model(x))


def test_weight_norm_of_the_whole_tensor_has_a_scalar_g():
    places = found(parametrizations.weight_norm(nn.Linear(3, 4), dim=None))
    assert places["weight.g"].param.shape == ()
    assert places["weight.g"].param.out_axes is None
    assert places["weight.v"].param.out_axes == (0,)


@DEPRECATED
@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, old_weight_norm])
def test_each_weight_of_a_recurrent_layer_is_known(wrap):
    model = nn.LSTM(3, 4, batch_first=True)
    model = nn.utils.weight_norm(model, "weight_hh_l0") if wrap is old_weight_norm else wrap(model, "weight_hh_l0")
    places = found(model)
    assert places["weight_hh_l0"].param.part == "effective"
    assert places["weight_hh_l0"].param.out_axes == (0,)
    assert places["weight_ih_l0"].param.part == "whole"
    assert places["weight_hh_l0.v"].param.shape == (16, 4)


def test_a_frozen_weight_normed_weight_is_frozen():
    model = parametrizations.weight_norm(nn.Linear(3, 4)).requires_grad_(False)
    assert not any(place.param.trainable for place in walk(model))


# --- other ways ----------------------------------------------------------------------------------------------------


def test_spectral_norm_is_seen_without_a_step_of_its_power_iteration():
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 4))).train()
    places = found(model)
    assert [n for n, p in places.items() if p.param.role == "kernel"] == ["0.weight", "0.weight.original"]
    assert places["0.weight.original"].param.part == "whole"
    before = state(model)
    weight = places["0.weight"].effective()
    assert_unchanged(before, state(model))
    torch.testing.assert_close(weight, model.eval()[0].weight.detach(), rtol=0, atol=0)


def test_the_older_spectral_norm_too():
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(5, 4))).train()
    places = found(model)
    before = state(model)
    weight = places["0.weight"].effective()
    assert_unchanged(before, state(model))
    u, v, original = model[0].weight_u, model[0].weight_v, model[0].weight_orig
    torch.testing.assert_close(weight, original.detach() / (u @ original @ v).detach())
    assert places["0.weight.original"].tensor is original
    assert places["0.weight_u"].param.role == "buffer"


def test_orthogonal_has_the_orthogonal_weight():
    weight = found(parametrizations.orthogonal(nn.Linear(4, 4)))["weight"].effective()
    np.testing.assert_allclose(weight @ weight.T, np.eye(4), atol=1e-5)


def test_a_pruned_weight_is_masked():
    model = nn.Sequential(nn.Linear(4, 4))
    prune.l1_unstructured(model[0], "weight", amount=8)
    places = found(model)
    assert int((places["0.weight"].effective() == 0).sum()) == 8
    assert places["0.weight.original"].tensor is model[0].weight_orig
    assert places["0.weight_mask"].param.role == "buffer"


class Untidy(nn.Module):
    """Does whatever a parametrization should not: draws, counts, writes and replaces buffers, keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("replaced", torch.zeros(3))
        self.calls = 0
        self.drop = nn.Dropout(0.5)

    def forward(self, w):
        self.calls += 1
        self.last = self.calls
        self.seen += 1
        self.replaced = self.replaced + torch.rand(3)
        return self.drop(w) + 0 * torch.rand(1)


def test_a_users_untidy_parametrization_leaves_no_trace():
    model = nn.Linear(3, 2)
    parametrize.register_parametrization(model, "weight", Untidy(), unsafe=True)
    model.train()
    before = state(model)
    place = found(model)["weight"]
    weight = place.effective()
    assert_unchanged(before, state(model))
    assert not hasattr(model.parametrizations.weight[0], "last")
    assert model.parametrizations.weight.training
    assert torch.equal(weight, model.parametrizations.weight.original.detach())


def test_evaluation_fills_no_cache_and_uses_none():
    model = parametrizations.weight_norm(nn.Linear(3, 2))
    place = found(model)["weight"]
    with parametrize.cached():
        stale = model.weight
        with torch.no_grad():
            model.parametrizations.weight.original0.mul_(3)
        assert not torch.equal(place.effective(), stale)
        assert model.weight is stale


def test_parameters_of_a_parametrization_are_parameters():
    class LowRank(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.c = nn.Parameter(torch.zeros(4, 1)), nn.Parameter(torch.zeros(1, 3))

        def forward(self, w):
            return w + self.a @ self.c

    model = nn.Linear(3, 4).requires_grad_(False)
    parametrize.register_parametrization(model, "weight", LowRank())
    places = found(model)
    assert places["parametrizations.weight.0.c"].param.trainable
    assert not places["weight.original"].param.trainable
    assert places["weight"].param.trainable


def test_a_parametrized_buffer_is_a_buffer():
    model = nn.BatchNorm1d(3)
    parametrize.register_parametrization(model, "running_mean", nn.Identity())
    places = found(model)
    assert {places[n].param.role for n in ("running_mean", "running_mean.original")} == {"buffer"}
    assert not places["running_mean"].param.trainable


# --- signature -----------------------------------------------------------------------------------------------------


def model_and_optimizer():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential())
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


CHANGES = {
    "a parameter appears": lambda m, o: m[0].register_parameter("extra", nn.Parameter(torch.zeros(1))),
    "a parameter appears where none was": lambda m, o: m[2].register_parameter("extra", nn.Parameter(torch.zeros(1))),
    "a parameter vanishes": lambda m, o: m[0].register_parameter("bias", None),
    "a parameter is replaced": lambda m, o: setattr(m[0], "weight", nn.Parameter(m[0].weight.data)),
    "frozen": lambda m, o: m[0].weight.requires_grad_(False),
    "added to an optimizer": lambda m, o: o.add_param_group({"params": [torch.zeros(1, requires_grad=True)]}),
    "a module is added": lambda m, o: m.append(nn.ReLU()),
    "a module is added below": lambda m, o: m[2].append(nn.ReLU()),
    "a leaf gets a child": lambda m, o: m[0].add_module("adapter", nn.Linear(1, 1)),
    "parametrized": lambda m, o: parametrizations.weight_norm(m[0]),
    "parametrized once more": lambda m, o: parametrizations.spectral_norm(m[0], "bias"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_signature_changes_when(change):
    model, optimizer = model_and_optimizer()
    seen = signature(model, [optimizer])
    assert not seen.changed()
    assert seen == signature(model, optimizer)
    change(model, optimizer)
    assert seen.changed()
    assert seen != signature(model, optimizer)
    assert not signature(model, optimizer).changed()


def test_training_does_not_change_a_signature():
    model, optimizer = model_and_optimizer()
    seen = signature(model, optimizer)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    model.load_state_dict(model.state_dict())
    model.eval()
    assert not seen.changed()


def test_unfreezing_changes_a_signature_and_refreezing_restores_it():
    model, _ = model_and_optimizer()
    model[0].weight.requires_grad_(False)
    seen = signature(model)
    model[0].weight.requires_grad_(True)
    assert seen.changed()
    model[0].weight.requires_grad_(False)
    assert not seen.changed()


def test_replaced_buffers_count_only_where_asked():
    model, _ = model_and_optimizer()
    without, with_them = signature(model), signature(model, buffers=True)
    model[1].running_mean = model[1].running_mean * 0.5
    assert not without.changed()
    assert with_them.changed()


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_lazy_parameter_that_gets_its_shape_changes_a_signature():
    model = nn.Sequential(nn.LazyLinear(2))
    seen = signature(model)
    model(torch.zeros(1, 3))
    assert seen.changed()
