"""Something done when a module is imported leaves the import as it was."""

import importlib
import sys

import pytest

from normkit.recording.imports import forget_imports, when_imported


@pytest.fixture
def module(tmp_path, monkeypatch):
    package = tmp_path / "watched_package"
    package.mkdir()
    (package / "__init__.py").write_text("import watched_package.inner\nready = True\n")
    (package / "inner.py").write_text("x = 1\n")
    (package / "data.txt").write_text("hello")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    yield "watched_package"
    for name in ("watched_package", "watched_package.inner"):
        sys.modules.pop(name, None)
    assert sys.meta_path == before


def test_called_once_after_the_import(module):
    seen = []
    when_imported(module, lambda: seen.append(sys.modules[module].ready))
    assert seen == []
    assert importlib.util.find_spec(module) is not None  # asking is not importing
    assert seen == []
    imported = importlib.import_module(module)
    assert seen == [True]
    assert type(imported.__loader__).__name__ == type(imported.__spec__.loader).__name__ == "SourceFileLoader"
    assert importlib.resources.files(imported).joinpath("data.txt").read_text() == "hello"


def test_called_now_when_imported_already():
    seen = []
    when_imported("sys", lambda: seen.append(1))
    assert seen == [1]


def test_two_watches_of_one_module_are_both_told(module):
    seen = []
    when_imported(module, lambda: seen.append(1))
    when_imported(module, lambda: seen.append(2))
    importlib.import_module(module)
    assert sorted(seen) == [1, 2]


def test_what_is_forgotten_is_not_called(module):
    seen = []
    when_imported(module, lambda: seen.append(1))
    forget_imports()
    importlib.import_module(module)
    assert seen == []


def test_a_module_that_is_not_there_is_not_found(module):
    when_imported("nothere_at_all", lambda: None)
    with pytest.raises(ModuleNotFoundError, match="nothere_at_all"):
        importlib.import_module("nothere_at_all")
    forget_imports()
