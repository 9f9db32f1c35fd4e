"""`data_init`: one batch sets lengths and biases."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
from normkit.errors import ArgumentError, ModelError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


class Watched(nn.Module):
    """Notes what each layer gives."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x, *, noted=None):
        for layer in self.layers:
            x = layer(x)
            if noted is not None and "bias" in layer._parameters:
                noted.append(x)
        return x


def convolutions():
    torch.manual_seed(0)
    return Watched(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 6, 2, groups=2, output_padding=0),
            nn.Tanh(),
            nn.ConvTranspose2d(6, 2, 2, stride=2),
            nn.Flatten(),
            nn.Linear(2 * 144, 5),
        )
    )


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_pre_activations_have_mean_0_and_variance_1(form):
    model, x = nk.weight_norm(convolutions()), 3 + 2 * torch.randn(40, 2, 5, 5)
    v = [p.detach().clone() for name, p in model.named_parameters() if name.endswith("original1")]
    batch = {"tensor": x, "tuple": (x,), "dict": {"x": x}}[form]
    assert nk.data_init(model, batch) == [f"layers.{i}" for i in (0, 2, 4, 6)]
    noted = []
    model(x, noted=noted)
    assert len(noted) == 4
    for t in noted:
        axes = [axis for axis in range(t.ndim) if axis != 1]
        assert t.detach().double().mean(axes).abs().max() < 1e-6
        assert (t.detach().double().var(axes, correction=0) - 1).abs().max() < 1e-6
    assert all(
        torch.equal(p, old)
        for p, old in zip((p for n, p in model.named_parameters() if n.endswith("original1")), v, strict=True)
    )
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_what_the_formula_says():
    torch.manual_seed(0)
    layer, x = nk.weight_norm(nn.Linear(4, 3).double()), torch.randn(9, 4).double()
    w = layer.weight.detach().numpy()
    t = x.numpy() @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
    nk.data_init(layer, x)
    np.testing.assert_allclose(layer.parametrizations.weight.original0[:, 0].detach(), 1 / t.std(0), rtol=1e-12)
    np.testing.assert_allclose(layer.bias.detach(), -t.mean(0) / t.std(0), rtol=1e-12)


def test_all_but_g_and_bias_is_as_before():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3), nn.Linear(3, 2)
    )
    nk.weight_norm(model, select=["0.*", "3.*"])
    frozen = model[3].parametrizations.weight.original0.requires_grad_(False)
    before, mode = copy.deepcopy(model.state_dict()), [layer.training for layer in model.modules()]
    random = torch.get_rng_state()
    assert nk.data_init(model, torch.randn(20, 4)) == ["0"]
    random_after = torch.get_rng_state()
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert changed == ["0.parametrizations.weight.original0"]
    assert not frozen.requires_grad
    assert mode == [layer.training for layer in model.modules()]
    assert not torch.equal(random, random_after)  # the batch was drawn; nothing else was
    torch.set_rng_state(random)
    torch.randn(20, 4)
    assert torch.equal(torch.get_rng_state(), random_after)


def test_layers_of_other_kinds_are_left():
    model = nk.weight_norm(nn.Sequential(nn.Linear(4, 3), nn.GRU(3, 2)))
    nk.weight_norm(second := nn.Linear(4, 2), per="tensor")
    assert nk.data_init(model, torch.randn(5, 4)) == ["0"]
    with pytest.raises(ArgumentError, match="Linear has no Linear, Conv or ConvTranspose layer normalized"):
        nk.data_init(second, torch.randn(5, 4))
    with pytest.raises(ArgumentError, match=r"of type Tensor, not torch.nn.Module"):
        nk.data_init(torch.randn(5, 4), model)


class Causal(nn.Conv1d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (2, 0)))


class Rectified(nn.Linear):
    def forward(self, x):
        return super().forward(x).relu()


class Adapted(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.low = nn.Linear(sizes[0], sizes[1])

    def forward(self, x):
        return super().forward(x) + self.low(x)


@pytest.mark.parametrize("bias", [True, False])
def test_a_subclass_that_pads_its_inputs(bias):
    torch.manual_seed(0)
    layer, x = nk.weight_norm(Causal(2, 3, 3, bias=bias)), torch.randn(20, 2, 5)
    nk.data_init(layer, x)
    torch.testing.assert_close(layer(x).var((0, 2), correction=0), torch.ones(3))


@pytest.mark.parametrize("kind", [Rectified, Adapted])
def test_a_subclass_that_makes_something_else_is_refused(kind):
    model = nn.Sequential(nn.Linear(4, 4), kind(4, 3))
    nk.weight_norm(model, select=["0.weight", "1.weight"])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ModelError, match=rf"what layer '1' computes in {kind.__name__}.forward (is not|cannot).*freeze"
    ):
        nk.data_init(model, torch.randn(9, 4))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model[1].parametrizations.weight.original0.requires_grad_(False)
    assert nk.data_init(model, torch.randn(9, 4)) == ["0"]


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6 always runs what it compiled")
def test_a_compiled_model_is_run_as_written():
    model = nk.weight_norm(net())
    assert nk.data_init(torch.compile(model, fullgraph=True, backend="eager"), torch.randn(9, 4)) == ["0", "2"]


def failing(x):
    raise RuntimeError("no more memory")


@pytest.mark.parametrize(
    ("spoil", "kind", "sentence"),
    [
        (lambda model: model[2].register_forward_pre_hook(lambda *_: failing(0)), RuntimeError, "no more memory"),
        (
            lambda model: nk.set_weight(model[2], torch.zeros_like),
            ModelError,
            r"channel 0 of layer '2' is constant .*\(3 of 3",
        ),
    ],
)
def test_where_it_fails_the_model_is_as_before(spoil, kind, sentence):
    model = nk.weight_norm(net())
    spoil(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(kind, match=sentence):
        nk.data_init(model, torch.randn(9, 4))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(layer._forward_hooks for layer in model.modules())


def test_one_row_is_too_few():
    with pytest.raises(ModelError, match="channel 0 of the layer is constant over the batch"):
        nk.data_init(nk.weight_norm(nn.Linear(4, 3)), torch.randn(1, 4))
