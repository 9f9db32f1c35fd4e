"""What `nk.decay` refuses, in one sentence, leaving the optimizer as it was."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
from normkit.errors import ArgumentError, ModelError

pytestmark = pytest.mark.usefixtures("one_thread")
NAN = float("nan")
REFUSED = [
    ({"weight_decay": -0.1}, r"weight_decay=-0.1: expected a finite number of at least 0, such as 0.01"),
    ({"weight_decay": NAN}, r"weight_decay=nan: expected a finite number"),
    ({"weight_decay": True}, r"weight_decay=True: expected a finite number"),
    ({"weight_decay": "0.1"}, r"weight_decay='0.1': expected a finite number"),
    ({"weight_decay": torch.ones(2)}, r"weight_decay=<Tensor of shape \(2,\)>: expected a finite number"),
    ({"weight_decay": 20}, r"kind='decoupled' at lr=0.1: each step would take 2 times the weight"),
    ({"weight_decay": 20, "kind": "l2"}, r"kind='l2' at lr=0.1: each step would take 2 times the weight"),
    ({"kind": "L2"}, r"kind='L2': expected one of 'l2', 'decoupled'"),
    ({"kind": "AdamW"}, r"kind='AdamW': expected one of .*'toward'; that of AdamW is 'decoupled'"),
    ({"schedule": 0.5}, r"schedule=0.5: expected a function from the step to a factor"),
    ({"schedule": lambda step: -1}, r"schedule gave -1 at step 0; expected a factor on weight_decay"),
    ({"schedule": lambda step: None}, r"schedule gave None at step 0"),
    ({"lr_ref": 0.1}, r"lr_ref=0.1 is of no use with kind='decoupled'; it belongs to 'independent' and 'corrected'"),
    ({"kind": "independent", "lr_ref": 0}, r"lr_ref=0: expected a finite number above 0 to compare rates with"),
    ({"reference": "initial"}, r"reference='initial' is of no use with kind='decoupled'; it belongs to 'toward'"),
    ({"kind": "toward"}, r"kind='toward' needs one of reference= and length=, and neither was given"),
    (
        {"kind": "toward", "reference": "initial", "length": 1},
        r"needs one of reference= and length=, and both were given",
    ),
    ({"kind": "toward", "reference": "start"}, r"reference='start': expected 'initial', or arrays by name"),
    ({"kind": "toward", "reference": {"w": torch.ones(2)}}, r"has nothing for 0.weight; its names are such as w"),
    ({"kind": "toward", "reference": {"0.weight": torch.ones(2)}}, r"has shape \(2,\) for 0.weight of shape \(5, 4\)"),
    ({"kind": "toward", "length": -1}, r"length=-1: expected a finite number of at least 0, or 'initial'"),
    ({"kind": "toward", "length": 1.0, "per": 3}, r"an array of shape \(5, 4\) has no axis 3"),
    ({"per": "out"}, r"per='out': only a length has groups"),
    ({"select": "head.*"}, r"select='head.\*' matches none of 4 parameters"),
    ({"model": nn.Linear(4, 5)}, r"SGD holds 4 parameters, and weight is not among them"),
    ({"model": 3}, r"model=int: expected a torch.nn.Module"),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))


def hooks(optimizer):
    return [
        list(getattr(optimizer, name))
        for name in vars(optimizer)
        if name.endswith("_hooks") and name.startswith("_optimizer_")
    ]


@pytest.mark.parametrize(("given", "sentence"), REFUSED, ids=[text[:40] for _, text in REFUSED])
def test_a_bad_argument_is_refused_and_leaves_the_optimizer_as_it_was(given, sentence):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    given = {"weight_decay": 0.1, "model": model, **given}
    with pytest.raises((ArgumentError, ModelError), match=sentence):
        nk.decay(optimizer, given.pop("weight_decay"), **given)
    assert not any(hooks(optimizer))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert "normkit" not in optimizer.state_dict()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "decay: optimizer=None; give one torch.optim optimizer"),
        (torch.optim.SGD, "SGD is a class; give an instance"),
        (
            net(),
            "decay: optimizer=Sequential is a model; give the torch.optim optimizer of its parameters, and the model",
        ),
        ([], r"optimizer=\[\] is empty"),
    ],
)
def test_what_is_no_optimizer_is_refused(given, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        nk.decay(given, 0.1)


def test_where_there_is_nothing_to_decay_it_is_said_why():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)).requires_grad_(False)
    model[0].requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said = r"decay of SGD: 0 of 3 parameters decay; not: .*1 role embedding.*; choose others with select="
    with pytest.raises(ModelError, match=said):
        nk.decay(optimizer, 0.1, model=model)


def test_a_scheduler_is_neither_optimizer_nor_schedule():
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(ArgumentError, match="StepLR: give the optimizer it drives"):
        nk.decay(scheduler, 0.1)
    with pytest.raises(ArgumentError, match="schedule=StepLR: it changes lr, which decay follows by itself"):
        nk.decay(optimizer, 0.1, schedule=scheduler)
    with pytest.raises(ArgumentError, match="schedule=StepLR: it changes lr, which decay follows by itself"):
        nk.decay(optimizer, 0.1, schedule=torch.optim.lr_scheduler.StepLR)


def test_several_optimizers_are_refused():
    model = net()
    both = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in model]
    with pytest.raises(ArgumentError, match="decay: optimizer=2 optimizers; give one"):
        nk.decay(both, 0.1, model=model)


def test_an_optimizer_that_decays_by_itself_is_refused_also_later():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with pytest.raises(
        ModelError, match=r"0.weight would decay twice: AdamW has weight_decay=0.01 itself; set it to 0"
    ):
        nk.decay(optimizer, 0.1, model=model)
    saved = optimizer.state_dict()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0)
    nk.decay(optimizer, 0.1, model=model)
    optimizer.load_state_dict(saved)  # brings the other's weight_decay
    with pytest.raises(ModelError, match="would decay twice"):
        optimizer.step()


def test_the_own_decay_of_what_is_not_chosen_does_not_matter():
    model = net()
    groups = [{"params": [model[0].weight, model[1].weight], "weight_decay": 0.0}]
    groups += [{"params": [model[0].bias, model[1].bias], "weight_decay": 0.1}]
    nk.decay(torch.optim.AdamW(groups), 0.1, model=model)


def test_two_decays_of_one_parameter_are_refused():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = nk.decay(optimizer, 0.1, model=model)
    with pytest.raises(ModelError, match=r"0.weight and 1 more would decay twice: another nk.decay of this optimizer"):
        nk.decay(optimizer, 0.1, kind="l2", model=model)
    nk.decay(optimizer, 0.1, select="bias", model=model)
    first.remove()
    nk.decay(optimizer, 0.1, kind="l2", model=model)


@pytest.mark.parametrize("kind", ["independent", "corrected"])
def test_once_a_warmup_has_begun_lr_ref_is_needed(kind):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(ArgumentError, match=r"needs lr_ref, and lr of group 0 is 0; give the rate .* warmup scheduler"):
        nk.decay(optimizer, 0.1, kind=kind, model=model)
    nk.decay(optimizer, 0.1, kind=kind, lr_ref=0.1, model=model)


def test_a_scheduled_warmup_says_its_rate_by_itself():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    handle = nk.decay(optimizer, 0.3, kind="independent", model=model)
    assert handle.shares == [0.0]
    optimizer.param_groups[0]["lr"] = 0.05
    assert handle.shares == pytest.approx([0.15])


def test_the_highest_known_rate_counts_for_divergence():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert optimizer.param_groups[0]["lr"] == 0
    with pytest.raises(ArgumentError, match=r"at lr=0.5: each step would take 2.5 times the weight"):
        nk.decay(optimizer, 5.0, model=model)
