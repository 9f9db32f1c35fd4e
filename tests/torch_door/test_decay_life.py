"""The life of a decay: saved and loaded, schedulers, parameters that come, go or change, a recorder beside it."""

from __future__ import annotations

import copy
import io

import pytest

torch = pytest.importorskip("torch")
import numpy as np
from torch import nn

import normkit
import normkit.torch as nk
from normkit.errors import ArgumentError, StateError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning"),
]
X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3)).double()


def train(model, optimizer, steps, scheduler=None):
    for _ in range(steps):
        optimizer.zero_grad()
        (model(X) ** 2).sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def assert_same(a, b):
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q), name


KINDS = {
    "l2": {"kind": "l2"},
    "decoupled": {},
    "independent": {"kind": "independent"},
    "corrected": {"kind": "corrected"},
    "cautious": {"kind": "cautious"},
    "toward": {"kind": "toward", "reference": "initial"},
    "lengths": {"kind": "toward", "length": "initial"},
    "rows": {"kind": "toward", "length": "initial", "per": "out"},
}


@pytest.mark.parametrize("name", KINDS)
def test_saved_midway_and_loaded_afresh_it_goes_on_as_without_the_break(name):
    def begun(seed):
        model = net(seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        handle = nk.decay(optimizer, 0.3, schedule=lambda step: 1 / (1 + step), model=model, **KINDS[name])
        return model, optimizer, scheduler, handle

    model, optimizer, scheduler, handle = begun(0)
    train(model, optimizer, 4, scheduler)
    saved = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()], saved)
    train(model, optimizer, 4, scheduler)

    other, second, later, fresh = begun(1)
    saved.seek(0)
    for thing, state in zip((other, second, later), torch.load(saved, weights_only=True), strict=True):
        thing.load_state_dict(state)
    assert fresh.steps == 4
    train(other, second, 4, later)
    assert_same(model, other)
    assert handle.steps == fresh.steps == 8
    assert handle.shares == fresh.shares


def test_a_plain_optimizer_loads_what_a_decaying_one_saved_and_the_other_way_round():
    model = net()
    optimizer, plain = torch.optim.Adam(model.parameters()), torch.optim.Adam(model.parameters())
    handle = nk.decay(optimizer, 0.1, model=model)
    train(model, optimizer, 2)
    plain.load_state_dict(optimizer.state_dict())
    optimizer.load_state_dict(plain.state_dict())
    assert handle.steps == 2


def test_a_state_dict_with_other_steps_than_a_count_is_refused():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = nk.decay(optimizer, 0.1, model=model)
    state = optimizer.state_dict()
    for steps in ("x", -1, None):
        state["normkit"]["decay.0"]["steps"] = steps
        with pytest.raises(StateError, match="as the steps of a decay; expected a count"):
            optimizer.load_state_dict(state)
    assert handle.steps == 0


def test_a_refused_state_dict_changes_nothing():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = nk.decay(optimizer, 0.1, kind="toward", reference="initial", model=model)
    state = optimizer.state_dict()
    state["normkit"]["decay.0"] = {**state["normkit"]["decay.0"], "steps": 7, "reference": {}}
    with pytest.raises(StateError, match=r"has none as the reference of 0.weight; expected one of shape \(5, 4\)"):
        optimizer.load_state_dict(state)
    state = optimizer.state_dict()
    state["normkit"]["decay.0"]["steps"] = 7
    state["param_groups"] = [*state["param_groups"], *state["param_groups"]]
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(state)
    assert handle.steps == 0


def test_two_decays_keep_their_numbers_apart():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = nk.decay(optimizer, 0.1, select="0.*", model=model)
    train(model, optimizer, 2)
    second = nk.decay(optimizer, 0.2, select=["scale", "bias"], kind="l2", model=model)
    train(model, optimizer, 1)
    assert optimizer.state_dict()["normkit"]["decay.0"]["steps"] == 3
    assert optimizer.state_dict()["normkit"]["decay.1"]["steps"] == 1
    first.remove()
    first.remove()
    assert list(optimizer.state_dict()["normkit"]) == ["decay.0"]
    assert "removed" in repr(first)
    second.remove()
    assert "normkit" not in optimizer.state_dict()


def test_a_copy_of_the_optimizer_has_no_decay():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nk.decay(optimizer, 0.5, model=model)
    both = copy.deepcopy([model, optimizer])
    train(*both, 1)
    lone = net()
    train(lone, torch.optim.SGD(lone.parameters(), lr=0.1), 1)
    assert_same(both[0], lone)


# -- rates ---------------------------------------------------------------------------------------------------------


