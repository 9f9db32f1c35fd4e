"""The Python processes below `normkit run`: those that train are recorded, the others notice nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from normkit.cli.below import VARIABLE, told
from normkit.cli.telling import STARTUP, telling
from normkit.readers.recording import load
from normkit.recording.options import Options

RUN = [sys.executable, "-m", "normkit.cli", "run"]
FIT = """
import sys, torch
def fit():
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
"""
CHILDREN = """
from fit import *
import multiprocessing
def work(fail):
    fit()
    if fail:
        raise ValueError("no good")
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    if sys.argv[1] == "fork":
        fit()  # the children inherit a recording under way
    for fail in (False, True):
        child = context.Process(target=work, args=(fail,))
        child.start()
        child.join()
        print(child.exitcode)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "fit.py").write_text(FIT)
    return tmp_path


def ran(*words, cwd):
    return subprocess.run([*RUN, *words], capture_output=True, text=True, cwd=cwd, check=False)


def ends(folder):
    runs = [load(path) for path in sorted(folder.rglob("*.norms"))]
    assert [run.steps.tolist() for run in runs] == [[0, 1, 2, 3]] * len(runs)
    return sorted(run.meta["end"] for run in runs)


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("spawn", "forkserver"))]
)
def test_children_of_multiprocessing_are_recorded_and_closed(method, folder):
    pytest.importorskip("torch")
    (folder / "train.py").write_text(CHILDREN)
    done = ran("--to", "mine", "train.py", method, cwd=folder)
    assert (done.stdout, done.returncode) == ("0\n1\n", 0)
    own = ["finished"] if method == "fork" else []
    assert ends(folder) == sorted(["error: ValueError", "interpreter exit", *own])
    assert not list(folder.glob("*-wal"))
    assert done.stderr.count("normkit: recorded 3 of 3 steps") == 2 + len(own)
    assert re.findall("Next: .*", done.stderr) == ["Next:  normkit show mine.norms"]


def test_a_process_that_the_script_starts_is_recorded_under_its_own_name(folder):
    pytest.importorskip("torch")
    (folder / "other.py").write_text("from fit import fit\nimport os\nos.chdir('/')\nfit()\n1 / 0")
    (folder / "train.py").write_text("import subprocess, sys\nsubprocess.run([sys.executable, 'other.py'])")
    done = ran("train.py", cwd=folder)
    assert done.returncode == 0
    assert [path.name[:6] for path in folder.glob("runs/*")] == ["other-"]
    assert ends(folder) == ["error: ZeroDivisionError"]
    assert done.stderr.endswith("Next:  normkit show\n")


def test_one_run_inside_another_records_once_and_says_one_last_line(folder):
    pytest.importorskip("torch")
    (folder / "train.py").write_text("from fit import fit\nfit()")
    inner = " ".join([*RUN, "--to", "inner", "train.py"])
    done = ran("--to", "outer", "--", "sh", "-c", inner, cwd=folder)
    assert [path.name for path in folder.rglob("*.norms")] == ["inner.norms"]
    assert re.findall("Next: .*", done.stderr) == ["Next:  normkit show inner.norms"]


def test_a_child_that_records_itself_is_not_recorded_twice(folder):
    pytest.importorskip("torch")
    (folder / "own.py").write_text(
        "import torch, normkit.torch as nk\nw = torch.nn.Parameter(torch.ones(3))\n"
        "optimizer = torch.optim.SGD([w], lr=0.1)\nwith nk.record(optimizer=optimizer, to='own'):\n"
        "    for _ in range(3):\n        optimizer.step()\n"
    )
    done = ran("--to", "mine", "--", sys.executable, "own.py", cwd=folder)
    assert [path.name for path in folder.rglob("*.norms")] == ["own.norms"]
    assert done.stderr.endswith("normkit: nothing more was recorded: the script records itself\n")


LOOK = (
    "import sys; print([f for f in sys.path if 'startup' in f], sorted({'json', 'typing', 'click'} & {*sys.modules}))"
)


def test_a_child_that_imports_no_framework_notices_nothing(folder):
    done = ran("--", sys.executable, "-S", "-c", "import site; site.main(); " + LOOK, cwd=folder)
    assert done.stdout == "[] []\n"
    assert sys.executable not in done.stderr


@pytest.mark.parametrize(
    ("text", "out", "err"),
    [
        ("print('the other', __name__)", "the other sitecustomize\n", ""),
        ("raise ValueError('it broke')", "", "ValueError: it broke"),
        ("import no_such_module", "", "No module named 'no_such_module'"),
    ],
)
def test_another_sitecustomize_runs_as_without_ours(text, out, err, folder):
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(text)
    python = [sys.executable, "-c", "print('it ran')"]
    env = {**os.environ, "PYTHONPATH": str(folder / "site")}
    plain = subprocess.run(python, capture_output=True, text=True, env=env, check=False)
    assert (plain.stdout, err in plain.stderr) == (f"{out}it ran\n", True)
    behind = f'PYTHONPATH="$PYTHONPATH:{folder}/site" exec "$@"'
    below = ran("--quiet", "--", "sh", "-c", behind, "-", *python, cwd=folder)
    assert (below.stdout, below.stderr) == (plain.stdout, plain.stderr)


def test_a_python_without_normkit_is_left_alone(folder):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import sitecustomize; print('it ran')"
    command = [sys.executable, "-I", "-S", "-c", code, STARTUP]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env={VARIABLE: Options().text()}, check=False
    )
    assert (done.stdout, done.stderr) == ("it ran\n", "")


@pytest.mark.parametrize("given", ["", "no json", "3", '{"to": 1, "from": 2}'])
def test_what_another_version_says_breaks_nothing(given, monkeypatch):
    monkeypatch.setenv(VARIABLE, given)
    assert told() in (None, Options(to=1))


def test_options_come_through_the_environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["a", STARTUP, "b"]))
    monkeypatch.delenv(VARIABLE, raising=False)
    options = Options(to="/x/mine.norms", every=7, quiet=True, folder="/x", ledger="/tmp/y", teller=3)
    with telling(options):
        assert os.environ["PYTHONPATH"].split(os.pathsep) == [STARTUP, "a", "b"]
        assert told() == options
        assert json.loads(os.environ[VARIABLE])["every"] == 7
        os.environ["PYTHONPATH"] = "changed"
    assert os.environ["PYTHONPATH"] == "changed"
    assert VARIABLE not in os.environ
