"""`normkit run` as a process: what it records, says and returns."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from normkit.errors import FileError
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
PROGRAM = "from normkit.cli import main; import sys; sys.exit(main())"  # what an installed `normkit` does
ENDS = {
    "plain": ("", 0, "finished"),
    "exit": ("sys.exit(3)", 3, "error: exit code 3"),
    "error": ("raise ValueError('no good')", 1, "error: ValueError"),
    "interrupt": ("raise KeyboardInterrupt", -signal.SIGINT, "interrupted"),
    "exit 130": ("sys.exit(130)", 130, "error: exit code 130"),
}


def normkit(*arguments, cwd, **more):
    command = [sys.executable, "-m", "normkit.cli", *arguments]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", cwd=cwd, env=env, check=False, **more
    )


def recorded(path):
    """How many records can be read by now, of a file that may not have begun."""
    try:
        return len(load(path).steps)
    except FileError:
        return 0


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


IDLE = "no PyTorch optimizer took a step, and no Keras model was fitted"


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("print('hello')", 0, f"normkit: nothing was recorded: {IDLE}\n"),
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


@pytest.mark.slow
@pytest.mark.parametrize("program", [["-m", "normkit.cli"], ["-m", "normkit"], ["-c", PROGRAM]])
def test_ctrl_c_ends_as_under_python_with_a_closed_file(program, folder):
    (folder / "train.py").write_text(
        TRAIN.replace("range(5)", "range(10**9)").replace("    loss =", "    print(step, flush=True)\n    loss =")
    )
    command = [sys.executable, *program, "run", "--to", "mine", "train.py"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    for line in process.stdout:
        if line.strip() == "20":
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT  # dead of the signal: a shell that loops over runs stops as well
    assert err.endswith("Next:  normkit show mine.norms\n")
    assert load(folder / "mine.norms").meta["end"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("style", [["train.py"], ["--", sys.executable, "train.py"]], ids=["here", "below"])
def test_sigterm_kills_as_under_python_and_what_was_written_stays(style, folder):
    endless = TRAIN.replace("range(5)", "range(10**9)").replace("    loss =", "    print(step, flush=True)\n    loss =")
    (folder / "train.py").write_text(endless)
    command = [sys.executable, "-m", "normkit", "run", "--to", "mine", *style]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    while recorded(folder / "mine.norms") < 5:
        process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    recording = load(folder / "mine.norms")
    assert recording.steps[:5].tolist() == [0, 1, 2, 3, 4]
    assert "end" not in recording.meta


def test_exit_handlers_run_after_ctrl_c(folder):
    (folder / "plain.py").write_text(
        "import atexit, sys\natexit.register(lambda: print('handled'))\nprint('before')\nraise KeyboardInterrupt"
    )
    done = normkit("run", "plain.py", cwd=folder)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "before\nhandled\n")
    assert done.stderr.count("Traceback") == 1


@pytest.mark.parametrize("end", ["", "raise SystemExit(4)"])
def test_quiet_says_nothing(end, folder):
    (folder / "train.py").write_text(TRAIN + end)
    done = normkit("run", "--quiet", "--to", "mine", "train.py", cwd=folder)
    assert (done.stdout, done.stderr) == ("loss is a number []\n", "")
    assert load(folder / "mine.norms").meta["steps"] == 5


def test_quiet_says_nothing_of_a_script_that_trains_nothing(folder):
    (folder / "plain.py").write_text("print('hello')")
    assert normkit("run", "--quiet", "plain.py", cwd=folder).stderr == ""


@pytest.mark.parametrize(
    ("to", "sentence"),
    [
        ("sub", "--to='sub' is a directory; give the name of a file, such as 'sub/mine.norms'"),
        ("plain.py/mine", "the recording 'plain.py/mine.norms' cannot be made"),
        ("", "--to='' is empty; give the name of a file"),
    ],
)
def test_a_path_that_cannot_be_made_is_refused_before_the_script_runs(to, sentence, folder):
    (folder / "plain.py").write_text("print('it ran')")
    (folder / "sub").mkdir()
    done = normkit("run", "--to", to, "plain.py", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"normkit: {sentence}")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False], ids=["before torch", "after torch"])
@pytest.mark.parametrize("to", [None, "mine"])
def test_a_script_that_changes_its_folder_is_recorded_where_the_command_was_given(before, to, folder):
    move = "import os, sys\nos.makedirs('deep/er', exist_ok=True)\nos.chdir('deep/er')\n"
    (folder / "train.py").write_text(move + TRAIN if before else TRAIN.replace("torch.manual_seed(0)", move))
    done = normkit("run", *([] if to is None else ["--to", to]), "train.py", cwd=folder)
    assert done.returncode == 0
    assert not list((folder / "deep").rglob("*.norms"))
    (made,) = folder.glob("runs/train-*.norms" if to is None else "mine.norms")
    assert load(made).meta["steps"] == 5
    assert done.stderr.endswith("Next:  normkit show\n" if to is None else "Next:  normkit show mine.norms\n")


def test_a_recording_that_was_refused_says_why(folder):
    fake = "class Session:\n    refused, silent = 'the disk is\\nfull', False\n    def close(self, end): return None\n"
    (folder / "door.py").write_text(fake + "def arm(options): return Session()\n")
    (folder / "plain.py").write_text("import door, colorsys")
    program = "from normkit.cli import watch; watch.DOORS = {'colorsys': 'door'}; " + PROGRAM
    for quiet in ([], ["--quiet"]):
        command = [sys.executable, "-c", program, "run", *quiet, "plain.py"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        assert (done.returncode, done.stderr) == (0, "normkit: nothing was recorded: the disk is full\n")


def test_ctrl_c_in_another_command_is_silent(folder):
    broken = "import click\n@click.command()\ndef command():\n    raise KeyboardInterrupt\n"
    (folder / "broken.py").write_text(broken)
    program = "import sys, broken; sys.modules['normkit.cli.show'] = broken; sys.argv[1:] = ['show']; " + PROGRAM
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=folder, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


BROKEN_OFF = """
import sys
import torch
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(3):
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
raise SystemExit(4 if "--break" in sys.argv else 0)
"""


@pytest.mark.slow
def test_resume_finds_the_run_that_broke_off(tmp_path):
    (tmp_path / "train.py").write_text(BROKEN_OFF + "\n")
    (tmp_path / "runs").mkdir()
    normkit("run", "--to", "runs/train-20260101-1200", "train.py", "--break", cwd=tmp_path)
    done = normkit("run", "--resume", "train.py", "--break", cwd=tmp_path)
    assert "train-20260101-1200.norms, attempt 2" in done.stderr
    assert "attempt" not in normkit("run", "--resume", "train.py", cwd=tmp_path).stderr  # another command
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_resume_of_what_is_no_recording_is_refused_before_the_script(tmp_path):
    (tmp_path / "train.py").write_text("print('trained')")
    (tmp_path / "a.norms").write_text("step,epoch\n")
    done = normkit("run", "--resume", "--to", "a.norms", "train.py", cwd=tmp_path)
    assert done.returncode == 3
    assert "is not a normkit recording" in done.stderr
    assert "trained" not in done.stdout
