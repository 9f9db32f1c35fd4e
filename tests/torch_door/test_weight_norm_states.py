"""State dicts of weight-normed models: what loads, and what becomes what."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

import normkit.torch as nk
from normkit.errors import ArgumentError, ModelError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def states(weights):
    """One model's weights in the three forms, as torch itself writes them."""
    made = []
    for wrap in (lambda layer: layer, nn.utils.weight_norm, parametrizations.weight_norm):
        model = net()
        for layer, w in zip((model[0], model[2]), weights, strict=True):
            with torch.no_grad():
                layer.weight.copy_(w)
            wrap(layer)
        made.append(model.state_dict())
    return dict(zip(("plain", "weight_g", "parametrized"), made, strict=True))


@pytest.fixture(name="forms")
def _forms():
    torch.manual_seed(7)
    return states((torch.randn(5, 4), torch.randn(3, 5)))


@pytest.mark.parametrize("form", ["plain", "weight_g", "parametrized"])
@pytest.mark.parametrize("options", [{}, {"strict": False}, {"assign": True}])
def test_every_form_loads(forms, form, options):
    model, plain = nk.weight_norm(net()), net()
    before = copy.deepcopy(forms[form])
    report = model.load_state_dict(forms[form], **options)
    assert not report.missing_keys
    assert not report.unexpected_keys
    plain.load_state_dict(forms["plain"])
    x = torch.randn(2, 4)
    torch.testing.assert_close(model(x), plain(x), rtol=1e-6, atol=1e-6)
    assert list(forms[form]) == list(before)
    if not options:
        assert not set(map(id, model.parameters())) & set(map(id, forms[form].values()))


def test_a_state_that_does_not_fit_is_reported_in_torchs_words(forms):
    model = nk.weight_norm(net())
    short = {key: value for key, value in forms["plain"].items() if key != "0.weight"}
    report = model.load_state_dict(short, strict=False)
    assert report.missing_keys == [f"0.parametrizations.weight.original{i}" for i in (0, 1)]
    with pytest.raises(RuntimeError, match=r"Unexpected key.*0.more"):
        model.load_state_dict({**forms["plain"], "0.more": torch.ones(1)})
    with pytest.raises(RuntimeError, match=r"size mismatch for 0.weight: copying a param with shape .*\[2, 4\]"):
        model.load_state_dict({**forms["plain"], "0.weight": torch.ones(2, 4)})
    with pytest.raises(RuntimeError, match=r"original1\", expected torch.Tensor .* received <class 'int'>"):
        model.load_state_dict({**forms["plain"], "0.weight": 3})
    half = {"0.weight_g": forms["weight_g"]["0.weight_g"], **forms["plain"]}
    with pytest.raises(RuntimeError, match=r"Unexpected key.*0.weight_g"):
        model.load_state_dict(half)


def test_our_state_loads_into_torchs(forms):
    ours, torchs = nk.weight_norm(net()), net()
    for layer in (torchs[0], torchs[2]):
        parametrizations.weight_norm(layer)
    ours.load_state_dict(forms["weight_g"])
    torchs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(torchs[0].weight, ours[0].weight)


def test_a_whole_tensors_g_without_axes_loads():
    torchs = parametrizations.weight_norm(nn.Linear(3, 2), dim=None)
    ours = nk.weight_norm(nn.Linear(3, 2), per="tensor")
    ours.load_state_dict(torchs.state_dict())
    torch.testing.assert_close(ours.weight, torchs.weight)
    back = nk.convert_state_dict(ours.state_dict(), "parametrized", torchs)
    torchs.load_state_dict(back)


