"""What `record`, `norms` and `explain` are given: every form that means something, and a sentence for the others."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit
import normkit.torch as nk
from normkit.errors import ArgumentError
from normkit.torch.arguments import joined, sort_out


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 2))


@pytest.fixture
def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


WRONG = {
    "the wrong way round": (
        lambda m, o: (o, m),
        r"model=SGD, optimizer=Sequential: the model comes first: nk\.record\(model, optimizer\)",
    ),
    "an optimizer's class": (
        lambda m, o: (m, torch.optim.SGD),
        r"optimizer=SGD is a class; give an instance, such as SGD\(model\.parameters\(\)\)",
    ),
    "a class among optimizers": (lambda m, o: (m, [o, torch.optim.SGD]), "optimizer=SGD is a class; give an instance"),
    "a model's class": (
        lambda m, o: (nn.Linear, o),
        r"model=Linear is a class; give an instance, such as Linear\(\.\.\.\)",
    ),
    "a class among models": (lambda m, o: ([m, nn.Linear], o), "model=Linear is a class; give an instance"),
    "a scheduler": (
        lambda m, o: (m, torch.optim.lr_scheduler.StepLR(o, 10)),
        r"optimizer=StepLR: give the optimizer it drives, as in nk\.record\(model, optimizer\)",
    ),
    "another scheduler": (
        lambda m, o: (m, torch.optim.lr_scheduler.ReduceLROnPlateau(o)),
        "optimizer=ReduceLROnPlateau: give the optimizer it drives",
    ),
    "a scaler": (
        lambda m, o: (m, torch.amp.GradScaler("cpu")),
        "optimizer=GradScaler: give the optimizer it drives",
    ),
    "nothing in lists": (lambda m, o: ([], []), r"model=\[\] is empty; give a torch\.nn\.Module, or several"),
    "no optimizer in a list": (lambda m, o: (m, []), r"optimizer=\[\] is empty; give one, or leave it out"),
    "no optimizer in a dict": (lambda m, o: (m, {}), r"optimizer=\{\} is empty; give one, or leave it out"),
    "two models": (lambda m, o: (m, m), r"optimizer=Sequential: expected a torch\.optim optimizer or a list"),
    "two models of one name": (
        lambda m, o: ({"a.b": m, "a_b": m}, o),
        r"model=\{'a\.b', 'a_b'\}: two of these are one name",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_record_cannot_take_is_one_sentence(name, model, optimizer, tmp_path):
    made, sentence = WRONG[name]
    with pytest.raises(ArgumentError, match=sentence) as refused:
        nk.record(*made(model, optimizer), to=tmp_path / "mine", quiet=True)
    assert len(str(refused.value)) < 160
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["half", "type", "train", "a.b"])
def test_models_may_have_any_name(name, model):
    whole, _ = sort_out({name: model}, None)
    assert [child for child, _ in whole.named_children()] == [name.replace(".", "_")]


@pytest.mark.parametrize("look", [nk.norms, nk.explain])
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, r"model=None: expected a torch\.nn\.Module, or several in a dict or list"),
        ([], r"model=\[\] is empty; give a torch\.nn\.Module"),
        (nn.Linear, "model=Linear is a class; give an instance"),
        (torch.ones(3), r"model=Tensor: expected a torch\.nn\.Module"),
    ],
)
def test_what_is_no_model_cannot_be_looked_at(look, given, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        look(given)


def test_several_models_are_looked_at_under_their_names(model):
    plain = nk.norms(model)
    assert nk.norms({"G": model}) == {f"G.{name}": value for name, value in plain.items()}
    assert list(nk.norms([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])) == ["0.weight", "1.weight"]
    assert [row.name for row in nk.explain({"G": model}).rows] == [f"G.{name}" for name in plain]
    assert joined(model) is model


def test_an_optimizer_is_looked_at(optimizer):
    assert len(nk.norms(optimizer)) == len(nk.explain(optimizer).rows) == 4


SHORT = {
    "kind before model": (
        lambda m: nk.norms("l2", m),
        r"model='l2': the model comes first: nk\.norms\(model, 'l2'\)",
    ),
    "model as kind": (lambda m: nk.norms(m, m), "kind is <Sequential>; it must be the name of a norm"),
    "tensor as rule": (
        lambda m: nk.norms(m, select=torch.ones(9, 9)),
        r"select=<Tensor of shape \(9, 9\)> is of type Tensor",
    ),
    "parameter as rule": (lambda m: nk.explain(m, m[0].weight), r"select=<Parameter of shape \(30, 40\)> is of type"),
    "module as rule": (lambda m: nk.explain(m, m), r"select=Sequential\(\.\.\.\) is a layer"),
    "tensor as per": (lambda m: nk.norms(m, per=torch.ones(5, 5)), r"per is <Tensor of shape \(5, 5\)>; it must be"),
    "spectral norm of a bias": (
        lambda m: nk.norms(m, "spectral", select="bias"),
        r"0\.bias of shape \(30,\) is no matrix, so it has no spectral norm; use select='kernel'",
    ),
    "stable rank of a bias": (lambda m: nk.norms(m, "stable_rank", select="bias"), "so it has no stable rank; use"),
    "a model to norm": (
        normkit.norm,
        r"a torch\.nn\.modules\.container\.Sequential was given; for the norms of a model use nk\.norms\(model\)",
    ),
    "an optimizer to stats": (
        lambda m: normkit.stats(torch.optim.SGD(m.parameters())),
        r"a torch\.optim\.sgd\.SGD was given; convert it first",
    ),
    "complex": (
        lambda m: nk.norms(m.to(torch.complex64)),
        r"^0\.weight is a torch\.complex64 tensor of shape \(30, 40\); norms are of real numbers: pass view_as_real",
    ),
    "meta": (
        lambda m: nk.norms(m.to("meta"), per=0),
        r"^0\.weight is a tensor of shape \(30, 40\) on the meta device;",
    ),
}


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature:UserWarning")
@pytest.mark.parametrize("name", SHORT)
def test_sentences_show_no_model_and_no_tensor(name, model):
    call, sentence = SHORT[name]
    with pytest.raises(ArgumentError, match=sentence) as refused:
        call(model)
    assert len(str(refused.value)) < 200
    assert "in_features" not in str(refused.value)
    assert "tensor([" not in str(refused.value)


def test_norms_of_a_frozen_model_are_none():
    layer = torch.nn.Linear(3, 2).requires_grad_(False)
    assert nk.norms(layer) == {}
    assert set(nk.norms(layer, select="all")) == {"weight", "bias"}