def with_schedule(when):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = nk.decay(optimizer, 0.3, kind="independent", model=model) if when == "before" else None
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=2)
    cool = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cool], [2])
    handle = handle or nk.decay(optimizer, 0.3, kind="independent", model=model)
    shares = []
    for _ in range(4):
        shares.append(handle.shares[0])
        train(model, optimizer, 1, scheduler)
    return shares


def test_a_scheduler_made_before_or_after_is_the_same():
    assert with_schedule("before") == with_schedule("after") == pytest.approx([0.15, 0.225, 0.3, 0.15])


@pytest.mark.parametrize(("kind", "power"), [("independent", 1), ("corrected", 2)])
def test_the_highest_rate_that_one_cycle_says_is_the_reference(kind, power):
    """Not what its warmup begins with: lr_ref would be 25 times too small."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=10)
    handle = nk.decay(optimizer, 0.5, kind=kind, model=model)
    rate = optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(0.4 / 25)
    assert handle.shares == [pytest.approx(rate**power / 0.4 * 0.5)]


def test_what_is_frozen_for_a_while_is_pulled_toward_where_it_was_at_the_call():
    model, other = net(), net()
    first = model[0].weight.detach().clone()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, other)]
    handles = [
        nk.decay(o, 0.5, kind="toward", reference="initial", model=m)
        for o, m in zip(optimizers, (model, other), strict=True)
    ]
    train(model, optimizers[0], 2)
    model[0].requires_grad_(False)
    train(model, optimizers[0], 1)
    assert handles[0].explain().rows[0].why == "frozen"
    train(other, optimizers[1], 2)
    optimizers[1].load_state_dict(optimizers[0].state_dict())  # saved while it is frozen
    with torch.no_grad():
        model[0].weight.copy_(first)
    model[0].requires_grad_(True)
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizers[0].step()
    assert torch.equal(model[0].weight, first)
    assert handles[0].explain().rows[0].why != "frozen"


def test_shares_and_weight_decay_can_be_read_and_set():
    model = net()
    optimizer = torch.optim.SGD(nk.decay_groups(model, 0.0, rules=[("3.*", {"lr": 0.5})]), lr=0.1)
    handle = nk.decay(optimizer, 0.3, model=model)
    assert handle.shares == pytest.approx([0.03, 0.15])
    handle.weight_decay = 1.0
    assert handle.shares == pytest.approx([0.1, 0.5])
    with pytest.raises(ArgumentError, match="weight_decay=-1: expected a finite number"):
        handle.weight_decay = -1
    with pytest.raises(ArgumentError, match="each step would take 5 times the weight"):
        handle.weight_decay = 10
    assert handle.weight_decay == 1.0
    rows = {row.name: row for row in handle.explain().rows}
    assert rows["3.weight"].told == "weight_decay 1 decoupled, 0.5 of it in the next step"
    assert not rows["3.bias"].chosen
    assert "role kernel by default: weight_decay 1 decoupled, 0.1 of it in the next step" in str(handle.explain())


def test_a_step_that_would_diverge_is_refused_and_changes_nothing():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = nk.decay(optimizer, 1.0, model=model, schedule=lambda step: 1.0 if step < 2 else 30.0)
    train(model, optimizer, 2)
    before = copy.deepcopy(model)
    with pytest.raises(
        ArgumentError, match=r"weight_decay=1, kind='decoupled' at lr=0.1: each step would take 3 times"
    ):
        train(model, optimizer, 1)
    assert_same(before, model)
    assert handle.steps == 2


# -- a recorder beside it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["decay", "record"])
@pytest.mark.parametrize("kind", ["l2", "decoupled", "cautious"])
def test_a_recorder_sees_the_whole_update_and_the_losss_gradient(kind, first, tmp_path):
    """As of an optimizer with a decay of its own, whoever came first."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = nk.decay(optimizer, 0.5, kind=kind, model=model) if first == "decay" else None
    with nk.record(model, optimizer, to=tmp_path / "a.norms", every=1, quiet=True):
        handle = handle or nk.decay(optimizer, 0.5, kind=kind, model=model)
        optimizer.zero_grad()
        (model(X) ** 2).sum().backward()
        before, grad = model[0].weight.detach().clone(), model[0].weight.grad.clone()
        optimizer.step()
        update = model[0].weight.detach() - before
    run = normkit.load(tmp_path / "a.norms")
    assert run.series("0.weight", "l2", "update")[-1] == pytest.approx(float(np.linalg.norm(update)), rel=1e-12)
    assert run.series("0.weight", "l2", "grad")[-1] == pytest.approx(float(np.linalg.norm(grad)), rel=1e-12)
    assert float(np.linalg.norm(update + 0.1 * grad)) > 1e-3
