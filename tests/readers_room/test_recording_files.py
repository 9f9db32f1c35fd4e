"""Files that are no recording, damaged, hostile, read-only: one sentence, or the numbers; never anything else."""

import os
import random
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from normkit.errors import FileError, NormkitError
from normkit.readers import Recording, database
from normkit.store import schema
from written import assert_holds, change, finished, params, reading, start, write


def touch_all(path):
    """Ask everything that a recording answers."""
    recording = Recording(path)
    recording.matrix()
    recording.matrix("std", "grad")
    recording.sums("dot", "update")
    _ = (
        recording.scalar_names,
        recording.events,
        recording.stored_findings(),
        recording.findings(),
        recording.meta,
        repr(recording),
    )
    if len(recording):
        recording.at(int(recording.steps[-1]))
    return recording


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "a.norms", range(6), 4, scalars={"lr": 0.5})


def other_sqlite(path):
    con = sqlite3.connect(path)
    con.execute("CREATE TABLE t (x)")
    con.commit()
    con.close()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: None, r"there is no recording at '.*x\.norms'; `normkit run script.py` makes one"),
        (lambda p: p.mkdir(), r"'.*x\.norms' is a directory; give a recording in it, such as '.*mine\.norms'"),
        (lambda p: p.touch(), r"'.*x\.norms' is empty: nothing was recorded in it yet"),
        (
            lambda p: p.write_text("step,loss\n"),
            r"'.*x\.norms' is not a normkit recording: it begins with b'step,loss\\n'",
        ),
        (lambda p: p.write_bytes(b"SQLite format 3\0"), r"'.*x\.norms' is an SQLite file, but not a normkit recording"),
        (other_sqlite, r"'.*x\.norms' is an SQLite file, but not a normkit recording"),
    ],
)
def test_what_is_no_recording(tmp_path, make, sentence):
    make(tmp_path / "x.norms")
    with pytest.raises(FileError, match=sentence):
        Recording(tmp_path / "x.norms")


def test_newer_version_is_refused(path):
    change(path, f"PRAGMA user_version={schema.VERSION + 1}")
    sentence = (
        rf"was written by a newer normkit: its format is {schema.VERSION + 1}, this one reads up to {schema.VERSION}"
    )
    with pytest.raises(FileError, match=sentence):
        Recording(path)


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (
            "UPDATE sums SET weight = x'00' WHERE seq = 3",
            r"weight sums of record 3 .*take 1 bytes where 192 or 224 were",
        ),
        ("UPDATE sums SET weight = zeroblob(200) WHERE seq = 3", r"weight sums of record 3 .*take 200 bytes"),
        ("UPDATE sums SET weight = 'text' WHERE seq = 3", r"weight sums of record 3"),
        ("UPDATE sums SET weight = printf('%192s', 'x') WHERE seq = 3", r"weight sums of record 3"),
        ("UPDATE sums SET weight = 7 WHERE seq = 3", r"weight sums of record 3"),
        ("DELETE FROM layout WHERE position = 2", "layout 0 is wrong at column 2: position 3, tensor 3"),
        ("UPDATE layout SET tensor = 99 WHERE position = 2", "layout 0 is wrong at column 2: position 2, tensor 99"),
        ("DELETE FROM layout", r"weight sums of record \d .*where 0 or 0 were expected"),
        ("UPDATE record SET layout = 8 WHERE seq = 3", r"weight sums of record 3"),
        ("UPDATE record SET step = 'soon' WHERE seq = 3", "a record's number is not one: expected int64"),
        ("UPDATE record SET wall = x'ff' WHERE seq = 3", "a record's number is not one: expected float64"),
        ("UPDATE record SET scalars = 'x' WHERE seq = 3", "a scalars value is not JSON: 'x'"),
        ("UPDATE record SET scalars = '[1]' WHERE seq = 3", r"the scalars of record 3 are '\[1\]'"),
        ("""UPDATE record SET scalars = '{"lr": "x"}' WHERE seq = 3""", "the scalars of record 3 are"),
        ("UPDATE meta SET value = '{'", "a meta value is not JSON: '{'"),
        ("UPDATE tensor SET shape = '[-1]' WHERE id = 1", "a size or axis is -1"),
        ("UPDATE tensor SET shape = '[1e9]' WHERE id = 1", "a size or axis is 1000000000.0"),
        ("UPDATE tensor SET shape = '7' WHERE id = 1", "a list is stored as '7'"),
        ("UPDATE tensor SET shape = '[9223372036854775807, 2]' WHERE id = 1", r"tensor 1 has more than 2\^63 entries"),
        ("UPDATE tensor SET role = 'king' WHERE id = 1", "tensor 1 has the role 'king'"),
        ("UPDATE tensor SET part = 'w' WHERE id = 1", "the part 'w'"),
        ("INSERT INTO finding VALUES (1,'r','fatal','t','','[]','theorem','',0,'{}')", "has the severity 'fatal'"),
        ("DROP TABLE event", "it has no plain table 'event'"),
    ],
)
def test_damage_is_named(path, statement, sentence):
    change(path, statement)
    with pytest.raises(FileError, match=rf"'.*a\.norms' is damaged: .*{sentence}"):
        touch_all(path)


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i, 0, 0, 0, 0, '{}' FROM n"


