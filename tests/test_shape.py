"""The shape of the code: length of files, names of parameters and variables, no `**kwargs` passed through.

A parameter called `axis` or `dim` means opposite things in this field's libraries (the axes summed, or the axis kept),
and a variable called `norm` may be a number, a function or a layer.
"""

from __future__ import annotations

import ast

import pytest

from sources import ROOT, Source, parameters, public_functions, source, sources

MOST_LINES = 300
LONGER: dict[str, str] = {  # path from the root -> why that file may be longer
    "src/normkit/ops/kernels.py": "a compiled kernel is kept while the one file it stands in is unchanged",
    "tools/mistakes.py": "one table",
}

WRAPPERS = {  # files whose class stands for another layer: it is called with whatever that layer is called with
    "jax/wrapper.py",
    "keras/wrapper.py",
}
FOLDERS = ("src", "tests", "tools", "benchmarks", "examples")
BANNED = {"norm", "axis", "dim"}
# `recording.series(name, norm="l2")` and its like are promised to users; there `norm` is the name of one, a string.
NORM_BY_NAME = {"series", "matrix", "rows", "envelope"}


def long_files(lengths: dict[str, int], longer: dict[str, str]) -> list[str]:
    """One line per file that is too long, and per exception that is not needed any more."""
    lines = [
        f"{path}: {length} lines, at most {MOST_LINES}"
        for path, length in sorted(lengths.items())
        if length > MOST_LINES and path not in longer
    ]
    return lines + [f"{path}: stands in LONGER without need" for path in longer if lengths.get(path, 0) <= MOST_LINES]


def banned_parameters(files: list[Source]) -> list[str]:
    """One line per parameter of a public function that is called `norm`, `axis` or `dim`."""
    lines = []
    for file in files:
        for function in public_functions(file.tree):
            allowed = {"norm"} if function.name in NORM_BY_NAME else set()
            names = [each.arg for each in parameters(function) if each.arg in BANNED - allowed]
            lines += [f"{file.path}:{function.lineno} {function.name} has a parameter {name}" for name in names]
    return lines


def banned_variables(files: list[Source]) -> list[str]:
    """One line per place where a variable called `norm` gets its value."""
    return [
        f"{file.path}:{node.lineno} a variable is called {node.id}"
        for file in files
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "norm"
    ]


def passed_through(files: list[Source]) -> list[str]:
    """One line per public function whose `**kwargs` go on to another one: its signature would say nothing."""
    lines = []
    for file in files:
        for function in () if file.path in WRAPPERS else public_functions(file.tree):
            name = function.args.kwarg.arg if function.args.kwarg else None
            starred = [
                word.value for call in ast.walk(function) if isinstance(call, ast.Call) for word in call.keywords
            ]
            if name and any(isinstance(value, ast.Name) and value.id == name for value in starred):
                lines.append(f"{file.path}:{function.lineno} {function.name} passes **{name} through")
    return lines


def mixed_positionals(files: list[Source]) -> list[str]:
    """One line per public function with a positional default that is a bool: at the call it reads `f(x, True)`."""
    lines = []
    for file in files:
        for function in public_functions(file.tree):
            bools = [each for each in function.args.defaults if isinstance(getattr(each, "value", None), bool)]
            lines += [f"{file.path}:{function.lineno} {function.name} takes a bool by position" for _ in bools[:1]]
    return lines


def test_files_are_short():
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text("utf-8").splitlines()) for file in files}
    assert lengths
    assert not (lines := long_files(lengths, LONGER)), "\n" + "\n".join(lines)


@pytest.mark.parametrize("check", [banned_parameters, banned_variables, passed_through, mixed_positionals])
def test_source_has_no(check):
    assert not (lines := check(sources())), "\n" + "\n".join(lines)


def test_long_files_can_fail():
    assert long_files({"src/a.py": 301, "src/b.py": 300}, {}) == ["src/a.py: 301 lines, at most 300"]
    assert long_files({"src/a.py": 301}, {"src/a.py": "a table"}) == []
    assert long_files({"src/a.py": 200}, {"src/a.py": "a table"}) == ["src/a.py: stands in LONGER without need"]


@pytest.mark.parametrize(
    ("check", "text", "count"),
    [
        (banned_parameters, "def f(x, axis): ...", 1),
        (banned_parameters, "def f(x, *, dim=0, norm=1): ...", 2),
        (banned_parameters, "class A:\n    def f(self, dim): ...", 1),
        (banned_parameters, "def series(name, norm='l2'): ...", 0),
        (banned_parameters, "def f(x, per): ...\ndef _g(axis): ...", 0),
        (banned_variables, "norm = 1", 1),
        (banned_variables, "[norm for norm in found]", 1),
        (banned_variables, "x = f(norm=0)", 0),
        (passed_through, "def f(**kwargs):\n    return g(**kwargs)", 1),
        (passed_through, "def f(**scalars):\n    return g(scalars)", 0),
        (passed_through, "def f(x):\n    return g(**x)", 0),
        (mixed_positionals, "def f(x, all=False): ...", 1),
        (mixed_positionals, "def f(x, *, all=False): ...", 0),
    ],
)
def test_checks_can_fail(check, text, count):
    assert len(check([source("norms.py", text)])) == count
