"""What the words behind `normkit run` mean: a script of this Python, or any other command."""

from __future__ import annotations

import sys

import pytest

from normkit.cli.command import Command
from normkit.cli.program import program_of
from normkit.cli.script import Script
from normkit.errors import ArgumentError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("")
    (tmp_path / "made.py").write_text("")
    (tmp_path / "plain").write_text("print(1)")
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "train.sh").write_text("#!/bin/sh\n")
    (tmp_path / "kept").write_text("#!/usr/bin/env python3\n")
    for name in ("made.py", "tool"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "lab").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("lab", "torchrun", "plain"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.mark.parametrize(
    ("called", "kind"),
    [
        ("train.py", Script),
        ("./train.py", Script),
        ("made.py", Script),  # one may start a script by its name, but it is still one
        ("plain", Script),  # the file here, not the command of that name
        ("kept", Script),
        ("torchrun", Command),
        ("lab", Command),  # a folder of that name does not hide the command
        ("./tool", Command),
        ("bin/torchrun", Command),
        (sys.executable, Command),
    ],
)
def test_kind_of_program(called, kind, folder):
    program = program_of(called, ["--lr", "1"])
    assert type(program) is kind
    assert program.arguments == ("--lr", "1")


@pytest.mark.parametrize(
    ("called", "sentence"),
    [
        ("nothere.py", "there is no script 'nothere.py' in '.*'; check the path"),
        ("nothere", "there is neither a script 'nothere' in '.*' nor a command of that name; check the spelling"),
        ("./nothere", "there is neither a script './nothere' in"),
        ("bin", "'bin' is a directory; give the script to run, such as 'bin/train.py'"),
        ("train.sh", "'train.sh' is not a Python script; run it by its own program, as in: .* -- bash train.sh"),
    ],
)
def test_neither_is_one_sentence(called, sentence, folder):
    with pytest.raises(ArgumentError, match=sentence):
        program_of(called, [])
