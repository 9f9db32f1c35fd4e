"""A module under `normkit run -m` does what it does under `python -m`: the interpreter is the oracle."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from normkit.cli.group import group
from normkit.cli.module import Module

DRIVER = (
    "import sys; from normkit.cli.module import Module; sys.exit(Module(sys.argv[1], tuple(sys.argv[2:])).run().code)"
)
FILES = {
    "beside.py": "VALUE = 7",
    "names.py": "import sys\nprint(__name__, __file__, __doc__, __package__, __spec__.origin, __cached__)\n"
    "print(sys.path[0], type(__loader__).__name__, sys.argv)",
    "lab/__init__.py": "import sys; print('package', sys.argv)",
    "lab/near.py": "VALUE = 8",
    "lab/train.py": "from .near import VALUE\nimport sys, beside\nprint(__spec__.name, __package__, sys.argv, VALUE)\n"
    "print(sys.modules['__main__'].__dict__ is globals())",
    "lab/__main__.py": "import sys; print('main of', __package__, __name__, sys.argv)",
    "plain/__init__.py": "",
    "space/inner.py": "print(__name__, __package__)",
    "broken/__init__.py": "import beside_that_is_not_there",
    "broken/inner.py": "",
    "stops/__init__.py": "import sys; sys.exit(4)",
    "stops/inner.py": "",
    "found/__init__.py": "import found.again",
    "found/again.py": "print(__name__)",
    "syntax.py": "x = = 1",
    "error.py": "def f():\n    raise ValueError('no good')\nf()",
    "exits.py": "import sys; sys.exit('that went wrong')",
    "late.py": "import atexit, pickle\nclass A: pass\n"
    "atexit.register(lambda: print(type(pickle.loads(pickle.dumps(A()))) is A))",
    "spawn.py": "import multiprocessing as mp\ndef f(x): return x + OFFSET\nOFFSET = 10\nif __name__ == '__main__':\n"
    "    with mp.get_context('spawn').Pool(1) as pool: print(pool.map(f, [1, 2]))",
}
MODULES = (
    *("names", "lab", "lab.train", "lab.__main__", "space.inner", "broken.inner", "stops.inner", "found.again"),
    *("syntax", "error", "exits", "late", "spawn"),
)


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def ran(command, cwd):
    done = subprocess.run([sys.executable, "-B", *command], capture_output=True, text=True, cwd=cwd, check=False)
    return done.stdout, without_machinery(done.stderr), done.returncode


def without_machinery(err):
    """stderr without the frames of Python's own search, which a traceback of `python -m` begins with."""
    err = err.removeprefix("Traceback (most recent call last):\n")  # where nothing else is left, there is none
    return re.sub(r'  File "<frozen [^\n]*\n(?:    [^\n]*\n)*', "", err)


def assert_as_under_python(name, arguments, cwd):
    assert ran(["-c", DRIVER, name, *arguments], cwd) == ran(["-m", name, *arguments], cwd)


@pytest.mark.parametrize("name", MODULES)
def test_module_does_what_it_does_under_python(name, folder):
    assert_as_under_python(name, ["--help", "-x", "--", "a b"], folder)


def test_assert_as_under_python_can_fail(tmp_path):
    (tmp_path / "given.py").write_text("import sys; print(sys.orig_argv)")
    with pytest.raises(AssertionError):
        assert_as_under_python("given", [], tmp_path)


def test_safe_path_is_left_alone(folder):
    out, err, code = ran(["-P", "-m", "normkit", "run", "-m", "names"], folder)
    assert (out, code) == ("", 2)
    assert "No module named names" in err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothere", "(No module named nothere); check the name"),
        ("lab.nothere", "No module named lab.nothere"),
        ("nothere.inner", "No module named 'nothere'"),
        ("plain", "'plain' is a package and cannot be directly executed"),
        ("names.py", "'names.py' is a file, and -m takes the name of a module; leave -m out to run it"),
        (".names", "Relative module names not supported"),
        ("sys", "No code object available for sys"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(name, reason, folder):
    _, err, code = ran(["-m", "normkit", "run", "-m", name], folder)
    assert code == 2
    assert reason in err
    assert err.startswith("normkit: ")
    assert err.count("\n") == 1
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("name", "called"), [("train", "train"), ("lab.train", "train"), ("lab", "lab"), ("lab.__main__", "lab")]
)
def test_recording_is_called_by_the_last_part(name, called):
    assert Module(name, ()).called == called


def test_an_error_of_the_program_that_looks_like_ours_is_the_programs(tmp_path):
    (tmp_path / "odd.py").write_text("from normkit.errors import ArgumentError\nraise ArgumentError('mine')")
    _, err, code = ran(["-m", "normkit", "run", "-m", "odd"], tmp_path)
    assert code == 1
    assert "ArgumentError: mine" in err


def test_run_records_a_module(folder):
    pytest.importorskip("torch")
    (folder / "lab" / "fit.py").write_text(
        "import torch\nw = torch.nn.Parameter(torch.ones(3))\noptimizer = torch.optim.SGD([w], lr=0.1)\n"
        "for _ in range(3):\n    optimizer.zero_grad()\n    (w * w).sum().backward()\n    optimizer.step()\n"
    )
    _, err, code = ran(["-m", "normkit", "run", "-m", "lab.fit", "--lr", "1"], folder)
    assert code == 0
    assert re.search(r"in runs/fit-\d{8}-\d{4}\.norms", err)


def test_options_of_the_module_stand_behind_it():
    result = CliRunner().invoke(group, ["run", "-m", "--lr", "1", "train"])
    assert result.exit_code == 2
    assert "options of the script stand behind it" in result.stderr
