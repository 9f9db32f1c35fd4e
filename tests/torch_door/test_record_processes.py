"""`nk.record` among processes: interpreter exit, forked workers, an interrupt, a reader while it writes."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import time

import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import net, one_step

SCRIPT = """
import sys, torch
import normkit.torch as nk
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
rec = nk.record(model, optimizer, to="run", every=5)
for step in range(7):
    optimizer.zero_grad()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
{end}
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [("pass", 0, "interpreter exit"), ("sys.exit(3)", 3, "interpreter exit"), ("1 / 0", 1, "interpreter exit")],
)
def test_a_script_that_never_closes(end, code, said, tmp_path):
    script = textwrap.dedent(SCRIPT).format(end=end)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    run = normkit.load(tmp_path / "run.norms")
    assert run.steps.tolist() == [0, 5, 7]
    assert run.meta["end"] == said
    assert "recorded 2 of 7 steps x 2 tensors" in done.stderr
    assert not (tmp_path / "run.norms-wal").exists()


def test_an_interrupt(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyboardInterrupt), nk.record(model, optimizer, to=tmp_path / "run", quiet=True) as rec:
        one_step(model, optimizer, 1)
        raise KeyboardInterrupt
    assert normkit.load(rec.path).meta["end"] == "interrupted"


def test_a_reader_while_it_writes(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=tmp_path / "run", every=1, quiet=True) as rec:
        for step in range(1, 6):
            one_step(model, optimizer, step)
        time.sleep(1.2)  # a commit is at most a second away
        code = f"import normkit; print(normkit.load({str(rec.path)!r}).steps.tolist())"
        seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert seen.stdout.strip() == "[0, 1, 2, 3, 4, 5]"
        one_step(model, optimizer, 6)
    assert normkit.load(rec.path).steps.tolist() == list(range(7))


def test_a_forked_child_leaves_the_file_to_its_parent(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=tmp_path / "run", every=1, quiet=True) as rec:
        one_step(model, optimizer, 1)
        child = multiprocessing.get_context("fork").Process(target=rec.close)
        child.start()
        child.join(20)
        assert child.exitcode == 0
        one_step(model, optimizer, 2)
    run = normkit.load(rec.path)
    assert run.steps.tolist() == [0, 1, 2]
    assert run.meta["end"] == "finished"


def test_workers_of_a_data_loader(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = torch.utils.data.DataLoader([torch.ones(6)] * 8, batch_size=2, num_workers=2)
    with nk.record(model, optimizer, to=tmp_path / "run", every=1, quiet=True) as rec:
        for _ in range(2):
            for x in loader:
                optimizer.zero_grad()
                model(x).sum().backward()
                optimizer.step()
    assert normkit.load(rec.path).steps.tolist() == list(range(9))
    assert os.getpid() == rec._pid
