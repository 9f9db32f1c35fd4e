"""`csv=`, `tensorboard=`, `wandb=` and `mlflow=` of `record`, in training loops."""

import csv
import gc
import io
import sys

import numpy as np
import pytest
import torch

import board
import normkit.torch as nk
from normkit.errors import ArgumentError, FileError, StateError
from normkit.readers import load
from normkit.recording.figures import FIGURES
from normkit.sinks import comma, mlflow, wandb
from normkit.sinks.tidy import blocks


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def net(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


def train(model, optimizer, steps, recorder=None):
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).pow(2).sum()
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.log(loss=loss.detach())


def recorded(steps=5, **how):
    model, optimizer = net()
    with nk.record(model, optimizer, to="mine", every=1, **how) as recorder:
        train(model, optimizer, steps, recorder)
    return load("mine.norms")


def rows(text):
    found = csv.DictReader(io.StringIO(text, newline=""))
    return sorted(found, key=lambda row: (int(row["step"]), row["tensor"], row["quantity"]))


def exported(recording):
    stream = io.BytesIO()
    comma.write(blocks(recording), stream)
    return rows(stream.getvalue().decode())


def test_the_table_is_the_export(folder):
    recording = recorded(csv="w.csv")
    assert rows((folder / "w.csv").read_text()) == exported(recording)


def test_a_layout_that_changes_loses_nothing(folder):
    model, optimizer = net()
    with nk.record(model, optimizer, to="mine", every=1, csv="w.csv", tensorboard="logs") as recorder:
        train(model, optimizer, 2, recorder)
        model.append(torch.nn.Linear(2, 2))
        optimizer.add_param_group({"params": list(model[3].parameters())})
        train(model, optimizer, 2, recorder)
    recording = load("mine.norms")
    assert rows((folder / "w.csv").read_text()) == exported(recording)
    assert [point.step for point in board.curves("logs")["3/weight/l2"]] == [3, 4]


def test_curves_are_the_recordings_series_and_scalars():
    recording = recorded(tensorboard="logs")
    found = board.curves("logs")
    for name in recording.tensors:
        for quantity, word in (("weight", ""), ("grad", "grad/"), ("update", "update/")):
            series = recording.series(name, "l2", quantity)
            there = ~np.isnan(series)
            points = found[f"{name.replace('.', '/')}/{word}l2"]
            assert [point.step for point in points] == recording.steps[there].tolist()
            assert [point.value for point in points] == series[there].astype(np.float32).tolist()
    losses = {point.step: point.value for point in found["loss"]}
    assert losses == {step: np.float32(recording.scalar("loss")[step]) for step in range(1, 6)}
    assert {tag.removeprefix("normkit/") for tag in found if tag.startswith("normkit/")} == set(FIGURES) - {"findings"}


def test_curves_are_chosen(capsys):
    recorded(tensorboard=nk.TensorBoard("logs", norms=("l1", "fro"), select="kernel", most=1), what="weight")
    assert {tag for tag in board.curves("logs") if tag[0].isdigit()} == {"0/weight/l1", "0/weight/l2"}
    assert "tensorboard: curves of the 1 largest of 2 tensors; nk.TensorBoard(" in capsys.readouterr().err


def test_a_choice_that_matches_nothing_is_said_at_once(folder):
    with pytest.raises(ArgumentError, match="nosuch"):
        recorded(tensorboard=nk.TensorBoard("logs", select="nosuch*"))
    assert list(folder.iterdir()) == []


def test_a_layer_that_leaves_takes_its_curves_along():
    model, optimizer = net()
    curves = nk.TensorBoard("logs", select="2.*")
    with nk.record(model, optimizer, every=1, what="weight", tensorboard=curves, quiet=True) as recorder:
        train(model, optimizer, 2, recorder)
        model[2] = torch.nn.Identity()
        train(model, optimizer, 2, recorder)
    assert [point.step for point in board.curves("logs")["2/bias/l2"]] == [0, 1, 2]
    assert board.curves("logs")["loss"][-1].step == 4


def test_groups_are_no_curves_and_no_rows(folder):
    recording = recorded(csv="w.csv", tensorboard="logs", per="out")
    assert rows((folder / "w.csv").read_text()) == exported(recording)
    assert len(board.curves("logs")) == 4 * 3 + 2 + 8


def test_names_that_are_taken_are_left_alone(folder, capsys):
    (folder / "w.csv").write_text("mine")
    recorded(tensorboard="logs")
    recorded(csv="w.csv", tensorboard="logs")
    said = capsys.readouterr().err
    assert "normkit: w.csv exists and is kept; writing to w-2.csv\n" in said
    assert "normkit: logs holds the curves of another run; writing to logs-2\n" in said
    assert (folder / "w.csv").read_text() == "mine"
    assert len(board.curves("logs")["loss"]) == len(board.curves("logs-2")["loss"]) == 5


def test_a_resumed_run_goes_on_in_its_own_files(folder, capsys):
    (folder / "w.csv").write_text("mine")
    model, optimizer = net()
    with nk.record(model, optimizer, to="mine", every=1, csv="w.csv", tensorboard="logs") as recorder:
        train(model, optimizer, 3, recorder)
        kept = {key: value.clone() for key, value in model.state_dict().items()}
        train(model, optimizer, 3, recorder)
    model.load_state_dict(kept)
    with nk.record(
        model, optimizer, to="mine", every=1, csv="w.csv", tensorboard="logs", resume=True, step=3
    ) as recorder:
        train(model, optimizer, 2, recorder)
    recording = load("mine.norms")
    assert recording.steps.tolist() == [0, 1, 2, 3, 4, 5]
    assert rows((folder / "w-2.csv").read_text()) == exported(recording)
    assert [point.step for point in board.curves("logs")["0/weight/l2"]] == [0, 1, 2, 3, 4, 5]
    assert not (folder / "w-3.csv").exists()
    assert not (folder / "logs-2").exists()
    assert "w-3" not in capsys.readouterr().err


