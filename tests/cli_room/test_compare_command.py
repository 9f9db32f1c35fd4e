"""`normkit compare` as a command: files, options, sentences and exit codes."""

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
    """Two recordings that part at step 200, and one of another model; made the current folder."""
    made_up.write(made_up.digits(), tmp_path / "a.norms")
    other = made_up.digits()
    for step, weights in zip(other.steps, other.weights, strict=True):
        weights[8] = weights[8] * (2 if step >= 200 else 1)
    made_up.write(other, tmp_path / "b.norms")
    made_up.write(made_up.transformer(1), tmp_path / "gpt.norms")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(group, ["compare", *arguments], prog_name="normkit")


def test_compare_says_where_two_runs_part(folder):
    result = invoke("a.norms", "b.norms")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("A: a.norms    57 records x 12 tensors")
    assert "the runs part at step 200 (identical until step 180): fc1.weight, 1 of 12 common" in result.stdout
    assert next(line for line in lines if "fc1.weight  " in line).split()[3:5] == ["2.000", "1..2.000"]
    assert max(map(len, lines)) <= 80


def test_a_copy_is_identical(folder):
    (folder / "copy.norms").write_bytes((folder / "a.norms").read_bytes())
    assert "identical in all 57 common steps, 0 to 920, of 12 common tensors" in invoke("a.norms", "copy.norms").stdout


def test_selected_tensors_alone_are_compared(folder):
    result = invoke("a.norms", "b.norms", "--select", "conv*", "--select", "!bias")
    assert "identical in all 57 common steps, 0 to 920, of 2 common tensors" in result.stdout
    assert "fc1" not in result.stdout


def test_another_norm_and_a_tolerance(folder):
    result = invoke("a.norms", "b.norms", "--norm", "rms", "--tolerance", "0.9")
    assert "equal within 0.9 in all 57 common steps" in result.stdout
    assert " rms in A " in result.stdout


def test_json_is_json_and_nothing_else(folder):
    shown = json.loads(invoke("a.norms", "b.norms", "--json", "--select", "fc*").stdout)
    assert shown["parting"]["step"] == 200
    assert [tensor["name"] for tensor in shown["tensors"]] == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]


def test_one_of_the_two_is_still_being_written(folder):
    made = made_up.digits()
    del made.meta["finished"], made.meta["end"]
    writer = Writer(folder / "live.norms", made.meta)
    layout = writer.layout(made.params)
    for k in range(3):
        values = {"weight": made.all_sums("weight")[k, :6]}
        writer.put(Reading(int(made.steps[k]), layout, time.time(), values))
    writer.flush()
    result = invoke("a.norms", "live.norms")
    writer.close()
    assert result.exit_code == 0
    assert "identical in all 3 common steps, 0 to 2" in result.stdout
    assert "not closed: still running, or killed" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["a.norms", "no.norms"], 3, "there is no recording at 'no.norms'"),
        (["a.norms", "./a.norms"], 2, "A and B are the same recording, 'a.norms'; give two"),
        (["a.norms", "gpt.norms"], 2, "'a.norms' and 'gpt.norms' have no tensor in common: 'conv1.weight'"),
        (["a.norms", "b.norms", "--norm", "l3"], 2, "'l3' is not the name of a norm"),
        (["a.norms", "b.norms", "--norm", "nuclear"], 2, "'nuclear' does not follow from the sums"),
        (["a.norms", "b.norms", "--select", "cnv*"], 2, "select='cnv*' matches none of 12 parameters"),
    ],
)
def test_bad_input_is_one_sentence(arguments, code, sentence, folder):
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"normkit: {sentence}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.norms"], "Missing argument 'B'"),
        (["a.norms", "b.norms", "--tolerance", "-1"], "-1.0 is not in the range 0<=x<1"),
    ],
)
def test_wrong_use_is_exit_code_2(arguments, sentence, folder):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_compare_loads_nothing_heavy(folder):
    code = (
        "import sys\nfrom normkit.cli.group import group\n"
        "group(['compare', 'a.norms', 'b.norms', '--select', 'fc*'], standalone_mode=False)\n"
        "print({'numba', 'torch', 'keras', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.stdout.splitlines()[-1:] == ["set()"], done.stderr
