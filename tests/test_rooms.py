"""The import law of the house: which room may import which, and where a framework may be named.

The table below is the law. It is read from the source, so imports inside functions and under
`if TYPE_CHECKING` count: a room that needs another's type depends on it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sources import PACKAGE, Source, source, sources

OPEN = {"errors", "types"}  # every room may import these
MEANING = {"asked", "ops", "sums", "norms", "groups", "lengths", "spectrum", "select"}
VERBS = {"normalize", "penalize", "decay", "constrain"}
DOORS = {"torch", "keras", "jax", "tensorflow"}
BELOW_RECORDING = MEANING | VERBS | {"store", "sinks", "readers", "diagnose"}
DOOR = MEANING | VERBS | {"recording"}

LAW: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "asked": set(),
    "ops": set(),
    "sums": {"ops"},
    "groups": {"ops", "sums"},
    "lengths": {"ops", "groups"},
    "spectrum": {"ops", "sums", "groups", "lengths"},
    "norms": {"ops", "sums", "groups", "spectrum"},
    "select": set(),
    "normalize": MEANING,
    "penalize": MEANING,
    "decay": MEANING,
    "constrain": MEANING,
    "store": set(),
    "sinks": {"store"},
    "diagnose": {"norms"},
    "readers": {"store", "sinks", "sums", "norms", "select", "diagnose"},
    "recording": BELOW_RECORDING,
    "report": {"store", "diagnose"},
    "ui": {"store", "diagnose"},
    "engines": {"store", "diagnose"},
    **dict.fromkeys(DOORS, DOOR),
    "lightning": {"torch"},
    "transformers": {"torch"},
}
EVERYTHING = set(LAW)
LAW |= {"cli": EVERYTHING | {"front"}, "front": EVERYTHING, "__main__": {"cli"}}

FRAMEWORKS = {"torch", "keras", "jax", "tensorflow", "flax", "optax", "equinox", "lightning", "transformers"}
FRAMEWORKS_OF = {  # where a framework may be imported: a drawer of `ops`, a door or a porch -> its own
    "ops/torch": {"torch"},
    "ops/jax": {"jax"},
    "ops/tensorflow": {"tensorflow"},
    "torch": {"torch"},
    "keras": {"keras"},
    "jax": {"jax", "flax", "optax", "equinox"},
    "tensorflow": {"tensorflow"},
    "lightning": {"lightning", "torch"},
    "transformers": {"transformers", "torch"},
}
DRAWERS = {"numpy", "torch", "jax", "tensorflow"}  # of `ops`; one never opens another, what they share stands in cpu.py


def imports(file: Source) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted target of every import; a name taken from a package is joined to it."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = imported_base(file, node)
            yield from ((node.lineno, f"{base}.{name.name}") for name in node.names)
        elif target := dynamic_target(node):
            yield node.lineno, target


def imported_base(file: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = ("normkit", *file.package)
    kept = package[: len(package) - node.level + 1]
    return ".".join([*kept, node.module] if node.module else kept)


def dynamic_target(node: ast.AST) -> str | None:
    """The name in `import_module("x")` or `__import__("x")`, where it is written out."""
    if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
        return None
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    value = node.args[0].value
    return value if name in ("import_module", "__import__") and isinstance(value, str) else None


def room_of(target: str, modules: set[str]) -> str | None:
    """The room of `normkit.store.writer.Writer` is store; of `normkit.norm`, a name of the package itself, front."""
    parts = target.split(".")
    if parts[0] != "normkit" or target == "normkit.__version__":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in modules else "front"


def law_violations(files: list[Source], modules: set[str]) -> list[str]:
    """One line per import that the law forbids, and per room that the law does not know."""
    lines = [f"{file.path}: room {file.room} is not in the law" for file in files if file.room not in LAW]
    for file in files:
        allowed = LAW.get(file.room, set()) | OPEN | {file.room}
        for line, target in imports(file):
            room = room_of(target, modules)
            if room is not None and room not in allowed:
                rooms = ", ".join(sorted(allowed - {file.room}))
                lines.append(f"{file.path}:{line} {file.room} imports {room} ({target}): allowed are {rooms}")
    return lines


def drawer_violations(files: list[Source]) -> list[str]:
    """One line per file of `ops` that opens another one's drawer; only `ops/__init__.py` hands them out."""
    lines = []
    for file in files:
        if file.room != "ops" or len(file.parts) < 2:
            continue
        for line, target in imports(file):
            parts = target.split(".")
            opened = parts[2] if parts[:2] == ["normkit", "ops"] and len(parts) > 2 else None
            if opened in DRAWERS - {drawer(file)}:
                lines.append(
                    f"{file.path}:{line} opens the drawer {opened}: what two drawers share stands in ops/cpu.py"
                )
    return lines


def drawer(file: Source) -> str:
    """The drawer of `ops` that a file belongs to: torch for `ops/torch.py` and `ops/torch_device.py`."""
    return file.parts[-1].split("_")[0]


def framework_violations(files: list[Source]) -> list[str]:
    """One line per framework imported where the meaning lives."""
    lines = []
    for file in files:
        place = f"ops/{drawer(file)}" if file.room == "ops" else file.room
        allowed = FRAMEWORKS_OF.get(place, set())
        for line, target in imports(file):
            framework = target.split(".")[0]
            if framework in FRAMEWORKS - allowed:
                lines.append(f"{file.path}:{line} imports {framework}: allowed here are {sorted(allowed) or 'none'}")
    return lines


