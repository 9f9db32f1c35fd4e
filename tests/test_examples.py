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


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """{name: (the lines that the example prints, the folder that it ran in)}, for two epochs."""
    folders = {name: tmp_path_factory.mktemp("example") for name in SCRIPTS}
    return {name: (run_example(name, folder, "--epochs", "2").splitlines(), folder) for name, folder in folders.items()}


def epochs(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("epoch")]


@pytest.mark.parametrize("name", SCRIPTS)
def test_example_learns_the_digits(printed, name):
    lines, _ = printed[name]
    assert len(epochs(lines)) == 2
    assert float(epochs(lines)[-1].split()[-1].rstrip("%")) > 80


def test_recorded_example_leaves_one_recording_of_every_tensor(printed):
    _, folder = printed["digits_recorded.py"]
    recordings = list((folder / "runs").glob("*.norms"))
    assert len(recordings) == 1
    import normkit

    recording = normkit.load(recordings[0])
    assert len(recording.tensors) == 12
    assert recording.steps[0] == 0
    assert recording.steps[-1] == 2 * 23


def test_recording_does_not_change_what_the_example_prints(printed):
    plain, recorded = (epochs(printed[name][0]) for name in SCRIPTS)
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
