"""`normkit export` and `normkit show --at`: files, sentences and exit codes."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest
from click.testing import CliRunner

import made_up
from normkit.cli.group import group
from normkit.readers import load

HEADER = "step,epoch,tensor,layer,weight,quantity,l1,l2,linf,rms,mean,std,zeros,nonfinite"

TITLES = ["tensor", "role", "shape", "l2", "rms", "linf", "grad", "l2", "update", "l2", "zeros", "nonfinite"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one recording, made the current one."""
    (tmp_path / "runs").mkdir()
    made_up.write(made_up.digits(), tmp_path / "runs" / "digits.norms")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(group, list(arguments), prog_name="normkit")


def assert_sentence(result, code, sentence):
    """One line on stderr, nothing on stdout."""
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"normkit: {sentence}\n")


def test_export_takes_the_newest_and_its_name(folder):
    result = invoke("export", "--to", "csv")
    lines = (folder / "digits.csv").read_bytes().decode().split("\n")
    assert lines[0] == HEADER
    assert (result.exit_code, result.stdout) == (0, f"normkit: wrote {len(lines) - 2:,} rows to digits.csv\n")


def test_export_to_stdout_is_the_same_bytes(folder):
    invoke("export", "--to", "csv", "-o", "digits.csv")
    result = invoke("export", "runs/digits.norms", "--to", "csv", "-o", "-")
    assert result.stdout_bytes == (folder / "digits.csv").read_bytes()
    assert not (folder / "-").exists()


def test_export_of_selected_tensors(folder):
    result = invoke("export", "--to", "csv", "-o", "-", "--select", "bias", "--select", "!conv*")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(dict.fromkeys(row["tensor"] for row in rows)) == ["bn1.bias", "bn2.bias", "fc1.bias", "fc2.bias"]


def test_export_leaves_an_existing_file_as_it_is(folder):
    (folder / "digits.csv").write_text("mine")
    assert_sentence(
        invoke("export", "--to", "csv"),
        2,
        "'digits.csv' is there already and stays as it is; give another name with -o",
    )
    assert (folder / "digits.csv").read_text() == "mine"


def test_export_into_a_folder_that_is_not_there(folder):
    assert_sentence(
        invoke("export", "--to", "csv", "-o", "nowhere/x.csv"),
        3,
        "cannot write 'nowhere/x.csv': No such file or directory",
    )


def test_export_of_parquet_to_stdout_is_refused(folder):
    sentence = "-o - prints csv only, not 'parquet'; give a file name with -o"
    assert_sentence(invoke("export", "--to", "parquet", "-o", "-"), 2, sentence)


def test_export_of_parquet(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    result = invoke("export", "--to", "parquet", "-o", "out.parquet")
    rows = parquet.read_table(folder / "out.parquet").num_rows
    assert (result.exit_code, result.stdout) == (0, f"normkit: wrote {rows:,} rows to out.parquet\n")


def test_export_without_pyarrow_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert_sentence(
        invoke("export", "--to", "parquet"),
        2,
        "a Parquet file needs pyarrow (import of pyarrow halted; None in sys.modules); "
        "`pip install 'normkit[parquet]'` brings it",
    )
    assert not (folder / "digits.parquet").exists()


def test_show_at_is_a_table_of_one_step(folder):
    recording = load("runs/digits.norms")
    step = int(recording.steps[5])
    lines = invoke("show", "--at", str(step)).stdout.splitlines()
    assert lines[0].startswith(f"normkit: step {step} of 920 in runs/digits.norms")
    assert lines[1].split() == TITLES
    assert [line.split()[0] for line in lines[2:]] == list(recording.tensors)
    cells = lines[2].split()
    figures = [
        recording.series("conv1.weight", kind, quantity)[5]
        for kind, quantity in [
            ("l2", "weight"),
            ("rms", "weight"),
            ("linf", "weight"),
            ("l2", "grad"),
            ("l2", "update"),
        ]
    ]
    assert [float(cell) for cell in cells[3:8]] == pytest.approx(figures, rel=5e-3)
    assert cells[8:] == ["0", "0"]


def test_show_at_the_start_has_no_gradient(folder):
    line = invoke("show", "--at", "0", "--select", "conv1.weight").stdout.splitlines()[2]
    assert line.split()[6:] == ["-", "-", "0", "0"]


def test_show_at_fits_the_width(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = invoke("show", "--at", "0").stdout.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[-1].split()[0] == "fc2.bias"


def test_show_at_a_step_that_was_not_recorded_names_the_nearest(folder):
    steps = load("runs/digits.norms").steps
    assert_sentence(
        invoke("show", "--at", "919"),
        2,
        f"step=919 was not recorded in 'runs/digits.norms'; the nearest that were: {steps[-2:].tolist()}",
    )


def test_show_at_refuses_to_sort(folder):
    sentence = "--at 0 shows one step in the model's order; leave --sort l2 out"
    assert_sentence(invoke("show", "--at", "0", "--sort", "l2"), 2, sentence)


def test_show_at_as_json(folder):
    recording = load("runs/digits.norms")
    step = int(recording.steps[5])
    result = invoke("show", "--at", str(step), "--json", "--select", "conv1.*")
    shown = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (shown["step"], shown["steps"], shown["epoch"], shown["scalars"]) == (step, 920, None, {})
    assert [tensor["name"] for tensor in shown["tensors"]] == ["conv1.weight", "conv1.bias"]
    first = shown["tensors"][0]
    assert (first["role"], first["shape"]) == ("kernel", [16, 1, 3, 3])
    for quantity in ("weight", "grad", "update"):
        assert set(first[quantity]) == {"l1", "l2", "linf", "rms", "mean", "std", "zeros", "nonfinite"}
        assert first[quantity]["l2"] == recording.series("conv1.weight", "l2", quantity)[5]


def test_show_at_the_start_as_json_has_no_gradient(folder):
    shown = json.loads(invoke("show", "--at", "0", "--json").stdout)
    assert {tensor["grad"] for tensor in shown["tensors"]} == {None}
