"""`normkit show --watch`: when it looks, what it shows on a terminal and in a pipe, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

import made_up
import written
from normkit.cli import follow
from normkit.cli.group import group
from normkit.errors import FileError
from normkit.store.writer import Writer

END = {"finished": "2026-11-21T10:00:00+00:00", "end": "finished"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "runs").mkdir()
    return tmp_path


class Live:
    """A run that goes on: each call of `go` makes one more record that others can read."""

    def __init__(self, path, count=3):
        self.count, self.step = count, 0
        self.writer = Writer(path, {"steps": 0})
        self.layout = self.writer.layout(written.params(count))
        self.go()

    def go(self):
        self.writer.put(written.reading(self.step, self.layout, self.count))
        self.step += 1
        assert self.writer.flush() == 0

    def end(self):
        self.writer.update_meta(END)
        self.writer.close()
        assert self.writer.error is None


class Clock:
    """Time that passes in `sleep` only; what is to happen meanwhile is taken from `events`, one per sleep."""

    def __init__(self, *events):
        self.now, self.slept, self.events = 0.0, [], list(events)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        assert self.events, "slept on for ever"
        self.events.pop(0)()


def nothing():
    pass


@pytest.fixture
def clock(monkeypatch):
    """Put a clock in the place of the real one."""

    def put(*events):
        made = Clock(*events)
        monkeypatch.setattr(follow, "time", made)
        return made

    return put


def test_a_look_only_where_something_was_written(folder, clock):
    run = Live(folder / "a.norms")
    made = clock(nothing, nothing, run.go, nothing, run.end)
    assert [len(recording) for recording in follow.looks(folder / "a.norms")] == [1, 2, 2]
    assert made.events == []


def test_an_old_screen_is_drawn_again(folder, clock):
    run = Live(folder / "a.norms")
    clock(*[nothing] * 11, run.end)
    assert [len(recording) for recording in follow.looks(folder / "a.norms", 10.0)] == [1, 1, 1]


@pytest.mark.parametrize(("took", "pause"), [(0.0, 1.0), (0.05, 1.0), (0.5, 4.5), (3.0, 27.0)])
def test_looking_takes_a_tenth_of_the_time_at_most(took, pause, folder, clock):
    run = Live(folder / "a.norms")
    made = clock(run.end)
    for _ in follow.looks(folder / "a.norms"):
        made.now += took
    assert made.slept == [pytest.approx(pause)]


def test_nothing_is_held_between_two_looks(folder):
    run = Live(folder / "a.norms")
    looks = follow.looks(folder / "a.norms")
    recording = next(looks)
    assert len(recording.matrix()) == 1
    run.end()  # folds the WAL only where no one else has the file open
    assert [path.name for path in folder.glob("a.norms*")] == ["a.norms"]


def test_a_file_that_goes_away_is_a_sentence(folder, clock):
    made_up.write(made_up.digits(), folder / "a.norms")
    written.change(folder / "a.norms", "DELETE FROM meta WHERE key = 'finished'")
    clock(lambda: os.remove("a.norms"))
    with pytest.raises(FileError, match=r"^'a.norms' is gone: it was moved or deleted while it was followed$"):
        list(follow.looks(follow.Path("a.norms")))


@pytest.mark.parametrize("named", [True, False])
def test_a_run_that_has_not_begun_is_waited_for(named, folder, clock, capsys):
    path = folder / "runs" / "a.norms"
    path.touch()
    clock(nothing, lambda: written.write(path))
    assert follow.awaited(path if named else None).samefile(path)
    what = "nothing in 'runs/a.norms'" if named else "no recording in 'runs'"
    assert capsys.readouterr() == ("", f"normkit: {what} yet; waiting (Ctrl-C leaves)\n")


@pytest.mark.parametrize(
    ("lines", "shown"),
    [(5, ["1", "2", " ... 4 more lines in a higher terminal"]), (7, ["1", "2", "3", "4", " ... 2 more"]), (8, None)],
)
def test_a_text_that_is_too_high_is_cut(lines, shown, monkeypatch):
    monkeypatch.setattr(follow.shutil, "get_terminal_size", lambda: os.terminal_size((80, lines)))
    text = "1\n2\n3\n4\n5\n6"
    fitted = follow.fitting(text)
    assert fitted.startswith("\n".join(shown or [text]))
    assert fitted.count("\n") + 1 <= max(lines - 2, 3)


@pytest.mark.parametrize(
    ("others", "named"),
    [(["--json"], "--json"), (["--at", "3"], "--at 3"), (["--at", "3", "--json"], "--json")],
)
def test_watch_refuses_what_is_not_a_whole_run_on_the_screen(others, named, folder):
    result = CliRunner().invoke(group, ["show", "--watch", *others], prog_name="normkit")
    sentence = f"normkit: --watch follows a whole run on the screen; leave {named} out\n"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", sentence)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("no.norms", "there is no recording at 'no.norms'; `normkit run script.py` makes one"),
        (".", "'.' is a directory; give a recording in it, such as 'mine.norms'"),
        ("train.py", "'train.py' is not a normkit recording: it begins with b'print(1)'"),
    ],
)
def test_what_cannot_be_followed_is_a_sentence(path, sentence, folder):
    (folder / "train.py").write_text("print(1)")
    result = CliRunner().invoke(group, ["show", "--watch", path], prog_name="normkit")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", f"normkit: {sentence}\n")


@pytest.mark.parametrize("options", [[], ["--all"], ["--sort", "l2"], ["--select", "bias"]])
def test_of_a_finished_run_the_text_is_that_of_show(options, folder):
    made_up.write(made_up.digits(), folder / "runs" / "a.norms")
    invoke = CliRunner().invoke
    assert (
        invoke(group, ["show", "--watch", *options]).stdout == invoke(group, ["show", "runs/a.norms", *options]).stdout
    )


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "normkit.cli", "show", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
    )


def headline(records):
    return f"normkit: recorded {records} of {records} step{'s' * (records != 1)} x 3 tensors in runs/a.norms\n"


def test_in_a_pipe_a_line_per_change_and_the_text_at_the_end(folder):
    run = Live(folder / "runs" / "a.norms")
    process = start("--watch", "--select", "layer.1.*")
    assert process.stdout.readline() == headline(0)
    run.go()
    assert process.stdout.readline() == headline(1)
    run.end()
    rest = process.stdout.read()
    assert rest.startswith(headline(1))
    assert "layer.1.weight" in rest
    assert "layer.2.weight" not in rest.split("tensor  ")[-1]
    assert (process.wait(60), process.stderr.read()) == (0, "")
    process.stdout.close(), process.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_an_interrupt_is_the_way_to_leave(folder):
    run = Live(folder / "runs" / "a.norms")
    process = start("--watch")
    assert process.stdout.readline() == headline(0)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    run.end()


def terminal(*arguments, rows=30):
    pexpect = pytest.importorskip("pexpect", reason="a terminal is played by pexpect")
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    return pexpect.spawn(
        sys.executable,
        ["-m", "normkit.cli", "show", *arguments],
        env=env | {"TERM": "xterm-256color"},
        dimensions=(rows, 90),
        encoding="utf-8",
        timeout=60,
    )


@pytest.mark.parametrize("interrupted", [True, False])
def test_on_a_terminal_one_text_is_kept_up_to_date(interrupted, folder):
    pexpect = pytest.importorskip("pexpect", reason="a terminal is played by pexpect")
    child = terminal("--watch", "--all", rows=7)
    child.expect("no recording in 'runs' yet; waiting")
    run = Live(folder / "runs" / "a.norms")
    child.expect("recorded 0 of 0 steps")
    child.expect(r"\.\.\. \d+ more lines in a higher terminal")
    child.expect("following the run; Ctrl-C leaves")
    run.go()
    child.expect("recorded 1 of 1 step ")
    child.expect("following the run; Ctrl-C leaves")
    child.sendcontrol("c") if interrupted else run.end()
    child.expect(pexpect.EOF)
    child.close()
    left = child.before.rpartition("\x1b[2K")[2]
    assert (child.exitstatus, child.signalstatus) == (0, None)
    assert "recorded 1 of 1 step x 3 tensors" in left
    assert ("still running" in left) == interrupted
    assert "layer.2.weight" in left
    assert "following" not in left
    if interrupted:
        run.end()


def test_on_a_terminal_show_says_what_to_type_next(folder):
    pexpect = pytest.importorskip("pexpect", reason="a terminal is played by pexpect")
    made_up.write(made_up.digits(), folder / "runs" / "a.norms")
    for arguments, where in ((["runs/a.norms"], " runs/a.norms"), ([], "")):
        child = terminal(*arguments)
        child.expect(pexpect.EOF)
        child.close()
        lines = child.before.replace("\r", "").split("\n")
        assert lines[-2] == f"Next:  normkit show --all{where}    normkit export --to csv{where}"