def test_lengths_over_other_axes_are_no_lengths_of_ours():
    """torch's g of a transposed convolution belongs to the inputs; where it is square only its shape tells."""
    torch.manual_seed(0)
    torchs, ours = (
        parametrizations.weight_norm(nn.ConvTranspose1d(4, 4, 3)),
        nk.weight_norm(nn.ConvTranspose1d(4, 4, 3)),
    )
    x = torch.randn(1, 4, 5)
    for form in ("plain", "weight_g", "parametrized"):
        with pytest.raises(
            ModelError, match=r"g and v of shapes \(4, 1, 1\) .* \(1, 4, 1\) .* 'plain' without a model"
        ):
            nk.convert_state_dict(nk.convert_state_dict(torchs.state_dict(), "weight_g"), form, ours)
    with pytest.raises(RuntimeError, match=r"weight keeps other axes in the checkpoint than here"):
        ours.load_state_dict(torchs.state_dict())
    ours.load_state_dict(nk.convert_state_dict(torchs.state_dict(), "plain"))
    torch.testing.assert_close(ours(x), torchs(x))
    same = nk.weight_norm(nn.ConvTranspose1d(4, 4, 3), per=0)
    same.load_state_dict(torchs.state_dict())
    torch.testing.assert_close(same(x), torchs(x))


@pytest.mark.parametrize("source", ["plain", "weight_g", "parametrized"])
@pytest.mark.parametrize("form", ["plain", "weight_g", "parametrized"])
def test_every_form_becomes_every_other(forms, source, form):
    converted = nk.convert_state_dict(forms[source], form, nk.weight_norm(net()))
    assert set(converted) == set(forms[form])
    for key, value in forms[form].items():
        torch.testing.assert_close(converted[key], value, rtol=1e-6, atol=1e-6)
    if form == "plain":
        assert list(converted) == list(forms[form])
    assert converted._metadata == forms[source]._metadata


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
        lambda: nn.ConvTranspose1d(4, 4, 2, groups=4),
        lambda: nn.LSTM(3, 4, 2, proj_size=2),
        lambda: nn.MultiheadAttention(4, 2),
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4)),
    ],
)
def test_plain_and_back_without_a_word_from_the_model(build):
    model = build()
    before = copy.deepcopy(model.state_dict())
    nk.weight_norm(model)
    plain = nk.convert_state_dict(model.state_dict(), "plain")
    assert set(plain) == set(before)
    assert all(torch.equal(plain[key], value) for key, value in before.items())
    again = nk.convert_state_dict(nk.convert_state_dict(model.state_dict(), "weight_g"), "parametrized")
    assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())


def test_states_under_wrappers_names():
    model = nk.weight_norm(net())
    wrapped = {f"module.{key}": value for key, value in net().state_dict().items()}
    converted = nk.convert_state_dict(wrapped, "parametrized", AveragedModel(model))
    assert set(converted) == {f"module.{key}" for key in model.state_dict()}


def test_what_cannot_be_converted_is_refused(forms):
    with pytest.raises(ArgumentError, match="form='torch': expected 'plain', 'weight_g' or 'parametrized'"):
        nk.convert_state_dict(forms["plain"], "torch")
    with pytest.raises(ArgumentError, match="the state holds plain weights, so give model="):
        nk.convert_state_dict(forms["plain"], "weight_g")
    with pytest.raises(ArgumentError, match="nothing in it is weight-normed"):
        nk.convert_state_dict(forms["plain"], "weight_g", net())
    strange = {f"model.{key}": value for key, value in forms["plain"].items()}
    with pytest.raises(ArgumentError, match=r"the state has no 0.weight.*it has model.0.weight, model.0.bias"):
        nk.convert_state_dict(strange, "weight_g", nk.weight_norm(net()))
    with pytest.raises(ArgumentError, match=r"state\['generator'\] is a dict of tensors: give that"):
        nk.convert_state_dict({"generator": forms["weight_g"], "step": 3}, "plain")
    with pytest.raises(ArgumentError, match="state is of type Sequential"):
        nk.convert_state_dict(net(), "plain")
    with pytest.raises(ModelError, match=r"0.weight has shape \(1, 4\) in the state, in the model \(5, 4\)"):
        nk.convert_state_dict({"0.weight": torch.ones(1, 4)}, "weight_g", nk.weight_norm(net()))
