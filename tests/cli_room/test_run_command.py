"""`normkit run` as a process: what it records, says and returns."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from normkit.readers.recording import load

TRAIN = """
import sys
import torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(5):
    loss = model(torch.randn(16, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("loss is a number", sys.argv[1:])
"""
ENDS = {
    "plain": ("", 0, "finished"),
    "exit": ("sys.exit(3)", 3, "error: exit code 3"),
    "error": ("raise ValueError('no good')", 1, "error: ValueError"),
    "interrupt": ("raise KeyboardInterrupt", 130, "interrupted"),
}


def normkit(*arguments, cwd, **more):
    command = [sys.executable, "-m", "normkit.cli", *arguments]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", cwd=cwd, env=env, check=False, **more
    )


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("torch")
    return tmp_path


@pytest.mark.parametrize("name", ENDS)
def test_run_records_and_gives_the_scripts_exit_code(name, folder):
    last, code, end = ENDS[name]
    (folder / "train.py").write_text(TRAIN + last)
    done = normkit("run", "--to", "mine", "--every", "1", "train.py", "--lr", "0.1", "--", "--help", cwd=folder)
    assert done.stdout == "loss is a number ['--lr', '0.1', '--', '--help']\n"
    assert done.returncode == code
    assert "normkit: recorded 5 of 5 steps x 4 tensors in mine.norms" in done.stderr
    assert done.stderr.endswith("Next:  normkit show mine.norms\n")
    assert "normkit/" not in done.stderr  # none of our frames in a traceback
    assert ("ValueError: no good" in done.stderr) == (name == "error")
    recording = load(folder / "mine.norms")
    assert recording.meta["end"] == end
    assert recording.tensors == ("0.weight", "0.bias", "2.weight", "2.bias")


def test_run_then_show_without_a_path(folder):
    (folder / "train.py").write_text(TRAIN)
    assert normkit("run", "train.py", cwd=folder).stderr.endswith("Next:  normkit show\n")
    shown = normkit("show", cwd=folder)
    assert shown.returncode == 0
    assert re.match(r"normkit: recorded \d of 5 steps x 4 tensors in runs/train-\d{8}-\d{4}\.norms\n", shown.stdout)
    assert "SGD lr 0.1" in shown.stdout


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("print('hello')", 0, "normkit: nothing was recorded: in this process no PyTorch optimizer took a step\n"),
        ("raise SystemExit(4)", 4, "normkit: nothing was recorded: the script ended before an optimizer took a step\n"),
    ],
)
def test_run_without_an_optimizer_says_so(text, code, sentence, folder):
    (folder / "plain.py").write_text(text)
    done = normkit("run", "plain.py", cwd=folder)
    assert (done.returncode, done.stderr) == (code, sentence)
    assert not (folder / "runs").exists()


def test_a_forked_child_says_nothing(folder):
    (folder / "plain.py").write_text("import os, sys\nif os.fork() == 0:\n    sys.exit(5)\nprint(os.wait()[1] >> 8)")
    done = normkit("run", "plain.py", cwd=folder)
    assert done.stdout == "5\n"
    assert done.stderr.count("nothing was recorded") == 1


def test_ctrl_c_ends_with_130_and_a_closed_file(folder):
    (folder / "train.py").write_text(
        TRAIN.replace("range(5)", "range(10**9)").replace("    loss =", "    print(step, flush=True)\n    loss =")
    )
    command = [sys.executable, "-m", "normkit.cli", "run", "--to", "mine", "train.py"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    for line in process.stdout:
        if line.strip() == "20":
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("Next:  normkit show mine.norms\n")
    assert load(folder / "mine.norms").meta["end"] == "interrupted"