@pytest.mark.parametrize(
    "statements",
    [
        ["DROP TABLE record", f"CREATE VIEW record (seq, step, attempt, epoch, wall, layout, scalars) AS {ENDLESS}"],
        ["DROP TABLE event", "CREATE TABLE event (id, wall, kind, step, tensor, text AS (zeroblob(1000000000)))"],
        ["DROP TABLE meta", "CREATE VIRTUAL TABLE meta USING fts5(key, value)"],
    ],
)
def test_tables_that_compute_are_refused(path, statements):
    change(path, *statements)
    with pytest.raises(FileError, match="is damaged: it has no plain table"):
        touch_all(path)


def test_counts_that_the_file_cannot_hold_are_refused(path):
    numbers = "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
    change(
        path,
        f"INSERT INTO tensor {numbers}"
        " SELECT i, 't' || i, '[]', 'bias', '', '[]', '', NULL, NULL, 1, 'whole', '' FROM n",
        f"INSERT INTO layout {numbers} SELECT 1, i - 10, i, NULL, NULL FROM n",
        f"INSERT INTO record {numbers} SELECT i, i, 0, 0, 0, 1, '{{}}' FROM n",
    )
    with pytest.raises(FileError, match=r"is damaged: it names \d+ records x \d+ tensors in \d+ bytes"):
        touch_all(path)


NAMES = ["", "a'; DROP TABLE record; --", "../../etc/passwd", "\x1b[31mred", "x" * 100_000, "%s {0}", "né\U0001f600"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_data(path, name):
    con = sqlite3.connect(path)
    con.execute("UPDATE tensor SET name = ?, rule = ?, layer = ? WHERE id = 1", (name, name, name))
    con.execute("INSERT INTO meta VALUES (?, ?)", (name, '"x"'))
    con.commit()
    con.close()
    recording = touch_all(path)
    assert recording.tensors[1] == name
    assert np.isfinite(recording.series(name)).all()
    assert_holds(path, range(6), 4)


def test_names_that_are_not_utf8_are_read(path):
    change(path, "UPDATE tensor SET name = CAST(x'66ff' AS TEXT) WHERE id = 1")
    assert touch_all(path).tensors[1] == "f\ufffd"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_truncated_file_gives_a_sentence(path, share):
    size = path.stat().st_size
    os.truncate(path, int(size * share))
    with pytest.raises(FileError, match=r"'.*a\.norms' is (cut off: it has \d+ bytes of \d+|not a normkit|an SQLite)"):
        touch_all(path)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_give_a_sentence_or_numbers(path, seed):
    chance = random.Random(seed)
    raw = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 10, 200])):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    path.write_bytes(raw)
    try:
        touch_all(path)
    except NormkitError as error:
        assert str(path) in str(error) or "step=" in str(error)  # noqa: PT017 any of the sentences


def test_file_of_a_killed_writer_is_read_and_mended(tmp_path):
    """A database with a WAL beside it, as a killed process leaves them."""
    from normkit.store.writer import Writer

    live = tmp_path / "live.norms"
    writer = Writer(live, {})
    layout = writer.layout(params(4))
    for step in range(6):
        writer.put(reading(step, layout, 4))
    writer.flush()
    for end in ("", "-wal"):
        shutil.copy(f"{live}{end}", tmp_path / f"dead.norms{end}")
    writer.close()
    assert (tmp_path / "dead.norms-wal").stat().st_size > 0
    assert_holds(tmp_path / "dead.norms", range(6), 4)
    assert sorted(os.listdir(tmp_path)) == ["dead.norms", "live.norms"]


READ = """
import os, sys
from normkit.readers import Recording
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
assert not os.access(sys.argv[1], os.W_OK) and not os.access(os.path.dirname(sys.argv[1]), os.W_OK)
print(Recording(sys.argv[1]).matrix().shape)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_read_only_file_in_a_read_only_folder(mode):
    """Also one that was left in WAL mode because somebody was reading when it was finished."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        path = write(Path(name, "a.norms"), range(6), 4)
        change(path, f"PRAGMA journal_mode={mode}")
        path.chmod(0o444)
        path.parent.chmod(0o555)
        try:
            assert finished(start(READ, path)).strip() == "(6, 4)"
        finally:
            path.parent.chmod(0o755)
        assert os.listdir(name) == ["a.norms"]


def test_locked_file_is_not_read_past_its_lock(path, monkeypatch):
    """`immutable` is for files that cannot change; a lock says that this one does."""
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("BEGIN EXCLUSIVE")
    plain = sqlite3.connect
    monkeypatch.setattr(database.sqlite3, "connect", lambda *args, **more: plain(*args, **more, timeout=0.01))
    with pytest.raises(FileError, match=r"'.*a\.norms' cannot be read as a recording: database is locked"):
        Recording(path)
    con.close()
