"""Penalty, constraint and proximal step of a model dealt out by `fully_shard`: what the whole model gives."""

from __future__ import annotations

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("torch was built without distributed", allow_module_level=True)

COMPARED = """
import os, sys, torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
import normkit.torch as nk

TERMS = [dict(l2=0.5, l1=0.1, group=0.2, toward=0.3), dict(group=0.2, per="in"), dict(orthogonality=0.1, spectral=0.2)]
LIMITS = [dict(max_norm=0.3), dict(max_norm=0.3, per="in"), dict(hold="initial"), dict(spectral_cap=0.3)]


def net(mesh=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))
    if mesh is not None:
        fully_shard(model[0], mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


def same(whole, parts):
    for w, part in zip(whole, parts, strict=True):
        torch.testing.assert_close(part.full_tensor(), w)


def penalties(mesh, x):
    for terms in TERMS:
        for early in (True, False):  # before the forward the weights are in parts, after it some are whole
            whole, parts = net(), net(mesh)
            one, other = nk.penalty(whole, **terms), nk.penalty(parts, **terms)
            with torch.no_grad():
                for p in (*whole.parameters(), *parts.parameters()):
                    p.add_(0.1)
            loss = whole(x).square().mean() + one()
            value = other() if early else None
            sharded = parts(x).square().mean()
            sharded = sharded + (other() if value is None else value)
            torch.testing.assert_close(sharded, loss)
            torch.testing.assert_close(other.terms, one.terms)
            loss.backward()
            sharded.backward()
            same([p.grad for p in whole.parameters()], [p.grad for p in parts.parameters()])
            other.check()


def limits(mesh, x):
    for limit in LIMITS:
        whole, parts = net(), net(mesh)
        for model in (whole, parts):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            nk.constrain(optimizer, **limit, model=model)
            nk.proximal(optimizer, l1=0.1, group=0.1, per=limit.get("per", "out"), model=model)
            model(x).square().mean().backward()
            optimizer.step()
        same(whole.parameters(), parts.parameters())


def main(rank, world, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    torch.manual_seed(1)
    x = torch.randn(4, 6)
    penalties(mesh, x)
    limits(mesh, x)
    dist.destroy_process_group()
    print("the same")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.slow
def test_in_parts_as_whole(tmp_path):
    """With two processes 5 rows are cut into 3 and 2, and a group that is not a row lies in both."""
    world = 2
    script = tmp_path / "compared.py"
    script.write_text(COMPARED)
    command = [sys.executable, "-W", "ignore", str(script)]
    store = str(tmp_path / "store")
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(world), store], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]
    for rank in ranks:
        out, err = rank.communicate(timeout=120)
        assert rank.returncode == 0, err
        assert "the same" in out
