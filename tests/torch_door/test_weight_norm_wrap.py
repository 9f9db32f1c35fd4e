"""`weight_norm`: what is normalized and how, what is refused, and what becomes of the optimizer."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.utils import parametrize

import normal
import normkit.torch as nk
from normkit.torch.normal import WeightNorm
from normkit.torch.walk import walk

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.(script|trace)` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*is not supported in Python 3.14:DeprecationWarning"),
]

LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), (2, 4), (3, 1)),
    "conv1": (lambda: nn.Conv1d(4, 3, 2), (1, 4, 5), (3, 1, 1)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (1, 4, 5, 5), (6, 1, 1, 1)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3), (1, 4, 3, 3), (1, 6, 1, 1)),
    "grouped transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), (1, 4, 3, 3), (2, 3, 1, 1)),
    "lstm": (lambda: nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2), (5, 2, 3), (16, 1)),
    "gru": (lambda: nn.GRU(3, 4), (5, 2, 3), (12, 1)),
    "attention": (lambda: nn.MultiheadAttention(4, 2), (3, 2, 4), (12, 1)),
    "encoder": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (2, 3, 4), (12, 1)),
    "embedding": (lambda: nn.Embedding(5, 3), None, (5, 1)),
}


def run(layer, shape):
    torch.manual_seed(1)
    x = torch.tensor([[0, 4]]) if shape is None else torch.randn(shape)
    result = layer(x, x, x) if isinstance(layer, nn.MultiheadAttention) else layer(x)
    return result[0] if isinstance(result, tuple) else result


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


# --- what it does ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_the_output_is_the_same_bit_for_bit(kind, training):
    build, shape, lengths = LAYERS[kind]
    torch.manual_seed(0)
    layer = build().train(training)
    for dropout in layer.modules():
        if isinstance(dropout, nn.Dropout):
            dropout.p = 0.0
    expected, names = run(layer, shape), [name for name, _ in layer.named_parameters()]
    with torch.no_grad():
        quiet = run(layer, shape)
    assert nk.weight_norm(layer, select="embedding" if kind == "embedding" else None) is layer
    assert torch.equal(run(layer, shape), expected)
    with torch.no_grad():
        torch.testing.assert_close(run(layer, shape), quiet, rtol=1e-6, atol=1e-6)  # of attention torch has a fast path
    assert lengths in [p.shape for name, p in layer.named_parameters() if name.endswith("original0")]
    nk.remove_weight_norm(layer)
    assert torch.equal(run(layer, shape), expected)
    assert [name for name, _ in layer.named_parameters()] == names
    assert not any(parametrize.is_parametrized(each) for each in layer.modules())


def test_each_output_channel_of_a_grouped_transposed_convolution_has_its_length():
    torch.manual_seed(0)
    layer = nn.ConvTranspose1d(4, 6, 2, groups=2, bias=False)
    w = layer.weight.detach().double().numpy()  # [in, out/groups, k]
    nk.weight_norm(layer)
    g = layer.parametrizations.weight.original0.detach()
    expected = [[np.linalg.norm(w[2 * block : 2 * block + 2, j]) for j in range(3)] for block in range(2)]
    np.testing.assert_allclose(g[:, :, 0], expected, rtol=1e-6)
    before = layer(torch.ones(1, 4, 1))
    with torch.no_grad():
        layer.parametrizations.weight.original0[1, 2] *= 3
    after = layer(torch.ones(1, 4, 1))
    assert torch.equal(after[:, :5], before[:, :5])
    torch.testing.assert_close(after[:, 5], 3 * before[:, 5])


@pytest.mark.parametrize("shape", [(5, 1), (1, 4), (3, 4)])
@pytest.mark.parametrize("per", ["out", "in", 0, 1, -1, "tensor", (0, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_shape_group_and_precision(shape, per, dtype):
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0]).to(dtype)
    w = layer.weight.detach().clone()
    nk.weight_norm(layer, per=per)
    kept = {"out": (0,), "in": (1,), 0: (0,), 1: (1,), -1: (1,), "tensor": (), (0, 1): (0, 1)}[per]
    g, v = (part.detach() for part in layer.parametrizations.weight.parameters())
    close = {torch.float64: 1e-14, torch.float32: 3e-7, torch.float16: 6e-4, torch.bfloat16: 5e-3}[dtype]
    np.testing.assert_allclose(g.double(), normal.lengths(w.double().numpy(), kept), rtol=close)
    assert torch.equal(v, w)
    assert layer.weight.dtype is dtype
    if dtype.itemsize > 2:
        assert torch.equal(layer.weight, w)
    else:  # g itself is rounded
        torch.testing.assert_close(layer.weight.detach(), w, rtol=2 * close, atol=0)


@pytest.mark.parametrize("p", [1, 1.5, 3, float("inf")])
def test_other_lengths(p):
    torch.manual_seed(0)
    layer = nk.weight_norm(nn.Linear(4, 3).double(), p=p)
    g, v = (part.detach().numpy() for part in layer.parametrizations.weight.parameters())
    np.testing.assert_allclose(g, normal.lengths(v, (0,), p), rtol=1e-14)
    assert f"p={'math.inf' if p == float('inf') else p}" in repr(layer)


def test_a_model_by_selection():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3), nn.Embedding(4, 3))
    nk.weight_norm(model, select=nn.Conv2d)
    normed = [place.param.name for place in walk(model) if place.param.part == "effective"]
    assert normed == ["0.weight"]
    nk.weight_norm(model, select="3.*")
    assert [(p.param.name, p.param.part) for p in walk(model) if p.param.part != "whole"] == [
        (f"{i}.weight{suffix}", part) for i in (0, 3) for suffix, part in (("", "effective"), (".g", "g"), (".v", "v"))
    ]
    assert "WeightNorm(per='out')" in repr(model)


def test_the_weight_is_never_stale():
    layer = nk.weight_norm(nn.LSTM(3, 4))
    x = torch.randn(2, 1, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    before = layer(x)[0]
    before.sum().backward()
    optimizer.step()
    after = layer(x)[0]
    assert not torch.equal(before, after)
    plain = nn.LSTM(3, 4)
    plain.load_state_dict(nk.convert_state_dict(layer.state_dict(), "plain"))
    assert torch.equal(plain(x)[0], after)


@pytest.mark.parametrize("kind", ["lstm", "gru", "attention"])
def test_layers_that_ask_often_work_each_weight_out_once(kind, monkeypatch):
    build, shape, _ = LAYERS[kind]
    layer = nk.weight_norm(build())
    asked = []
    compute = WeightNorm.forward
    monkeypatch.setattr(WeightNorm, "forward", lambda self, g, v: asked.append(self) or compute(self, g, v))
    run(layer.train(), shape)
    assert len(asked) == len(set(asked)) > 0
    with torch.no_grad():
        run(layer.eval(), shape)
    assert len(asked) == 2 * len(set(asked))


def test_a_recurrent_layer_keeps_no_weight_and_no_graph_after_forward(monkeypatch):
    layer, made = nk.weight_norm(nn.GRU(3, 4)), []
    compute = WeightNorm.forward

    def noted(self, g, v):
        made.append(weakref.ref(w := compute(self, g, v)))
        return w

    monkeypatch.setattr(WeightNorm, "forward", noted)
    out = layer(torch.randn(2, 1, 3))[0]
    assert len(made) == 2
    del out
    gc.collect()
    assert [ref() for ref in made] == [None, None]
    assert layer.__dict__["_flat_weights"] == [None] * 4
    assert all(weight is not None for weight in layer._flat_weights)
    layer.flatten_parameters()
    layer.to(torch.float64)(torch.randn(2, 1, 3, dtype=torch.float64))
    assert layer.all_weights[0][0].dtype is torch.float64


def test_torchs_own_removal_works_too():
    layer = nk.weight_norm(nn.LSTM(3, 4))
    x = torch.randn(2, 1, 3)
    expected = layer(x)[0]
    for name in ("weight_ih_l0", "weight_hh_l0"):
        parametrize.remove_parametrizations(layer, name)
    assert type(layer) is nn.LSTM
    assert torch.equal(layer(x)[0], expected)


def test_a_recurrent_layer_in_two_threads():
    layer = nk.weight_norm(nn.GRU(3, 4, 2))
    batches = [torch.randn(6, 2, 3) for _ in range(12)]
    expected = [layer(x)[0] for x in batches]
    with ThreadPoolExecutor(2) as pool:
        for one, other in zip(pool.map(lambda x: layer(x)[0], batches), expected, strict=True):
            assert torch.equal(one, other)


def test_a_meta_model_can_be_normalized():
    layer = nk.weight_norm(nn.Linear(4, 3, device="meta"))
    assert layer(torch.empty(2, 4, device="meta")).shape == (2, 3)
    layer.to_empty(device="cpu").load_state_dict(nk.weight_norm(nn.Linear(4, 3)).state_dict())
    assert layer(torch.zeros(2, 4)).shape == (2, 3)
