"""Finding every tensor of a model once, under one name."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from normkit.errors import ArgumentError, ModelError, StateError
from normkit.select import select
from normkit.torch.walk import uninitialized_names, walk

# The first torch.compile of a process imports torch code that warns about torch's own use of script_method.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


def found(model=None, optimizers=()):
    return {place.param.name: place.param for place in walk(model, optimizers)}


def net(width=4):
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


NET = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
NET += ["2.weight", "2.bias"]


class Inside(nn.Module):
    """A model with a submodule that the user called `module`."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


# --- names ---------------------------------------------------------------------------------------------------------


def test_names_are_in_model_order_with_buffers_and_tensors():
    model = net()
    places = walk(model)
    assert [place.param.name for place in places] == NET
    for place in places:
        owner, _, leaf = place.param.name.rpartition(".")
        assert place.tensor is getattr(model.get_submodule(owner), leaf)
        assert place.module is model.get_submodule(owner)
        assert place.effective is None
    params = {place.param.name: place.param for place in places}
    assert (params["1.num_batches_tracked"].role, params["1.num_batches_tracked"].dtype) == ("buffer", "int64")
    assert not params["1.running_mean"].trainable


def checkpointed(model):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    return checkpoint_wrapper(model)


WRAPPERS = {
    "compile": torch.compile,
    "data parallel": nn.DataParallel,
    "checkpoint": checkpointed,
    "compile of data parallel": lambda model: torch.compile(nn.DataParallel(model)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_leaves_no_trace_in_names(wrap):
    assert list(found(wrap(net()))) == NET


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_in_the_middle_leaves_no_trace_in_names(wrap):
    assert list(found(nn.ModuleDict({"body": wrap(net())}))) == [f"body.{name}" for name in NET]


def test_an_averaged_model_keeps_its_own_counter():
    names = list(found(torch.optim.swa_utils.AveragedModel(net())))
    assert sorted(names) == sorted(["n_averaged", *NET])


def test_a_users_own_submodule_called_module_keeps_its_name():
    assert list(found(Inside(net()))) == [f"module.{name}" for name in NET]
    assert list(found(torch.compile(Inside(net())))) == [f"module.{name}" for name in NET]


def test_a_name_that_stripping_makes_double_stays_unique():
    wrapped = nn.DataParallel(Inside(nn.Linear(2, 2)))
    wrapped.register_buffer("module_scale", torch.ones(1))
    wrapped.module.register_buffer("module_scale", torch.zeros(2))
    names = list(found(wrapped))
    assert len(names) == len(set(names)) == 4
    assert "module_scale" in names
    assert "module.module_scale" in names


def test_a_module_that_holds_itself_ends():
    model = net()
    model[0].__dict__["_modules"]["parent"] = model
    assert list(found(model)) == NET


# --- ties and frozen ones ------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self, head_first=False):
        super().__init__()
        if head_first:
            self.head, self.embed = nn.Linear(4, 6, bias=False), nn.Embedding(6, 4)
        else:
            self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("head_first", [False, True])
def test_a_tied_embedding_and_head_is_an_embedding(head_first):
    model = Tied(head_first)
    (param,) = found(model).values()
    names = ("head.weight", "embed.weight") if head_first else ("embed.weight", "head.weight")
    assert (param.name, *param.aliases) == names
    assert param.role == "embedding"
    assert param.layer == "Embedding"
    assert [p.name for p in select([param], ["embedding", "head.*"], default="kernel").chosen] == [names[0]]


def test_ties_are_found_by_memory_not_by_object():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 3)})
    model["b"].weight = nn.Parameter(model["a"].weight.data)
    model["c"].weight = nn.Parameter(model["a"].weight.data.t())  # the same memory, but not the same matrix
    params = found(model)
    assert params["a.weight"].aliases == ("b.weight",)
    assert params["c.weight"].aliases == ()


def test_a_layer_used_twice_is_one_with_aliases():
    layer = nn.Linear(3, 3)
    params = found(nn.ModuleDict({"a": layer, "b": layer}))
    assert {p.name: p.aliases for p in params.values()} == {"a.weight": ("b.weight",), "a.bias": ("b.bias",)}


