"""Where a new recording goes."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from normkit.errors import ArgumentError, FileError
from normkit.readers.recording import load
from normkit.store.paths import new_path, planned, script_name, shown
from written import finished, start


def test_default_is_named_for_script_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "--lr", "1"])
    path, wanted = new_path()
    assert path == wanted
    assert path.parent == tmp_path / "runs"
    assert re.fullmatch(r"train-\d{8}-\d{4}\.norms", path.name)
    assert path.read_bytes() == b""


def test_default_takes_the_script_it_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new_path(script="finetune").path.name.startswith("finetune-")


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["train.py"], "train"),
        (["/a/b/train.v2.py"], "train.v2"),
        (["-c"], "python"),
        ([""], "python"),
        (["-"], "python"),
        ([], "python"),
        (["/site/pkg/__main__.py"], "pkg"),
        (["/site/ipykernel_launcher.py", "-f", "x.json"], "notebook"),
    ],
)
def test_script_name(argv, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert script_name() == name


def test_script_name_in_a_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert script_name() == "notebook"


@pytest.mark.parametrize(
    ("to", "name"),
    [("mine", "mine.norms"), ("mine.norms", "mine.norms"), ("v1.2", "v1.2.norms"), ("a/b/mine", "a/b/mine.norms")],
)
def test_suffix_and_folders_are_made(tmp_path, to, name):
    path, wanted = new_path(tmp_path / to)
    assert path == wanted == tmp_path / name
    assert path.is_file()


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert new_path("~/mine").path == tmp_path / "mine.norms"


def test_existing_file_is_left_alone(tmp_path):
    (tmp_path / "mine.norms").write_text("precious")
    second, wanted = new_path(tmp_path / "mine.norms")
    assert (second.name, wanted.name) == ("mine-2.norms", "mine.norms")
    assert new_path(tmp_path / "mine").path.name == "mine-3.norms"
    assert (tmp_path / "mine.norms").read_text() == "precious"


def test_dangling_link_is_left_alone(tmp_path):
    (tmp_path / "mine.norms").symlink_to(tmp_path / "elsewhere")
    assert new_path(tmp_path / "mine").path.name == "mine-2.norms"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("end", ["", "/"])
def test_directory_is_refused(tmp_path, end):
    with pytest.raises(FileError, match=r"is a directory; give the name of a file, such as '.*mine\.norms'"):
        new_path(f"{tmp_path}{end}")


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(FileError, match=r"the folder '.*runs' for the recording cannot be made \(File exists\)"):
        new_path(tmp_path / "runs" / "mine")


def test_name_that_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"'.*' cannot be made \(File name too long\); give another path by to="):
        new_path(tmp_path / ("x" * 300))


def test_ten_processes_get_ten_files(tmp_path):
    code = "import sys; from normkit.store.paths import new_path; print(new_path(sys.argv[1]).path)"
    started = [start(code, tmp_path / "same") for _ in range(10)]
    names = {Path(finished(process).strip()).name for process in started}
    assert names == {"same.norms", *(f"same-{n}.norms" for n in range(2, 11))}


@pytest.mark.parametrize("to", [None, "mine", "a/b/../mine.norms", "~nobody-of-that-name/mine"])
def test_paths_stay_where_they_are_when_the_folder_changes(to, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, wanted = new_path(to)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert path == wanted
    assert path.is_absolute()
    assert path.is_file()
    assert ".." not in path.parts


NO_PATHS = {
    "number": (5, r"to=5: expected the path of a file, such as 'runs/mine\.norms'"),
    "bytes": (b"mine", r"to=b'mine': expected the path of a file"),
    "array": (np.zeros((500, 500)), r"to=<ndarray of shape \(500, 500\)>: expected the path of a file"),
    "empty": ("", r"to='' is empty; give the name of a file, such as 'runs/mine\.norms', or leave it out"),
    "blank": ("  ", r"to='  ' is empty; give the name"),
}


@pytest.mark.parametrize("ask", [new_path, planned])
@pytest.mark.parametrize("name", NO_PATHS)
def test_what_is_no_path_is_refused(ask, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    to, sentence = NO_PATHS[name]
    with pytest.raises(ArgumentError, match=sentence):
        ask(to)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [5, b"mine.norms", ["mine.norms"]])
def test_what_is_no_path_is_not_loaded(path):
    with pytest.raises(ArgumentError, match=r"path=.*: expected the path of a recording, such as 'runs/mine\.norms'"):
        load(path)


def test_a_current_folder_that_is_gone_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileError, match=r"'mine\.norms' leads nowhere \(.*\); give an absolute path by to="):
        new_path("mine")
    assert shown("/a/b.norms") == "/a/b.norms"


def test_planned_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert planned("a/b/mine") == tmp_path / "a/b/mine.norms"
    assert planned(script="train").parent == tmp_path / "runs"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("to", "sentence"),
    [
        ("sub", r"to='sub' is a directory; give the name of a file, such as 'sub/mine\.norms'"),
        ("file/mine", r"the recording 'file/mine\.norms' cannot be made \(.*\); give another path by to="),
        ("x" * 300, r"cannot be made \(File name too long\); give another path by to="),
        ("/proc/mine", r"the recording '/proc/mine\.norms' cannot be made \(.*\); give another path by to="),
    ],
)
def test_planned_refuses_what_cannot_be_made(to, sentence, tmp_path, monkeypatch):
    if to.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("there is no folder here that nobody may write")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=sentence):
        planned(to)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("runs/mine.norms", "runs/mine.norms"),
        ("../beside/mine.norms", "../beside/mine.norms"),
        ("/mine.norms", "/mine.norms"),
    ],
)
def test_shown_is_what_one_would_type(path, words, tmp_path, monkeypatch):
    (tmp_path / "deep" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "here")
    assert shown((Path.cwd() / path).resolve()) == words
    monkeypatch.chdir(tmp_path)
    assert shown((tmp_path / "deep" / "here" / path).resolve(), tmp_path / "deep" / "here") == words
