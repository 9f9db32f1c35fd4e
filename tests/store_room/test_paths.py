"""Where a new recording goes."""

import re
import sys
from pathlib import Path

import pytest

from normkit.errors import FileError
from normkit.store.paths import new_path, script_name
from written import finished, start


def test_default_is_named_for_script_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "--lr", "1"])
    path, wanted = new_path()
    assert path == wanted
    assert re.fullmatch(r"runs/train-\d{8}-\d{4}\.norms", path.as_posix())
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
