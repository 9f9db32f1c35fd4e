"""The package's own source, parsed: what the tests of the house read."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "normkit"


@dataclass(frozen=True)
class Source:
    """One file of the package: its path within it (`ops/cpu.py`) and its syntax tree."""

    path: str
    tree: ast.Module

    @property
    def parts(self) -> tuple[str, ...]:
        """`ops/cpu.py` is ("ops", "cpu"), `ops/__init__.py` is ("ops",), the package's own `__init__.py` is ()."""
        parts = Path(self.path).with_suffix("").parts
        return parts[:-1] if parts[-1] == "__init__" else parts

    @property
    def package(self) -> tuple[str, ...]:
        """The package that relative imports start from."""
        return self.parts if self.path.endswith("__init__.py") else self.parts[:-1]

    @property
    def room(self) -> str:
        """First part of the path; the package's own `__init__.py` is the "front"."""
        return self.parts[0] if self.parts else "front"


def source(path: str, text: str) -> Source:
    """A Source from text, as the tests of the checkers write it."""
    return Source(path, ast.parse(text))


def sources() -> list[Source]:
    """Every file of the package, in order of its path."""
    files = sorted(PACKAGE.rglob("*.py"))
    return [source(file.relative_to(PACKAGE).as_posix(), file.read_text(encoding="utf-8")) for file in files]


def public_functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions of the module and methods of its classes whose names (and whose class's) have no leading underscore."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [inner for inner in node.body if is_public_function(inner)]
        elif is_public_function(node):
            found.append(node)
    return found


def is_public_function(node: ast.AST) -> bool:
    special = ("__init__", "__call__", "__new__")
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.name in special or node.name[0] != "_")


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """Every named parameter, positional or not, without `*args` and `**kwargs`."""
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