def test_a_recorder_that_is_dropped_finishes_its_table(folder):
    model, optimizer = net()
    recorder = nk.record(model, optimizer, to="mine", every=1, csv="w.csv", quiet=True)
    train(model, optimizer, 3, recorder)
    threads = [outlet._thread for outlet in recorder._outlets._open]
    del recorder, model, optimizer
    gc.collect()
    for thread in threads:
        thread.join(10)
    assert list(dict.fromkeys(row["step"] for row in rows((folder / "w.csv").read_text()))) == ["0", "1", "2", "3"]


def test_figures_are_of_the_newest_record_and_know_the_findings_at_the_end():
    model, optimizer = net()
    with nk.record(model, optimizer, every=1, quiet=True) as recorder:
        assert recorder.figures() == {}
        train(model, optimizer, 2)
        found = recorder.figures(wait=True)
        length = torch.cat([weight.detach().double().ravel() for weight in model.parameters()]).norm().item()
        assert found["weight_l2"] == pytest.approx(length, rel=1e-6)
        assert "findings" not in found
    assert recorder.figures() == {**found, "findings": len(recorder.findings)}


def test_figures_count_findings_in_mid_run_where_asked():
    model, optimizer = net()
    model[0].weight.data[0, 0] = float("nan")
    with nk.record(model, optimizer, every=1, quiet=True) as recorder:
        train(model, optimizer, 2)
        recorder._writer.flush()
        assert recorder.figures(findings=True)["findings"] >= 1


def test_a_model_of_5000_tensors_says_a_few_lines(folder, capsys):
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(1)) for _ in range(5000)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to="big", every=1, csv="w.csv", tensorboard="logs", what="weight"):
        sum(model).backward()
        optimizer.step()
    said = capsys.readouterr().err
    assert "tensorboard: curves of the 200 largest of 5,000 tensors; nk.TensorBoard(folder, select=" in said
    assert len(said.splitlines()) < 12
    assert max(map(len, said.splitlines())) < 300
    assert (folder / "w.csv").read_text().count("\n") == 1 + 2 * 5000
    assert len(board.curves("logs")) == 200 + 1 + 4  # lr, and figures


@pytest.mark.parametrize("given", ["file/w.csv", "file/deep/er/w.csv"])
def test_a_table_that_cannot_be_made_is_refused_and_nothing_is_left(folder, given):
    (folder / "file").touch()
    with pytest.raises(FileError, match=rf"^csv='{given}' cannot be written \(.+\); give another path$"):
        recorded(csv=given, tensorboard="logs")
    assert not (folder / "mine.norms").exists()
    assert not list(folder.rglob("*tfevents*"))


def test_folders_cannot_be_made_below_a_file(folder):
    (folder / "file").touch()
    with pytest.raises(FileError, match=r"^tensorboard='file/logs' cannot be written \(.+\); give another folder$"):
        recorded(tensorboard="file/logs")


@pytest.mark.parametrize("word", ["csv", "tensorboard"])
def test_a_zero_byte_is_no_part_of_a_path(folder, word):
    with pytest.raises(ArgumentError, match=rf"^{word}='a\\x00b': a path holds no zero byte; give another one$"):
        recorded(**{word: "a\0b"})
    assert list(folder.iterdir()) == []


def test_the_folders_of_a_table_are_made(folder):
    recorded(1, csv="new/folder/x.csv")
    assert (folder / "new" / "folder" / "x.csv").read_text().startswith("step,")


def test_two_recorders_that_begin_together_have_a_folder_each(folder):
    nets = [net(seed) for seed in (0, 1)]
    pair = [nk.record(*each, every=1, tensorboard="logs", quiet=True) for each in nets]
    for recorder, each in zip(pair, nets, strict=True):
        train(*each, 1, recorder)
        recorder.close()
    assert sorted(path.name for path in folder.glob("logs*")) == ["logs", "logs-2"]
    assert [point.step for point in board.curves("logs-2")["0/weight/l2"]] == [0, 1]


@pytest.mark.parametrize(
    ("how", "library", "sentence"),
    [
        ({"wandb": True}, "wandb", "curves for W&B need wandb .*; `pip install 'normkit.wandb.'` brings it"),
        ({"mlflow": True}, "mlflow", "curves for MLflow need mlflow .*; `pip install 'normkit.mlflow.'` brings it"),
        ({"tensorboard": "logs"}, "google_crc32c", "TensorBoard files need google-crc32c"),
    ],
)
def test_a_library_that_is_missing_is_named_before_a_file_is_made(how, library, sentence, monkeypatch, folder):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ArgumentError, match=sentence):
        recorded(**how)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"wandb": True}, r"^wandb=True means the active run, and there is none; call wandb.init\(\) first$"),
        ({"mlflow": True}, r"^mlflow=True means the active run, and there is none; call mlflow.start_run\(\) first$"),
    ],
)
def test_without_an_active_run_one_is_told_to_begin_it(how, sentence, monkeypatch, folder):
    class Library:
        run = None
        active_run = staticmethod(lambda: None)

    monkeypatch.setattr(wandb, "wandb", Library)
    monkeypatch.setattr(mlflow, "mlflow", Library)
    with pytest.raises(StateError, match=sentence):
        recorded(**how)
    assert list(folder.iterdir()) == []