@pytest.mark.parametrize("make", [lambda: torch.empty(3, 0), lambda: torch.empty(3, device="meta")])
def test_tensors_without_memory_are_not_tied(make):
    model = nn.ParameterList([nn.Parameter(make()), nn.Parameter(make())])
    assert list(found(model)) == ["0", "1"]


def test_a_buffer_over_a_parameters_memory_does_not_make_it_a_buffer():
    model = nn.Linear(3, 3)
    model.register_buffer("a_view", model.weight.data)
    params = found(model)
    assert (params["weight"].role, params["weight"].aliases, params["weight"].trainable) == (
        "kernel",
        ("a_view",),
        True,
    )


def test_frozen_parameters_are_told_apart():
    model = net()
    model[0].requires_grad_(False)
    params = found(model)
    assert [name for name, p in params.items() if not p.trainable and p.role != "buffer"] == ["0.weight", "0.bias"]
    assert "0.weight" not in [p.name for p in select(list(params.values()), None, default="trainable").chosen]


# --- optimizers ----------------------------------------------------------------------------------------------------


def test_an_optimizer_of_the_models_parameters_adds_nothing():
    model = net()
    assert list(found(model, torch.optim.SGD(model.parameters(), lr=0.1))) == NET


def test_bare_tensors_are_named_by_group_and_place():
    a, b, c = (torch.zeros(2, 3, requires_grad=True) for _ in range(3))
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b, c]}], lr=0.1)
    places = walk(None, [optimizer])
    assert [place.param.name for place in places] == ["group0.0", "group1.0", "group1.1"]
    assert places[0].tensor is a
    assert {place.param.role for place in places} == {"kernel"}


def test_beside_a_model_only_what_it_lacks_is_added():
    model, extra = net(), nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([*model.parameters(), extra], lr=0.1)
    assert list(found(model, [optimizer])) == [*NET, "group0.6"]


def test_several_optimizers_have_different_names():
    several = [torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1) for _ in range(3)]
    assert list(found(None, several)) == ["group0.0", "optimizer1.group0.0", "optimizer2.group0.0"]
    named = [torch.optim.SGD(nn.Linear(2, 2).named_parameters(), lr=0.1) for _ in range(2)]
    assert list(found(None, named)) == ["weight", "bias", "optimizer1.weight", "optimizer1.bias"]


def test_names_kept_by_the_optimizer_are_used_and_give_roles():
    model = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
    params = found(None, torch.optim.AdamW(model.named_parameters()))
    assert {name: p.role for name, p in params.items()} == {
        "0.weight": "kernel",
        "0.bias": "bias",
        "1.weight": "scale",
        "1.bias": "bias",
    }


@pytest.mark.parametrize(
    ("model", "optimizers", "sentence"),
    [
        ([nn.Linear(2, 2)], (), "model is of type list, not a torch.nn.Module; give the module itself"),
        (None, 3, "optimizers is of type int, not an optimizer or a list of them"),
        (None, [3], "int is not an optimizer: it has no param_groups"),
        (None, [nn.Linear(2, 2)], "Linear is not an optimizer: it has no param_groups"),
    ],
)
def test_what_is_no_model_or_optimizer_is_refused(model, optimizers, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        walk(model, optimizers)


# --- lazy layers ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_lazy_parameters_are_left_out_until_they_have_a_shape():
    model = nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(2))
    assert list(found(model)) == ["0.weight", "0.bias"]
    assert uninitialized_names(model) == ("1.weight", "1.bias")
    with pytest.raises(
        StateError, match=r"1\.weight and 1 more have no shape yet: run one batch through the model first"
    ):
        walk(model, uninitialized="error")
    model(torch.zeros(1, 3))
    assert list(found(model)) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert uninitialized_names(model) == ()


def test_a_parametrization_that_cannot_be_computed_is_named():
    class Broken(nn.Module):
        def forward(self, w):
            raise ValueError("no such thing")

    model = nn.Sequential(nn.Linear(2, 2))
    nn.utils.parametrize.register_parametrization(model[0], "weight", Broken(), unsafe=True)
    with pytest.raises(ModelError, match=r"0\.weight cannot be computed by its parametrization: no such thing"):
        walk(model)
