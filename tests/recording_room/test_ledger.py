"""The ledger of a run: each process notes its recordings, the first one reads them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from normkit.recording.ledger import Notes, ledger, note, noted


def test_notes_come_back_in_order_and_the_file_goes():
    with ledger() as path:
        assert not os.path.exists(path)  # a run that notes nothing leaves nothing, however it dies
        for kind, text in [("recorded", "a"), ("refused", "full\ndisk"), ("recorded", "b"), ("recorded", "a")]:
            note(path, kind, text)
        assert noted(path) == Notes(recorded=("a", "b"), refused=("full\ndisk",))
    assert not os.path.exists(path)


def test_notes_of_many_at_once_are_whole():
    names = [f"{number}" * 300 for number in range(200)]
    with ledger() as path:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: note(path, "recorded", name), names))
        assert sorted(noted(path).recorded) == sorted(names)


@pytest.mark.parametrize("content", [None, b"", b"no json]\n", b"\xff\xfe]\n", b"3\n", b'["recorded", "cut'])
def test_a_ledger_that_cannot_be_read_says_nothing(content, tmp_path):
    path = tmp_path / "ledger"
    if content is not None:
        path.write_bytes(content)
    assert noted(str(path)) == Notes()


@pytest.mark.parametrize("path", [None, "/no/such/folder/ledger"])
def test_a_note_that_cannot_be_made_is_none(path):
    note(path, "recorded", "a")
    assert noted(path) == Notes()


def test_what_the_reader_knows_comes_first():
    notes = Notes(("b",), ("full",))
    assert notes.after(Path("a"), "late") == Notes(("a", "b"), ("late", "full"))
    assert notes.after(None, None) == notes
