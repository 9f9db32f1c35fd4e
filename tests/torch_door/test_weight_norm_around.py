"""What stands around weight-normed layers: compilers, export, precision, wrappers, the recorder."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
from normkit.errors import ModelError
from normkit.torch.walk import walk

pytestmark = pytest.mark.usefixtures("one_thread")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def test_torch_compile_takes_it_whole():
    model = nk.weight_norm(nn.Sequential(nn.Conv1d(2, 4, 2, groups=2), nn.Flatten(), nn.Linear(8, 3)))
    x = torch.randn(2, 2, 3)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    expected = torch.autograd.grad((model(x) ** 2).sum(), list(model.parameters()))
    for one, other in zip(
        torch.autograd.grad((compiled(x) ** 2).sum(), list(model.parameters())), expected, strict=True
    ):
        torch.testing.assert_close(one, other)


def test_the_folded_model_can_be_exported():
    model = nk.remove_weight_norm(nk.weight_norm(net()))
    x = torch.randn(2, 4)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


def test_autocast():
    model = nk.weight_norm(net())
    with torch.autocast("cpu", torch.bfloat16):
        y = model(torch.randn(8, 4))
    assert y.dtype is torch.bfloat16
    y.float().sum().backward()
    assert all(p.grad.dtype is torch.float32 and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_an_embedding_with_sparse_gradients():
    torch.manual_seed(0)
    sparse, dense = (nn.Embedding(5, 3, sparse=sparse) for sparse in (True, False))
    dense.load_state_dict(sparse.state_dict())
    for layer in (sparse, dense):
        nk.weight_norm(layer, select="embedding")
        (layer(torch.tensor([1, 4])) ** 3).sum().backward()
    for one, other in zip(sparse.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_attention_with_weights_apart():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, kdim=3, vdim=5)
    names = [name for name, _ in layer.named_parameters()]
    inputs = torch.randn(3, 1, 4), torch.randn(2, 1, 3), torch.randn(2, 1, 5)
    expected = layer(*inputs)[0]
    assert torch.equal(nk.weight_norm(layer)(*inputs)[0], expected)
    assert torch.equal(nk.remove_weight_norm(layer)(*inputs)[0], expected)
    assert [name for name, _ in layer.named_parameters()] == names


def test_a_double_and_a_half_model():
    model = nk.weight_norm(net())
    x = torch.randn(2, 4)
    expected = model(x)
    torch.testing.assert_close(model.double()(x.double()).float(), expected)
    torch.testing.assert_close(model.bfloat16()(x.bfloat16()).float(), expected, rtol=0.05, atol=0.05)


@pytest.fixture(name="one_rank")
def _one_rank(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel(one_rank):
    model, plain = nk.weight_norm(net()), nk.weight_norm(net())
    spread = nn.parallel.DistributedDataParallel(model)
    x = torch.randn(3, 4)
    for each in (spread, plain):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        (each(x) ** 2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), plain.state_dict())
    with pytest.raises(ModelError, match=r"0.weight is held by a wrapper.*before DistributedDataParallel"):
        nk.weight_norm(nn.parallel.DistributedDataParallel(net()))


def test_fully_sharded(one_rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    model, plain = nk.weight_norm(net()), nk.weight_norm(net())
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    x = torch.randn(3, 4)
    for each in (model, plain):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        (each(x) ** 2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(model(x), plain(x))
    late = fully_shard(net(), mesh=mesh)
    with pytest.raises(ModelError, match="before fully_shard"):
        nk.weight_norm(late)
    with pytest.raises(ModelError, match=r"weight is (of the tensor class DTensor|sharded)"):
        nk.remove_weight_norm(model)


# --- the recorder and the look ---------------------------------------------------------------------------------------


def test_the_parts_and_the_effective_weight_have_their_names():
    model = nk.weight_norm(nn.Sequential(nn.Linear(4, 3), nn.GRU(3, 2)))
    norms = nk.norms(model)
    for name in ("0.weight", "1.weight_ih_l0", "1.weight_hh_l0"):
        assert norms[name] == pytest.approx(norms[f"{name}.v"])
        assert norms[f"{name}.g"] == pytest.approx(norms[name])
    assert list(nk.norms(model, per="out", select="0.weight*")) == ["0.weight", "0.weight.g", "0.weight.v"]
    parts = {p.param.name: p.param.part for p in walk(model)}
    assert parts["1.weight_hh_l0"] == "effective"
    assert parts["1.weight_hh_l0.g"] == "g"


def test_a_recording_goes_through_wrapping(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with nk.record(model, optimizer, to=tmp_path / "a.norms", every=1) as recorder:
            for step in range(4):
                if step == 2:
                    nk.weight_norm(model, optimizer=optimizer)
                optimizer.zero_grad()
                model(torch.ones(2, 4)).sum().backward()
                optimizer.step()
    assert recorder.steps == 4
