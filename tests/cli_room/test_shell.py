"""`%run -m normkit run train.py` in a live IPython: the shell goes on as if nothing had been."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from normkit.cli.shell import inside_shell
from normkit.readers.recording import load

TRAIN = """
import os, sys, torch
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
print("trained", __name__, sys.argv[1:])
if "fail" in sys.argv:
    raise ValueError("no good")
if "stop" in sys.argv:
    raise KeyboardInterrupt
if "exit" in sys.argv:
    sys.exit(3)
"""
OWN = """
import torch, normkit.torch as nk
w = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([w], lr=0.1)
with nk.record(optimizer=optimizer, to="own"):
    for _ in range(3):
        w.square().sum().backward()
        optimizer.step()
"""
DRIVER = """
import json, os, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
def state():
    from torch.optim import optimizer
    hooks = [len(hooks) for hooks in (optimizer._global_optimizer_pre_hooks, sys.meta_path)]
    main = sys.modules["__main__"]
    return [sys.argv[:], sys.path[:], sorted(os.environ.items()), hooks, repr(sys.excepthook), main.__name__, id(main)]
shell.run_cell("kept = 5")
shell.run_cell("%run own.py")  # what is imported for good is there from here on
for line in json.loads(sys.argv[1]):
    shell.run_cell("%run plain.py")  # what IPython itself leaves behind
    before = state()
    done = shell.run_cell(line)
    print("put back:", [a == b for a, b in zip(before, state())].count(False), done.success)
shell.run_cell("print('kept', kept)")
"""
LINES = [
    "%run own.py",
    "%run -m normkit run train.py --lr 1",
    "%run -m normkit run train.py --lr 1",
    "%run -m normkit -- run train.py fail",
    "%run -m normkit run train.py stop",
    "%run -m normkit run train.py exit",
    "%run -m normkit run nothere.py",
    "%run -m normkit run -- sh -c 'kill -9 $$'",
    "%run -m normkit run --nothere",
]


def test_a_shell_survives_its_runs(tmp_path):
    pytest.importorskip("IPython")
    pytest.importorskip("torch")
    for name, text in {"train.py": TRAIN, "own.py": OWN, "plain.py": "", "drive.py": DRIVER}.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "drive.py", json.dumps(LINES)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("put back: 0 True") == len(LINES)
    assert done.stdout.splitlines()[-1] == "kept 5"
    assert done.stdout.count("trained __main__ ['--lr', '1']") == 2
    assert "SystemExit" not in done.stdout + done.stderr
    assert "there is no script 'nothere.py'" in done.stderr
    runs = {path.name: load(path) for path in tmp_path.rglob("*.norms")}
    assert [run.steps.tolist() for run in runs.values()] == [[0, 1, 2, 3]] * 7
    assert [len(run.tensors) for name, run in runs.items() if "own" not in name] == [
        2
    ] * 5  # no model of an earlier run
    ends = sorted(run.meta["end"] for run in runs.values())
    assert ends == ["error: ValueError", "error: exit code 3", *["finished"] * 4, "interrupted"]
    assert {name.partition("-2")[0] for name in runs} == {"own", "own.norms", "train"}


def test_a_process_without_a_shell_is_none():
    assert not inside_shell()
