"""The tool of the mistakes, on a toy project: it must not say "caught" for any reason but a failed test."""

from __future__ import annotations

import re
import sys

import pytest

from sources import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from mistakes import MISTAKES
from mutants import Mutant, main

TOY = "src/toy/__init__.py"
TESTS = ("tests/test_toy.py",)
WRONG = Mutant("a factor lost", TOY, "2 * x", "x", TESTS)


@pytest.fixture
def toy(tmp_path):
    """A project of one function with one test of it."""
    files = {
        TOY: "def double(x):\n    return 2 * x\n\n\ndef unused(x):\n    return 3 * x\n",
        "tests/test_toy.py": "import toy\n\ndef test_double():\n    assert toy.double(2) == 4\n",
        "tests/test_red.py": "def test_red():\n    assert False\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_mistake_that_a_test_sees_is_caught(toy, capsys):
    assert main([], mutants=[WRONG], root=toy) == 0
    assert "1 of 1 mistakes caught" in capsys.readouterr().out


def test_tree_itself_is_never_changed(toy):
    before = {path: path.read_bytes() for path in toy.rglob("*") if path.is_file()}
    main([], mutants=[WRONG], root=toy)
    assert {path: path.read_bytes() for path in toy.rglob("*") if path.is_file()} == before


def test_row_that_proves_nothing_is_reported(toy, capsys):
    rows = {
        Mutant("untested", TOY, "3 * x", "x", TESTS): "SURVIVED",
        Mutant("gone", TOY, "5 * x", "x", TESTS): "OUTDATED",
        Mutant("twice there", TOY, "return", "yield", TESTS): "OUTDATED",
        Mutant("no change", TOY, "2 * x", "2 * x", TESTS): "OUTDATED",
        Mutant("no such file", "src/toy/b.py", "2 * x", "x", TESTS): "OUTDATED",
        Mutant("cannot be read", TOY, "def double(x):", "def double(x:", TESTS): "BROKEN",
        WRONG: "caught",
    }
    assert main([], mutants=list(rows), root=toy) == 1
    out = capsys.readouterr().out
    assert re.findall(r"^ +\d+  (\w+) ", out, re.MULTILINE) == list(rows.values())
    assert "1 of 7 mistakes caught" in out


@pytest.mark.parametrize("tests", ["tests/test_red.py", "tests/test_nowhere.py"])
def test_red_baseline_is_refused(toy, capsys, tests):
    assert main([], mutants=[WRONG, Mutant("x", TOY, "2 * x", "x", (tests,))], root=toy) == 2
    out = capsys.readouterr().out
    assert "The baseline is red" in out
    assert "caught" not in out


def test_only_runs_the_one_that_is_asked_for(toy, capsys):
    assert main(["--only", "1"], mutants=[WRONG, Mutant("untested", TOY, "3 * x", "x", TESTS)], root=toy) == 0
    assert "untested" not in capsys.readouterr().out


def test_unknown_number_is_an_error(toy, capsys):
    with pytest.raises(SystemExit):
        main(["--only", "2"], mutants=[WRONG], root=toy)
    assert "--only 2: there are mistakes 1 to 1" in capsys.readouterr().err


def test_list_runs_nothing(toy, capsys):
    assert main(["--list"], mutants=[WRONG], root=toy) == 0
    assert "a factor lost" in capsys.readouterr().out


@pytest.mark.parametrize("row", MISTAKES, ids=lambda row: row[0])
def test_row_is_current(row):
    mutant = Mutant(*row)
    assert mutant.is_current(ROOT), f"{mutant.what}: not exactly once in {mutant.file}: {mutant.old!r}"
    for test in mutant.tests:
        file, _, name = test.partition("[")[0].partition("::")
        assert f"def {name}" in (ROOT / file).read_text("utf-8"), f"{mutant.what}: there is no test {test}"


def test_mistakes_have_different_names():
    names = [row[0] for row in MISTAKES]
    assert len(names) == len(set(names))
