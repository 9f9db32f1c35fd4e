"""`nk.record` on models that torch compiles to machine code, or wraps for distributed training."""

import os

import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import batch, net, one_step

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch warns of itself while it compiles


def trained(path):
    model = net()
    compiled = torch.compile(model)
    optimizer = torch.optim.AdamW(compiled.parameters(), lr=0.01)
    rec = nk.record(compiled, optimizer, to=path, every=1, quiet=True) if path else None
    for step in range(50):
        one_step(compiled, optimizer, step)
    if rec:
        rec.close()
    state = [*model.parameters(), *(p.grad for p in model.parameters()), torch.get_rng_state()]
    return state + [v for s in optimizer.state.values() for v in s.values()]


def test_a_model_compiled_to_machine_code_trains_bit_for_bit_the_same(tmp_path):
    bare, recorded = trained(None), trained(tmp_path / "run")
    assert len(bare) == len(recorded) > 8
    assert all(torch.equal(a, b) for a, b in zip(bare, recorded, strict=True))
    assert normkit.load(tmp_path / "run.norms").steps.tolist() == list(range(51))


def test_a_distributed_model_bears_the_names_of_the_bare_one(tmp_path):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = torch.nn.parallel.DistributedDataParallel(net())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with nk.record(model, optimizer, to=tmp_path / "run", every=1, quiet=True) as rec:
            optimizer.zero_grad()
            model(batch(1)[0]).sum().backward()
            optimizer.step()
    finally:
        torch.distributed.destroy_process_group()
    run = normkit.load(rec.path)
    assert set(run.tensors) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert run.series("0.weight", quantity="grad")[1] > 0
