"""`normkit export --to tensorboard|wandb|mlflow`: what is there afterwards, sentences and exit codes."""

import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import board
import made_up
from normkit.cli import curves
from normkit.cli.group import group
from normkit.readers import load
from normkit.sinks import mlflow, wandb


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A recording, made once."""
    run = made_up.digits(scalars={"loss": np.linspace(2, 1, 57)})
    return made_up.write(run, tmp_path_factory.mktemp("made") / "digits.norms")


@pytest.fixture
def folder(tmp_path, monkeypatch, digits):
    """A folder with a copy of it in `runs`, made the current one."""
    (tmp_path / "runs").mkdir()
    shutil.copy(digits, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(group, ["export", *arguments], prog_name="normkit")


def assert_sentence(result, sentence, code=2):
    """One line on stderr, nothing on stdout."""
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"normkit: {sentence}\n")


def test_every_tensor_step_and_quantity_reads_back(folder):
    result = invoke("--to", "tensorboard")
    recording = load(folder / "runs" / "digits.norms")
    steps = f"{len(recording):,} steps"
    assert (result.exit_code, result.stdout) == (
        0,
        f"normkit: wrote {steps} to digits-tensorboard; tensorboard --logdir digits-tensorboard shows them\n",
    )
    found = board.curves(folder / "digits-tensorboard")
    assert len(found) == 12 * 3 + 1 + 8
    for word, part in (("weight", ""), ("grad", "grad/"), ("update", "update/")):
        series = recording.series("conv1.weight", "l2", word)
        there = ~np.isnan(series)
        points = found[f"conv1/weight/{part}l2"]
        assert [point.step for point in points] == recording.steps[there].tolist()
        assert [point.value for point in points] == series[there].astype(np.float32).tolist()
        assert [point.wall for point in points] == recording.walls[there].tolist()
    assert [point.value for point in found["loss"]] == recording.scalar("loss").astype(np.float32).tolist()
    total = np.sqrt((recording.matrix("l2") ** 2).sum(axis=1))
    np.testing.assert_allclose([point.value for point in found["normkit/weight_l2"]], total, rtol=1e-6)


def test_norms_and_tensors_are_chosen(folder):
    invoke("--to", "tensorboard", "-o", "deep/er", "--norm", "l1", "--norm", "zeros", "--select", "conv*.bias")
    tags = {tag for tag in board.curves(folder / "deep" / "er") if tag.startswith("conv1/")}
    assert tags == {f"conv1/bias/{word}{kind}" for word in ("", "grad/", "update/") for kind in ("l1", "zeros")}


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_what_is_there_stays_as_it_is(folder, taken):
    (folder / "folder").mkdir()
    (folder / "folder" / "a").touch()
    (folder / "file").touch()
    sentence = f"{taken!r} is there already and stays as it is; give another folder with -o"
    assert_sentence(invoke("--to", "tensorboard", "-o", taken), sentence)


def test_an_empty_folder_is_taken(folder):
    (folder / "logs").mkdir()
    assert invoke("--to", "tensorboard", "-o", "logs").exit_code == 0


def test_a_failure_leaves_no_file(folder, monkeypatch):
    def broken(*_):
        yield from ()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(curves, "_figures", broken)
    assert_sentence(invoke("--to", "tensorboard", "-o", "logs"), "cannot write into 'logs': No space left on device", 3)
    assert not (folder / "logs").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--to", "csv", "--norm", "l1"], "--norm l1 chooses curves for tensorboard; leave it out with --to csv"),
        (["--to", "wandb", "--norm", "l1"], "--norm l1 chooses curves for tensorboard; leave it out with --to wandb"),
        (["--to", "wandb", "-o", "-"], "-o - prints csv only, not 'wandb'; give a name with -o, or leave it out"),
        (["--to", "mlflow", "-o", ""], "-o '' is empty; give a name, or leave it out"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(folder, arguments, sentence):
    assert_sentence(invoke(*arguments), sentence)


@pytest.mark.parametrize(
    ("kind", "library", "words"),
    [
        ("tensorboard", "google_crc32c", "TensorBoard files need"),
        ("wandb", "wandb", "W&B"),
        ("mlflow", "mlflow", "MLflow"),
    ],
)
def test_a_library_that_is_missing_is_named(folder, monkeypatch, kind, library, words):
    monkeypatch.setitem(sys.modules, library, None)
    result = invoke("--to", kind)
    assert result.exit_code == 2
    assert words in result.stderr
    assert f"`pip install 'normkit[{kind}]'` brings it\n" in result.stderr
    assert {path.name for path in folder.iterdir()} == {"runs"}


class Run:
    """A run of W&B, as far as an export knows."""

    name = "digits"

    def __init__(self):
        self.rows = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended = True

    def define_metric(self, name, step_metric=None):
        pass

    def log(self, values, commit=None):
        assert commit
        self.rows.append(values)


def test_to_wandb_is_a_row_per_step(folder, monkeypatch):
    run, asked = Run(), []
    monkeypatch.setattr(wandb, "begun", lambda project, name: asked.append((project, name)) or run)
    result = invoke("--to", "wandb", "-o", "my project")
    steps = load(folder / "runs" / "digits.norms").steps.tolist()
    assert result.stdout == f"normkit: wrote {len(steps)} steps to the W&B run 'digits'\n"
    assert asked == [("my project", "digits")]
    assert [row["normkit/step"] for row in run.rows] == steps
    assert {"normkit/weight_l2", "normkit/loss", "normkit/update_ratio"} < set(run.rows[-1])
    assert run.ended


def test_a_service_that_refuses_is_a_sentence(folder, monkeypatch):
    def refused(*_):
        raise RuntimeError("no\nanswer")

    monkeypatch.setattr(mlflow, "begun", refused)
    assert_sentence(invoke("--to", "mlflow"), "MLflow did not take the run: no answer")