def exported(file: Source) -> set[str]:
    """Public names that a package's `__init__.py` gives: defined, imported from a module, or in `__all__`."""
    names: set[str] = set()
    for node in file.tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.module not in (None, "__future__"):
            names |= {name.asname or name.name for name in node.names}
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names |= set(ast.literal_eval(node.value))
    return {name for name in names if not name.startswith("_")}


def name_violations(files: list[Source]) -> list[str]:
    """One line per exported name that a module of the same package bears: an import of one would hide the other."""
    lines = []
    for file in files:
        if file.path.endswith("__init__.py"):
            depth = len(file.parts)
            siblings = {other.parts[depth] for other in files if other.parts[:depth] == file.parts and other != file}
            clashes = sorted(exported(file) & siblings)
            lines += [f"{file.path}: the name {name} is also a module of this package" for name in clashes]
    return lines


def modules_of(files: list[Source]) -> set[str]:
    return {file.parts[0] for file in files if file.parts} | EVERYTHING


def test_rooms_import_only_what_the_law_allows():
    files = sources()
    assert not (lines := law_violations(files, modules_of(files))), "\n" + "\n".join(lines)


@pytest.mark.parametrize("check", [drawer_violations, framework_violations, name_violations])
def test_source_keeps_to(check):
    assert not (lines := check(sources())), "\n" + "\n".join(lines)


def test_the_law_is_without_cycles_below_the_doors():
    order: list[str] = []
    while left := [room for room in LAW if room not in order]:
        free = [room for room in left if not LAW[room] - set(order) - {room}]
        assert free, f"rooms that import each other: {left}"
        order += free


def test_package_has_files_to_check():
    assert (PACKAGE / "__init__.py").exists()
    assert len(sources()) >= 3


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("norms.py", "from normkit.store import writer", "norms.py:1 norms imports store"),
        ("norms.py", "from .store import writer", "norms.py:1 norms imports store"),
        ("norms.py", "from . import store", "norms.py:1 norms imports store"),
        ("store/writer.py", "import os\nfrom ..norms import norm", "store/writer.py:2 store imports norms"),
        ("store/writer.py", "def f():\n    import normkit.norms", "store/writer.py:2 store imports norms"),
        ("norms.py", "if TYPE_CHECKING:\n    from normkit.readers import R", "norms.py:2 norms imports readers"),
        ("norms.py", "from normkit import norm", "norms.py:1 norms imports front"),
        ("report/text.py", "from ..cli import main", "report/text.py:1 report imports cli"),
        ("torch/walk.py", "from normkit.keras import x", "torch/walk.py:1 torch imports keras"),
        ("sums.py", "import_module('normkit.torch.walk')", "sums.py:1 sums imports torch"),
        ("attic/x.py", "", "attic/x.py: room attic is not in the law"),
    ],
)
def test_law_violations_can_fail(path, text, line):
    lines = law_violations([source(path, text)], EVERYTHING | {"cli"})
    assert len(lines) == 1
    assert lines[0].startswith(line)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("norms.py", "import numpy as np\nfrom .types import Stats\nfrom .ops import ops_of"),
        ("recording/recorder.py", "from normkit import __version__"),
        ("store/writer.py", "from . import schema\nfrom .schema import SQL\nfrom ..errors import FileError"),
        ("cli/show.py", "from .. import load\nfrom ..report import text"),
        ("__init__.py", "def __getattr__(name):\n    from . import norms"),
    ],
)
def test_law_violations_leave_allowed_imports_alone(path, text):
    assert law_violations([source(path, text)], EVERYTHING | {"cli"}) == []


def test_drawer_violations_can_fail():
    files = [source("ops/torch.py", "from .numpy import sums\nfrom .cpu import Table"), source("ops/__init__.py", "")]
    assert [line.split(":")[0] for line in drawer_violations(files)] == ["ops/torch.py"]


@pytest.mark.parametrize(
    ("path", "text", "count"),
    [
        ("norms.py", "def f():\n    import torch.nn", 1),
        ("recording/recorder.py", "from torch import nn", 1),
        ("ops/torch.py", "import torch", 0),
        ("ops/torch_device.py", "import torch", 0),
        ("ops/numpy.py", "import torch", 1),
        ("torch/walk.py", "from torch import nn\nimport transformers", 1),
        ("cli/run.py", "import_module('torch')", 1),
    ],
)
def test_framework_violations_can_fail(path, text, count):
    assert len(framework_violations([source(path, text)])) == count


@pytest.mark.parametrize(
    ("front", "clashes"),
    [
        ("from .norms import norm", 0),
        ("from .norms import norms", 1),
        ("__all__ = ['norms']", 1),
        ("def norms(): pass", 1),
        ("from . import norms", 0),
        ("class norms: pass", 1),
    ],
)
def test_name_violations_can_fail(front, clashes):
    assert len(name_violations([source("__init__.py", front), source("norms.py", "")])) == clashes


HEAVY = ("numpy", "numba", "click", "rich", "sqlite3", *sorted(FRAMEWORKS))


@pytest.mark.parametrize(
    ("module", "kept_out"),
    [
        ("normkit", HEAVY),
        ("normkit.types", HEAVY),
        ("normkit.cli", ("numpy", "numba", *sorted(FRAMEWORKS))),
        ("normkit.readers", ("numba", *sorted(FRAMEWORKS))),
        ("normkit.norms", ("numba", *sorted(FRAMEWORKS))),
    ],
)
def test_importing_a_module_loads_nothing_heavy(module, kept_out):
    code = f"import sys, {module}; print([name for name in {kept_out!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
