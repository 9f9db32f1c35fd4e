"""The page that walks through the code names only what is there: files, functions, and rooms as the law has them."""

from __future__ import annotations

import ast
import builtins
import re

import pytest

from snippets import FENCE
from sources import PACKAGE, ROOT, sources
from test_rooms import LAW

PAGE = (ROOT / "docs/how-it-works.md").read_text("utf-8")
FILE = re.compile(r"[\w./-]+/[\w.]*|\w+\.(?:py|md)")
FUNCTION = re.compile(r"[A-Z]\w+\.(_?[a-z]\w+)|(_?[a-z]+_\w+)|([A-Z][a-z]\w+)")


def spans(text: str) -> list[str]:
    """What stands between single backticks, outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def missing_files(text: str) -> list[str]:
    named = {span for span in spans(text) if FILE.fullmatch(span)}
    return sorted(name for name in named if not any((root / name).exists() for root in (PACKAGE, ROOT)))


def missing_names(text: str) -> list[str]:
    named = {next(filter(None, match.groups())) for span in spans(text) if (match := FUNCTION.fullmatch(span))}
    return sorted(named - defined() - set(dir(builtins)))


def defined() -> set[str]:
    """Every class, function and field in the source."""
    nodes = [node for file in sources() for node in ast.walk(file.tree)]
    names = {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return names | {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and hasattr(node.target, "id")}


def rooms(text: str) -> list[str]:
    """The first column of the table of rooms."""
    rows = text.partition("| room |")[2].partition("\n\n")[0].splitlines()[2:]
    return [
        name.rstrip("/").removesuffix(".py") for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]


def test_files_are_there():
    assert missing_files(PAGE) == []


def test_names_are_there():
    assert missing_names(PAGE) == []


def test_every_room_that_exists_has_a_row():
    there = {file.room for file in sources() if file.room in LAW}
    assert sorted(rooms(PAGE)) == sorted(there - {"front", "__main__"})


@pytest.mark.parametrize("name", ["store/nowhere.py", "attic/", "nowhere.py"])
def test_missing_files_can_fail(name):
    assert missing_files(f"see `{name}` and `store/writer.py`") == [name]


@pytest.mark.parametrize(("span", "name"), [("Writer.shout", "shout"), ("_no_such", "_no_such"), ("Nobody", "Nobody")])
def test_missing_names_can_fail(span, name):
    assert missing_names(f"`{span}` and `Writer.put`") == [name]
