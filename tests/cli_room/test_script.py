"""A script under `normkit run` does what it does under Python itself: the interpreter is the oracle."""

from __future__ import annotations

import subprocess
import sys

import pytest

DRIVER = "import sys; from normkit.cli.script import prepare; sys.exit(prepare(sys.argv[1], sys.argv[2:]).run().code)"

SCRIPTS = {
    "names": "print(__name__, __file__, __doc__, __package__, __spec__, type(__loader__).__name__, __cached__)",
    "doc": '"""What it is."""\nprint(__doc__)',
    "path": "import sys; print(sys.path[0]); import beside; print(beside.VALUE)",
    "main": "import sys\nmain = sys.modules['__main__']\nx = 5\nprint(main.x, main.__dict__ is globals())",
    "builtins": "print(__builtins__ is __import__('builtins'))",
    "annotations": "x: int = 1\nprint(__annotations__)",
    "future": "def f(a: undefined): pass",
    "exit none": "import sys; sys.exit()",
    "exit 3": "import sys; print('before'); sys.exit(3)",
    "exit -1": "import sys; sys.exit(-1)",
    "exit True": "import sys; sys.exit(True)",
    "exit text": "import sys; sys.exit('that went wrong')",
    "error": "def f():\n    raise ValueError('no good')\nf()",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('x') from e",
    "group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
    "syntax": "x = = 1",
    "end of file": "raise EOFError",
    "system": "raise BaseException('base')",
    "broken pipe": "raise BrokenPipeError('mine')",
    "click": "import click\n@click.command()\n@click.argument('rest', nargs=-1, type=click.UNPROCESSED)\n"
    "@click.option('--flag', is_flag=True)\ndef main(rest, flag): print(rest, flag)\nmain()",
    "bad import": "import beside_that_is_not_there",
    "broken import": "import broken",
    "excepthook": "import sys\nsys.excepthook = lambda *a: print('mine', a[0].__name__, a[2] is not None)\n1 / 0",
    "atexit": "import atexit\nx = 'still here'\natexit.register(lambda: print(x))",
    "thread": "import threading, time\nx = 'late'\ndef f():\n    time.sleep(0.1)\n    print(x)\n"
    "threading.Thread(target=f).start()",
    "pickle": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)",
    "dataclass": "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n"
    "    x: int\nprint(A(1))",
    "spawn": "import multiprocessing as mp\ndef f(x): return x + OFFSET\nOFFSET = 10\nif __name__ == '__main__':\n"
    "    with mp.get_context('spawn').Pool(1) as pool: print(pool.map(f, [1, 2]))",
    "inspect": "import inspect\ndef f(): return 1\nprint(inspect.getsource(f))",
    "cookie": "# -*- coding: latin-1 -*-\nprint(ascii('\xe4'))",
    "arguments": "import sys; print(sys.argv)",
    "argparse": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr')\n"
    "p.add_argument('rest', nargs='*')\nprint(p.parse_args())",
}
ARGUMENTS = {
    "arguments": ["--help", "-x", "--", "--to", "a b", "", "*"],
    "argparse": ["--lr", "0.1", "--", "-x"],
    "click": ["--flag", "--", "--to"],
}


def started(command, folder):
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder)


def ended(process):
    out, err = process.communicate(timeout=120)
    return out, err, process.returncode


def ran(command, folder):
    return ended(started(command, folder))


def assert_as_under_python(folder, arguments=()):
    ours, python = started(["-c", DRIVER, "train.py", *arguments], folder), started(["train.py", *arguments], folder)
    assert ended(ours) == ended(python)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_does_what_it_does_under_python(name, tmp_path):
    (tmp_path / "train.py").write_bytes(SCRIPTS[name].encode("latin-1"))
    (tmp_path / "beside.py").write_text("VALUE = 7")
    (tmp_path / "broken.py").write_text("x = (")
    arguments = ARGUMENTS.get(name, [])
    assert_as_under_python(tmp_path, arguments)


def test_assert_as_under_python_can_fail(tmp_path):
    (tmp_path / "train.py").write_text("import sys; print(sys.orig_argv)")
    with pytest.raises(AssertionError):
        assert_as_under_python(tmp_path)


def test_null_bytes_are_a_syntax_error(tmp_path):
    (tmp_path / "train.py").write_bytes(b"x = 1\0")
    _, err, code = ran(["-c", DRIVER, "train.py"], tmp_path)
    assert code == 1
    assert err.startswith(b"SyntaxError")


def test_script_behind_a_link_imports_from_its_own_folder(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "train.py").write_text(SCRIPTS["path"])
    (tmp_path / "far" / "beside.py").write_text("VALUE = 8")
    (tmp_path / "train.py").symlink_to(tmp_path / "far" / "train.py")
    assert_as_under_python(tmp_path)


def test_safe_path_is_left_alone(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPTS["path"])
    (tmp_path / "beside.py").write_text("VALUE = 7")
    _, err, code = ran(["-P", "-c", DRIVER, "train.py"], tmp_path)
    assert code == 1
    assert b"No module named 'beside'" in err


def test_interrupt_gives_130_and_the_scripts_traceback(tmp_path):
    (tmp_path / "train.py").write_text("print('before')\nraise KeyboardInterrupt")
    out, err, code = ran(["-c", DRIVER, "train.py"], tmp_path)
    assert (out.strip(), code) == (b"before", 130)
    assert b"train.py" in err
    assert b"normkit" not in err
