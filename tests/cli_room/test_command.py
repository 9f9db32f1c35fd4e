"""`normkit run -- command`: signals go down to the child, its exit code or its signal comes up."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys

import pytest

from normkit.cli.command import Command
from normkit.errors import ArgumentError

RUN = [sys.executable, "-m", "normkit.cli", "run"]
NOTHING = "normkit: nothing was recorded: "
TELLS = """
import signal, sys
def tell(number, frame):
    print(signal.Signals(number).name, flush=True)
    sys.exit(7)
for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
    signal.signal(getattr(signal, name), tell)
print("ready", flush=True)
while True:
    signal.pause()
"""
COUNTS = """
import signal, time
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
print("ready", flush=True)
while not seen:
    time.sleep(0.01)
time.sleep(0.5)
print(f"{len(seen)} in all", flush=True)
"""


def ran(*words, cwd, **more):
    return subprocess.run([*RUN, *words], capture_output=True, text=True, cwd=cwd, check=False, **more)


@contextlib.contextmanager
def killed_at_last(process):
    """A child that has not ended when the test has failed is not waited for."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()


@pytest.mark.parametrize("dashes", [["--"], []])
@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_and_streams_are_the_childs(code, dashes, tmp_path):
    done = ran(*dashes, "sh", "-c", f"cat; echo err >&2; exit {code}", "-", "--quiet", cwd=tmp_path, input="given")
    assert (done.stdout, done.returncode) == ("given", code)
    err, said = done.stderr.splitlines()
    assert err == "err"
    idle = "no PyTorch optimizer took a step, and no Keras model was fitted in a Python"
    why = "the command ended before an optimizer took a step" if code else idle
    assert said.startswith(NOTHING + why)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGSEGV", "SIGINT"])
def test_dies_of_the_childs_signal(name, tmp_path):
    number = getattr(signal, name)
    done = ran("--quiet", "--", "sh", "-c", f"ulimit -c 0; kill -{int(number)} $$", cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", -number)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_signals_reach_the_child(name, tmp_path):
    command = [*RUN, "--", sys.executable, "-c", TELLS]
    number = getattr(signal, name)

    def heard():  # where these tests run under nohup, a hangup is ignored, and would be by the command
        signal.signal(number, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, preexec_fn=heard, **pipes)  # noqa: PLW1509 (it takes no lock)
    with process, killed_at_last(process):
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == (f"{name}\n", 7)
    assert err.startswith(NOTHING)
    assert "Traceback" not in err


def test_an_ignored_signal_stays_ignored(tmp_path):
    given = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    done = subprocess.run(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "-", *RUN, "--", sys.executable, "-c", given],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout == "True\n"


def test_ctrl_c_at_a_terminal_reaches_the_child_once(tmp_path):
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.execv(sys.executable, [*RUN, "--quiet", "--", sys.executable, "-c", COUNTS])
    text = b""
    while b"ready" not in text:
        text += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    while b"in all" not in text:
        text += os.read(terminal, 1000)
    assert b"1 in all" in text
    assert os.waitpid(process, 0)[1] == 0
    os.close(terminal)


def test_a_file_that_cannot_be_started_is_one_sentence(tmp_path):
    (tmp_path / "tool").write_bytes(b"\x00\x01")
    (tmp_path / "tool").chmod(0o755)
    with pytest.raises(ArgumentError, match=r"the command '.*tool' cannot be started: Exec format error"):
        Command(str(tmp_path / "tool"), ()).run()


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert Command("true", ()).run().code == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
