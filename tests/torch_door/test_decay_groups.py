"""`nk.decay_groups`: each trainable parameter in one group, by rules of which the first counts."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
from normkit.errors import ArgumentError, ModelError, StateError

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """An embedding, three blocks, a head."""

    def __init__(self, tied=False):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 6, bias=False)
        if tied:
            self.head.weight = self.embed.weight


def told(groups, what="weight_decay"):
    """{name: what its group says}"""
    return {name: group[what] for group in groups for name, _ in group["params"]}


def decayed(groups):
    return {name for name, value in told(groups).items() if value}


def test_kernels_decay_and_nothing_else():
    model = Net()
    groups = nk.decay_groups(model, 0.1)
    assert isinstance(groups, list)
    assert [group["weight_decay"] for group in groups] == [0.0, 0.1]
    assert decayed(groups) == {"blocks.0.1.weight", "blocks.1.1.weight", "blocks.2.1.weight", "head.weight"}
    assert sorted(told(groups)) == sorted(name for name, _ in model.named_parameters())
    assert all("lr" not in group for group in groups)


def test_the_table_says_who_decays_in_how_many_groups_and_lists_what_optimizers_have():
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Linear(3, 1))
    groups = nk.decay_groups(model, 0.1, rules=[("2.*", 0.2)])
    table = groups.explain()
    assert [row.name for row in table.rows] == [name for name, _ in model.named_parameters()]  # no running_mean
    assert str(table).splitlines()[-1].startswith("2 of 6 parameters decay, in 2 of 3 groups; not: 2 role bias")
    handle = nk.decay(torch.optim.SGD(model.parameters(), lr=0.1), 0.1, model=model)
    rows = {row.name: row for row in handle.explain().rows}
    assert list(rows) == [row.name for row in table.rows]
    told = [{row.name: row for row in table.rows}["0.weight"].told, rows["0.weight"].told]
    assert told == ["weight_decay 0.1, group 0", "weight_decay 0.1 decoupled, 0.01 of it in the next step"]
    assert str(handle.explain()).splitlines()[-1] == "2 of 6 parameters decay; not: 3 role bias, 1 role scale"


@pytest.mark.parametrize(
    "cls",
    [
        value
        for value in vars(torch.optim).values()
        if isinstance(value, type)
        and issubclass(value, torch.optim.Optimizer)
        and value.__name__ not in ("Optimizer", "LBFGS", "Muon", "SparseAdam")  # one group; matrices; sparse gradients
    ],
)
def test_every_optimizer_takes_them_and_keeps_the_names(cls):
    model = Net()
    groups = nk.decay_groups(model, 0.1, lr=0.01)
    optimizer = cls(groups)
    assert {name for group in optimizer.param_groups for name in group["param_names"]} == set(told_names(model))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert cls(nk.decay_groups(model, 0.1, lr=0.01)).load_state_dict(optimizer.state_dict()) is None


def told_names(model):
    return [name for name, _ in model.named_parameters()]


def test_muon_takes_the_group_of_matrices():
    groups = nk.decay_groups(Net(), 0.1)
    optimizer = torch.optim.Muon([group for group in groups if group["weight_decay"]], lr=0.01)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


def test_adamw_with_the_groups_shrinks_kernels_only():
    model = Net()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(nk.decay_groups(model, 0.5), lr=0.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        kernel = name == "head.weight" or name.endswith("1.weight")
        assert torch.equal(p, before[name] * (1 - 0.5 * 0.1) if kernel else before[name])


# -- rules ---------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_decides():
    rules = [("blocks.0.*", 0.0), ("blocks.*", {"weight_decay": 0.3, "lr_scale": 0.5}), (nn.LayerNorm, {"eps": 1e-6})]
    groups = nk.decay_groups(Net(), 0.1, rules=rules, lr=0.2)
    decay, rate = told(groups), told(groups, "lr")
    assert (decay["blocks.0.1.weight"], rate["blocks.0.1.weight"]) == (0.0, 0.2)
    assert (decay["blocks.1.1.weight"], rate["blocks.1.1.weight"]) == (0.3, 0.1)
    assert (decay["blocks.1.1.bias"], rate["blocks.1.1.bias"]) == (0.0, 0.1)  # no kernel, but the rule's rate
    assert (decay["head.weight"], rate["head.weight"]) == (0.1, 0.2)
    assert {name for group in groups if "eps" in group for name, _ in group["params"]} == {"norm.weight", "norm.bias"}
    row = next(row for row in groups.explain().rows if row.name == "blocks.1.1.bias")
    assert (row.chosen, row.why) == (False, "rule 'blocks.*', role bias")
    assert row.told == "weight_decay 0, lr 0.1, group 1"


def test_a_rule_that_names_a_role_may_let_anything_decay():
    groups = nk.decay_groups(Net(), 0.1, rules=[("embedding", 0.02), (["bias", "blocks.1.*"], 0.3)])
    assert told(groups)["embed.weight"] == 0.02
    assert told(groups)["blocks.1.1.bias"] == 0.3
    assert told(groups)["blocks.0.1.bias"] == 0.0


def test_select_says_who_decays_where_no_rule_does():
    groups = nk.decay_groups(Net(), 0.1, select=["kernel", "embedding", "!head.*"], rules=[("embed.*", 0.02)])
    assert decayed(groups) == {"embed.weight", *(f"blocks.{i}.1.weight" for i in range(3))}
    assert told(groups)["embed.weight"] == 0.02
    groups = nk.decay_groups(Net(), 0.1, rules=[("embedding", {"lr_scale": 0.1})], lr=1.0)
    assert told(groups)["embed.weight"] == 0.0  # that rule says nothing of decay


REFUSED = [
    ({"weight_decay": -1}, r"weight_decay=-1: expected a finite number of at least 0"),
    ({"weight_decay": None}, r"weight_decay=None: expected a finite number"),
    ({"select": "heads.*"}, r"select='heads.\*' matches none of 16 parameters; close names: head.weight"),
    ({"rules": [("heads.*", 0)]}, r"rules\[0\] \('heads.\*'\): select='heads.\*' matches none"),
    ({"rules": {"head.*": 0}}, r"rules={'head.\*': 0}: expected pairs of a selection and its weight decay"),
    ({"rules": ("head.*", 0)}, r"rules\[0\]='head.\*': expected pairs of a selection"),
    ({"rules": [("head.*", 0, 1)]}, r"rules\[0\]=\('head.\*', 0, 1\): expected pairs"),
    ({"rules": [(None, 0)]}, r"rules\[0\]: its selection is None; name a role, a pattern or a layer class"),
    ({"rules": [("head.*", "0.1")]}, r"rules\[0\] \('head.\*'\): weight_decay='0.1': expected a finite number"),
    ({"rules": [("head.*", {"weight_decy": 1})]}, r"there is no option 'weight_decy'; did you mean 'weight_decay'\?"),
    ({"rules": [("head.*", {"lr_scal": 1})]}, r"there is no option 'lr_scal'; did you mean 'lr_scale'\?"),
    ({"rules": [("head.*", {"momentun": 1})]}, r"there is no option 'momentun'; did you mean 'momentum'\?"),
    ({"rules": [("head.*", {"wd": 0})]}, r"there is no option 'wd'; did you mean 'weight_decay'\?"),
    ({"rules": [("head.*", {"lr_mult": 0})]}, r"there is no option 'lr_mult'; did you mean 'lr_scale'\?"),
    ({"rules": [("head.*", {"params": 1})]}, r"'params' is no option of an optimizer"),
    ({"rules": [("head.*", {"lr_scale": -1})]}, r"lr_scale=-1: expected a factor of at least 0"),
    ({"rules": [("head.*", {"lr_scale": 0.1})]}, r"rules\[0\] \('head.\*'\): lr_scale=0.1 multiplies lr, and none was"),
    (
        {"rules": [("*.weight", 0), ("head.*", 1)]},
        r"rules\[1\] .* reaches only what earlier rules took, such as head.w",
    ),
    ({"rules": [("norm.*", 0.1)]}, r"matches 2 parameters, none with role kernel; add the role, as in"),
    ({"layer_decay": 0.5}, r"layer_decay=0.5 multiplies lr, and none was given; add lr= to decay_groups"),
    ({"layer_decay": 1.5, "lr": 0.1}, r"layer_decay=1.5: expected a factor above 0 and at most 1"),
    ({"lr": 0}, r"lr=0: expected a number above 0"),
    ({"lr": torch.tensor(0.1)}, r"lr=.*: expected a number above 0, such as 1e-3"),
    ({"lr": True}, r"lr=True: expected a number above 0"),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED, ids=[text[:40] for _, text in REFUSED])
def test_what_cannot_be_is_refused_in_a_sentence(given, sentence):
    given = {"weight_decay": 0.1, **given}
    with pytest.raises(ArgumentError, match=sentence):
        nk.decay_groups(Net(), given.pop("weight_decay"), **given)


def test_an_unknown_option_that_is_no_slip_of_the_pen_is_passed_on():
    groups = nk.decay_groups(Net(), 0.1, rules=[("head.*", {"use_muon": False})])
    assert [group["use_muon"] for group in groups if "use_muon" in group] == [False]


# -- ties, frozen, weight-normed, lazy -----------------------------------------------------------------------------


def test_a_tied_parameter_stands_in_one_group():
    groups = nk.decay_groups(Net(tied=True), 0.1)
    assert "head.weight" not in told(groups)
    assert told(groups)["embed.weight"] == 0.0
    assert any(row.name == "embed.weight = head.weight" for row in groups.explain().rows)


def test_a_tied_parameter_of_which_two_rules_say_different_things_is_refused():
    model = Net(tied=True)
    rules = [("embed.*", {"lr_scale": 0.1}), (["head.*", "norm.*"], {"lr_scale": 0.5})]
    with pytest.raises(
        ModelError, match=r"embed.weight = head.weight is one tied parameter; rules\[0\] .* and rules\[1\]"
    ):
        nk.decay_groups(model, 0.1, rules=rules, lr=0.1)
    assert nk.decay_groups(model, 0.1, rules=[("embed.*", 0.0), (["head.*", "norm.*"], 0.0)])  # they say the same


def test_frozen_parameters_stand_in_no_group():
    model = Net()
    model.embed.requires_grad_(False)
    model.blocks[0].requires_grad_(False)
    groups = nk.decay_groups(model, 0.1)
    assert not [name for name in told(groups) if name.startswith(("embed", "blocks.0"))]
    why = {row.name: row.why for row in groups.explain().rows}
    assert why["blocks.0.1.weight"] == "frozen"
    with pytest.raises(ArgumentError, match=r"rules\[0\] .* frozen"):
        nk.decay_groups(model, 0.1, rules=[("blocks.0.*", 0.0)])
    with pytest.raises(ArgumentError, match="Net has no trainable parameter; there is nothing to group"):
        nk.decay_groups(model.requires_grad_(False), 0.1)


@pytest.mark.parametrize("how", [nk.weight_norm, lambda m: torch.nn.utils.parametrizations.weight_norm(m.head)])
def test_of_a_weight_normed_weight_the_length_decays_and_the_direction_does_not(how):
    model = Net()
    how(model)
    groups = nk.decay_groups(model, 0.1, rules=[("head.weight", {"lr_scale": 0.5})], lr=0.1)
    assert told(groups)["head.weight.g"] == 0.1
    assert told(groups)["head.weight.v"] == 0.0
    rates = told(groups, "lr")
    assert rates["head.weight.g"] == rates["head.weight.v"] == 0.05
    assert told(nk.decay_groups(model, 0.1, select="head.weight.v"))["head.weight.v"] == 0.1


def test_lazy_layers_need_a_batch_first():
    with pytest.raises(StateError, match="run one batch through the model first"):
        nk.decay_groups(nn.Sequential(nn.LazyLinear(3)), 0.1)


def test_names_are_without_wrappers():
    model = torch.nn.DataParallel(Net())
    assert "head.weight" in told(nk.decay_groups(model, 0.1))


# -- layer-wise rates ----------------------------------------------------------------------------------------------


def test_each_block_has_a_lower_rate_than_the_one_above():
    groups = nk.decay_groups(Net(), 0.1, lr=1.0, layer_decay=0.5, rules=[("head.*", {"lr_scale": 3.0})])
    rates = told(groups, "lr")
    assert rates["head.weight"] == 3.0
    assert rates["norm.weight"] == 1.0
    assert [rates[f"blocks.{i}.1.weight"] for i in (2, 1, 0)] == [0.5, 0.25, 0.125]
    assert rates["embed.weight"] == 0.0625


def test_the_depths_of_nested_stages_and_of_layers_in_a_row():
    names = ["stem.weight", "stages.0.blocks.0.w", "stages.0.blocks.1.w", "stages.1.down.w", "stages.1.blocks.0.w"]
    from normkit.torch.groups_depth import depths

    assert list(depths([*names, "head.weight"]).values()) == [5, 4, 3, 2, 1, 0]
    assert depths(["0.weight", "2.weight", "4.weight"]) == {"0.weight": 2, "2.weight": 1, "4.weight": 0}
    assert depths(["weight", "bias"]) == {"weight": 0, "bias": 0}
