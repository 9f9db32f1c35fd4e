"""Several processes that train one model together: rank 0 records, the others make no file and say nothing."""

from __future__ import annotations

import re
import socket
import subprocess
import sys

import pytest

from normkit.readers.recording import load

TRAIN = """
import os, sys, torch
import torch.distributed as dist
dist.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
print(f"rank {dist.get_rank()} {sys.argv[1:]}\\n", end="", flush=True)
dist.barrier()
if dist.get_rank():
    os._exit(0)  # torch may abort a process at its end while its peers are at work
dist.destroy_process_group()
"""
SPAWN = """
import os, sys, torch.multiprocessing
def work(rank, *_):
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[1])
    if "unset" in sys.argv:
        import torch.distributed as dist
        dist.init_process_group("gloo", rank=rank, world_size=2)
        del os.environ["RANK"]
        dist.init_process_group = lambda *_: None
    exec(open("train.py").read(), {"__name__": "__main__"})
if __name__ == "__main__":
    torch.multiprocessing.spawn(work, nprocs=2)
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
RUN = ["-m", "normkit", "run"]
STYLES = {
    "run torchrun": [sys.executable, *RUN, "--", *TORCHRUN, "train.py", "--lr", "1"],
    "torchrun run": [*TORCHRUN, *RUN, "train.py", "--lr", "1"],
    "torchrun no python": [*TORCHRUN, "--no-python", sys.executable, *RUN, "train.py", "--lr", "1"],
}


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def assert_one_recording(command, folder, arguments):
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"rank {rank} {arguments}" for rank in (0, 1)]
    said = [line for line in done.stderr.splitlines() if line.startswith(("normkit:", "Next:"))]
    assert [line.split()[1] for line in said] == ["recording", "recorded", "normkit"]
    (made,) = folder.glob("runs/*.norms")
    assert re.fullmatch(r"(train|spawn)-\d{8}-\d{4}\.norms", made.name)
    assert load(made).steps.tolist() == [0, 1, 2, 3]
    assert load(made).meta["end"] in ("finished", "interpreter exit")


@pytest.mark.parametrize(
    "style",
    ["run torchrun", *(pytest.param(name, marks=pytest.mark.slow) for name in ("torchrun run", "torchrun no python"))],
)
def test_torchrun_is_recorded_once(style, folder):
    assert_one_recording(STYLES[style], folder, ["--lr", "1"])


@pytest.mark.slow
@pytest.mark.parametrize("told", ["set", "unset"])
def test_processes_that_the_script_spawns_are_recorded_once(told, folder):
    (folder / "spawn.py").write_text(SPAWN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    assert_one_recording([sys.executable, *RUN, "spawn.py", port, told], folder, [port, told])


@pytest.mark.parametrize("rank", ["0", "1"])
def test_only_rank_0_says_that_nothing_was_recorded(rank, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    (tmp_path / "plain.py").write_text("")
    done = subprocess.run([sys.executable, *RUN, "plain.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert bool(done.stderr) == (rank == "0")
