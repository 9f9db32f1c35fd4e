"""Every example that a reader can copy is run: docstrings, the Python and console blocks of the pages.

The blocks of one page are one program, run in order in an empty folder that has the examples beside it. A block that
cannot run here says why in a comment in front of it: <!-- no-run: it needs a GPU -->
"""

from __future__ import annotations

import doctest
import importlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snippets import Snippet, commands, pages, snippets
from sources import ROOT, Source, source, sources

FRAMEWORKS = ("torch", "keras", "jax", "tensorflow", "lightning", "transformers")
SHORTER = {"examples/digits.py": ["--epochs", "2"], "examples/digits_recorded.py": ["--epochs", "2"]}


def framework_of(file: Source) -> str | None:
    """The framework that a file imports: a door's or a drawer's own."""
    return next((name for name in FRAMEWORKS if name in file.parts), None)


def run_page(page: list[Snippet], folder: Path) -> None:
    """Run the blocks of a page in `folder`, as one program."""
    names: dict[str, object] = {"__name__": "__main__"}
    for snippet in page:
        if snippet.reason is None and snippet.language == "python":
            run_python(snippet, names)
        elif snippet.reason is None and snippet.language == "console":
            run_console(snippet, folder)


def run_python(snippet: Snippet, names: dict[str, object]) -> None:
    """A block that has prompts is compared with the output it shows; any other is only run."""
    if ">>> " in snippet.code:
        test = doctest.DocTestParser().get_doctest(snippet.code, names, snippet.id, snippet.page, snippet.line)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        shown: list[str] = []
        runner.run(test, out=shown.append, clear_globs=False)
        names.update(test.globs)
        assert not runner.summarize(verbose=False).failed, "".join(shown)
    else:
        # The line numbers of an error are those of the page.
        exec(compile("\n" * snippet.line + snippet.code, snippet.page, "exec"), names)


def run_console(snippet: Snippet, folder: Path) -> None:
    """Only `normkit` itself is run; installing and building are for the reader."""
    for command in commands(snippet.code):
        program, *args = shlex.split(command, comments=True)
        if program == "normkit":
            extra = next((more for script, more in SHORTER.items() if script in args), [])
            done = run_normkit([*args, *extra], folder)
            assert done.returncode == 0, f"{snippet.id}: {command}\n{done.stdout}{done.stderr}"


def run_normkit(args: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from normkit.cli import main; main()"
    env = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to be in, with a copy of the examples."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__", "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", [f for f in sources() if f.parts[-1:] != ("__main__",)], ids=lambda file: file.path)
def test_docstring_examples_are_true(file, folder):
    if framework := framework_of(file):
        pytest.importorskip(framework, reason=f"{file.path} is for {framework}")
    import numpy as np

    module = importlib.import_module(".".join(["normkit", *file.parts]))
    result = doctest.testmod(module, extraglobs={"np": np}, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: page.name)
def test_page_runs(page, folder):
    blocks = snippets(page.relative_to(ROOT).as_posix(), page.read_text("utf-8"))
    if any("torch" in block.code or "examples/" in block.code for block in blocks):
        pytest.importorskip("torch", reason=f"{page.name} shows torch")
        pytest.importorskip("sklearn", reason=f"{page.name} runs the example on scikit-learn's digits")
    run_page(blocks, folder)


def test_public_functions_have_an_example():
    import normkit

    functions = [getattr(normkit, name) for name in ("norm", "stats")]
    assert [each.__name__ for each in functions if ">>> " not in (each.__doc__ or "")] == []


@pytest.mark.parametrize("name", ["normkit", "normkit.torch"])
def test_public_names_have_a_docstring(name):
    if name == "normkit.torch":
        pytest.importorskip("torch", reason="the torch door is for torch")
    module = importlib.import_module(name)
    assert [each for each in module.__all__ if not getattr(module, each).__doc__] == []


@pytest.mark.parametrize("name", ["commands.md", "file-format.md"])
def test_generated_page_is_current(name):
    sys.path.insert(0, str(ROOT / "tools"))
    from generated import PAGES

    written = (ROOT / "docs" / name).read_text("utf-8")
    assert written == PAGES[name](), f"docs/{name} is out of date; run: python tools/generated.py"


PAGE = """
```python
x = 1
```
text
<!-- no-run: needs a GPU -->
```python
1 / 0
```
```python
>>> x + 1
2
```
```console
$ normkit --help
$ pip install normkit
```
"""


def test_snippets_are_found():
    found = snippets("p.md", PAGE)
    assert [each.language for each in found] == ["python", "python", "python", "console"]
    assert [each.reason for each in found] == [None, "needs a GPU", None, None]
    assert [each.line for each in found] == [2, 7, 10, 14]
    assert commands(found[3].code) == ["normkit --help", "pip install normkit"]


def test_blocks_of_a_page_are_one_program(folder):
    run_page(snippets("p.md", PAGE), folder)


@pytest.mark.parametrize("code", ["raise ValueError", "assert False", ">>> 1 + 1\n3"])
def test_python_block_can_fail(code, folder):
    with pytest.raises((AssertionError, ValueError)):
        run_page(snippets("p.md", f"```python\n{code}\n```\n"), folder)


def test_console_block_can_fail(folder):
    with pytest.raises(AssertionError, match="normkit no-such-command"):
        run_page(snippets("p.md", "```console\n$ normkit no-such-command\n```\n"), folder)


def test_framework_is_told_from_the_path():
    assert framework_of(source("torch/walk.py", "")) == "torch"
    assert framework_of(source("ops/jax.py", "")) == "jax"
    assert framework_of(source("ops/cpu.py", "")) is None
