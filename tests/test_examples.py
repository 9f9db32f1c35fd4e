"""The examples run, and the second differs from the first by what it says: two lines and one scalar."""

import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = ("digits.py", "digits_recorded.py")


def run_example(name: str, folder: Path, *args: str) -> str:
    """The output of an example run in `folder`, at a fraction of its length."""
    pytest.importorskip("torch", reason="the examples train in torch")
    pytest.importorskip("sklearn", reason="the examples read scikit-learn's digits")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *args],
        cwd=folder,
        env=os.environ | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_example_learns_the_digits(name, tmp_path):
    lines = run_example(name, tmp_path, "--epochs", "2").splitlines()
    epochs = [line for line in lines if line.startswith("epoch")]
    assert len(epochs) == 2
    assert float(epochs[-1].split()[-1].rstrip("%")) > 80


def test_recorded_example_leaves_one_recording_of_every_tensor(tmp_path):
    run_example("digits_recorded.py", tmp_path, "--epochs", "2")
    recordings = list((tmp_path / "runs").glob("*.norms"))
    assert len(recordings) == 1
    import normkit

    recording = normkit.load(recordings[0])
    assert len(recording.tensors) == 12
    assert recording.steps[0] == 0
    assert recording.steps[-1] == 2 * 23


def test_recording_does_not_change_what_the_example_prints(tmp_path):
    printed = [run_example(name, tmp_path, "--epochs", "1").splitlines() for name in SCRIPTS]
    plain, recorded = ([line for line in lines if line.startswith("epoch")] for lines in printed)
    assert plain == recorded


def test_recorded_example_is_the_plain_one_with_two_lines_and_a_scalar():
    plain, recorded = (code_lines(EXAMPLES / name) for name in SCRIPTS)
    changes = [line for line in difflib.ndiff(plain, recorded) if line[0] in "+-"]
    assert changes == [
        "+ import normkit.torch as nk",
        "+ with nk.record(model, optimizer) as rec:",
        "+ rec.log(loss=loss.detach())",
    ]


def test_plain_example_has_no_line_of_normkit():
    assert not [line for line in code_lines(EXAMPLES / "digits.py") if "normkit" in line]


def code_lines(path: Path) -> list[str]:
    """Lines of a script without its docstring, indentation and blank lines."""
    code = path.read_text().split('"""', 2)[2]
    return [line.strip() for line in code.splitlines() if line.strip()]
