"""`normkit show` and the sentences and exit codes of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

import made_up
from normkit.cli.group import group
from normkit.store.writer import Writer
from normkit.types import Reading


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one recording, made the current one."""
    (tmp_path / "runs").mkdir()
    made_up.write(made_up.digits(), tmp_path / "runs" / "digits.norms")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(group, list(arguments), prog_name="normkit")


def assert_sentence(result, code, sentence):
    """One line on stderr, nothing on stdout."""
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"normkit: {sentence}\n")


def test_show_takes_the_newest(folder):
    newer = made_up.write(made_up.transformer(2), folder / "runs" / "gpt.norms")
    os.utime(newer, (2e9, 2e9))
    assert invoke("show").stdout.startswith("normkit: recorded 10 of 100 steps x 27 tensors in runs/gpt.norms\n")


def test_show_is_the_reports_text_without_colours(folder):
    result = invoke("show", "runs/digits.norms")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "normkit: recorded 56 of 920 steps x 12 tensors in runs/digits.norms"
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.stdout


def test_show_all_sorted_and_selected(folder):
    assert invoke("show").stdout.count("bias  ") < invoke("show", "--all").stdout.count("bias  ")
    rows = [
        line.split()[0]
        for line in invoke("show", "--sort", "l2").stdout.splitlines()
        if "kernel" in line or "scale" in line
    ]
    assert rows == ["fc1.weight", "conv2.weight", "fc2.weight", "conv1.weight", "bn2.weight", "bn1.weight"]
    selected = invoke("show", "--select", "bias", "--select", "!bn*").stdout
    assert [line.split()[0] for line in selected.splitlines() if " bias " in line and "_" not in line][-4:] == [
        "conv1.bias",
        "conv2.bias",
        "fc1.bias",
        "fc2.bias",
    ]


def test_show_offers_the_reports_orders():
    from normkit import report
    from normkit.cli import show

    assert show.SORTS == report.SORTS


def test_show_json_is_json_and_nothing_else(folder):
    result = invoke("show", "--json", "--select", "fc1.weight")
    shown = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [tensor["name"] for tensor in shown["tensors"]] == ["fc1.weight"]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["show", "no.norms"], 3, "there is no recording at 'no.norms'; `normkit run script.py` makes one"),
        (["show", "runs"], 3, "'runs' is a directory; give a recording in it, such as 'runs/mine.norms'"),
        (["show", "train.py"], 3, "'train.py' is not a normkit recording: it begins with b'print(1)'"),
        (["show", "--select", "cnv*"], 2, "select='cnv*' matches none of 12 parameters; close names: conv1.weight"),
        (["run", "runs"], 2, "'runs' is a directory; give the script to run, such as 'runs/train.py'"),
    ],
)
def test_bad_input_is_one_sentence(arguments, code, sentence, folder):
    (folder / "train.py").write_text("print(1)")
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("normkit: ")
    assert result.stderr.count("\n") == 1
    assert sentence.split(";")[0] in result.stderr


def test_show_of_a_run_that_is_going_on(folder):
    made = made_up.digits()
    del made.meta["finished"], made.meta["end"]
    writer = Writer(folder / "runs" / "live.norms", made.meta)
    layout = writer.layout(made.params)
    writer.put(Reading(0, layout, time.time(), {"weight": made.all_sums("weight")[0, :6]}))
    writer.flush()
    lines = invoke("show", "runs/live.norms").stdout.splitlines()
    writer.close()
    assert lines[0] == "normkit: recorded 0 of 920 steps x 12 tensors in runs/live.norms"
    assert lines[2].startswith("not closed: still running, or killed; last record at step 0, ")


def test_no_recordings_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sentence = "there is no recording in 'runs'; `normkit run script.py` makes one"
    assert_sentence(invoke("show"), 3, sentence)
    (tmp_path / "runs").mkdir()
    assert_sentence(invoke("show"), 3, sentence)


def test_missing_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_sentence(invoke("run", "no.py"), 2, f"there is no script 'no.py' in {str(tmp_path)!r}; check the path")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["shwo"], "No such command 'shwo'; did you mean 'show'?"),
        (["attic"], "No such command 'attic'"),
        (["run"], "Missing argument"),
        (["run", "--lr", "1", "train.py"], "No such option '--lr'; options of the script stand behind it"),
        (["run", "--every", "0", "train.py"], "'0' is neither a number of steps of at least 1 nor 'auto'"),
        (["run", "--every", "often", "train.py"], "'often' is neither a number"),
        (["show", "--sort", "size"], "'size' is not one of 'name', 'change', 'l2', 'update'"),
        (["show", "a", "b"], "unexpected extra argument"),
    ],
)
def test_wrong_use_is_exit_code_2(arguments, sentence):
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


@pytest.mark.parametrize("command", [[], ["run"], ["show"]])
def test_help_is_whole_sentences(command):
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "..." not in result.stdout.replace("ARGS]...", "").replace("ARGUMENTS]...", "")


def process(code_or_arguments, cwd, **env):
    start = [sys.executable, *code_or_arguments]
    return subprocess.run(start, capture_output=True, cwd=cwd, env={**os.environ, **env}, check=False)


def test_show_in_an_old_console_is_ascii(folder):
    done = process(["-m", "normkit.cli", "show"], folder, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0
    text = done.stdout.decode("ascii")
    assert "_" * 12 in text


def test_a_reader_that_leaves_early_is_no_error(folder):
    command = [sys.executable, "-m", "normkit.cli", "show", "--json"]
    running = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait(60) == 141
    running.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "kept_out"),
    [
        (["--help"], {"numpy", "numba", "torch", "rich", "sqlite3"}),
        (["run", "--help"], {"numpy", "numba", "torch", "rich", "sqlite3"}),
        (["show", "runs/digits.norms"], {"numba", "torch", "llvmlite", "keras", "jax", "tensorflow"}),
        (["show", "--json"], {"numba", "torch"}),
        (["show", "--select", "conv*"], {"numba", "torch"}),
        (["show", "--at", "0", "--json"], {"numba", "torch"}),
        (["show", "--watch"], {"numba", "torch", "rich"}),
    ],
)
def test_commands_load_nothing_heavy(arguments, kept_out, folder):
    code = (
        "import sys\nfrom normkit.cli.group import group\n"
        f"group({arguments!r}, standalone_mode=False)\n"
        f"sys.exit(repr({kept_out!r} & set(sys.modules)) if {kept_out!r} & set(sys.modules) else 0)"
    )
    done = process(["-c", code], folder)
    assert (done.returncode, done.stderr) == (0, b"")
