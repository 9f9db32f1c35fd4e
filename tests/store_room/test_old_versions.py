"""Files of format 1, as the first version wrote them: read, and brought up to date when resumed."""

import json
import sqlite3

import numpy as np
import pytest

from normkit.errors import FileError
from normkit.readers import Recording
from normkit.store import schema
from normkit.store.writer import Writer
from written import assert_holds, change, matrix, params, reading, rows, write

FIRST = """
CREATE TABLE meta (
  key    TEXT PRIMARY KEY,
  value  TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE tensor (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL,
  aliases    TEXT NOT NULL,
  role       TEXT NOT NULL,
  layer      TEXT NOT NULL,
  shape      TEXT NOT NULL,
  dtype      TEXT NOT NULL,
  out_axes   TEXT,
  in_axes    TEXT,
  trainable  INTEGER NOT NULL,
  part       TEXT NOT NULL,
  rule       TEXT NOT NULL
);
CREATE TABLE layout (
  layout    INTEGER NOT NULL,
  position  INTEGER NOT NULL,
  tensor    INTEGER NOT NULL,
  "group"   INTEGER,
  PRIMARY KEY (layout, position)
) WITHOUT ROWID;
CREATE TABLE record (
  seq      INTEGER PRIMARY KEY,
  step     INTEGER NOT NULL,
  attempt  INTEGER NOT NULL,
  epoch    INTEGER,
  wall     REAL NOT NULL,
  layout   INTEGER NOT NULL,
  scalars  TEXT NOT NULL
);
CREATE TABLE sums (
  seq       INTEGER PRIMARY KEY,
  weight    BLOB,
  grad      BLOB,
  "update"  BLOB
);
CREATE TABLE finding (
  id        INTEGER PRIMARY KEY,
  rule      TEXT NOT NULL,
  severity  TEXT NOT NULL,
  text      TEXT NOT NULL,
  remedy    TEXT NOT NULL,
  tensors   TEXT NOT NULL,
  basis     TEXT NOT NULL,
  source    TEXT NOT NULL,
  step      INTEGER,
  evidence  TEXT NOT NULL
);
CREATE TABLE event (
  id      INTEGER PRIMARY KEY,
  wall    REAL NOT NULL,
  kind    TEXT NOT NULL,
  text    TEXT NOT NULL,
  step    INTEGER,
  tensor  TEXT
);
"""


@pytest.fixture
def old(tmp_path):
    """Forty records of three tensors in a file of format 1."""
    con = sqlite3.connect(tmp_path / "old.norms")
    con.executescript(FIRST)
    con.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
    con.execute("PRAGMA user_version=1")
    meta = {"framework": "made up", "end": "finished", "finished": "2026-01-01", "findings": 0, "started": "2025-12-31"}
    con.executemany("INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in meta.items()])
    for place, param in enumerate(params(3)):
        row = (place, param.name, "[]", "kernel", "Linear", "[4, 3]", "float32", None, None, 1, "whole", "")
        con.execute(f"INSERT INTO tensor VALUES ({', '.join('?' * 12)})", row)
        con.execute("INSERT INTO layout VALUES (0, ?, ?, NULL)", (place, place))
    for step in range(40):
        con.execute("INSERT INTO record VALUES (?, ?, 0, NULL, ?, 0, ?)", (step, step, 1.7e9 + step, '{"lr": 0.5}'))
        blobs = [matrix(step, 3, lines, seed).tobytes() for lines, seed in ((6, 0), (7, 1), (7, 2))]
        con.execute("INSERT INTO sums VALUES (?, ?, ?, ?)", (step, *blobs))
    con.commit()
    con.close()
    return tmp_path / "old.norms"


def test_it_is_read(old):
    assert_holds(old, range(40), 3)
    recording = Recording(old)
    assert recording.scalar("lr").tolist() == [0.5] * 40
    assert recording.params == params(3)
    assert recording.meta["end"] == "finished"


@pytest.mark.parametrize("spans", [1, 7, 100])
def test_its_envelope_needs_no_pyramid(old, spans):
    recording = Recording(old)
    found = recording.envelope(spans=spans)
    assert len(found.first) == min(spans, 40)
    assert found.records.sum() == 40
    for first, last, least, most in zip(found.first, found.last, found.least, found.most, strict=True):
        here = recording.matrix()[first : last + 1]
        np.testing.assert_allclose(least, here.min(axis=0), rtol=1e-6)
        np.testing.assert_allclose(most, here.max(axis=0), rtol=1e-6)


def test_reading_it_does_not_change_it(old):
    before = old.read_bytes()
    Recording(old).envelope()
    assert old.read_bytes() == before


def test_it_is_brought_up_to_date_when_it_is_resumed(old):
    writer = Writer(old, {"framework": "still made up"}, resume=True)
    layout = writer.layout(params(3), [(params(3)[0], "out", 4)])
    for step in range(30, 60):
        writer.put(reading(step, layout, 7))
    writer.close()
    assert writer.error is None
    assert rows(old, "PRAGMA user_version") == [(schema.VERSION,)]
    recording = Recording(old)
    assert recording.steps.tolist() == list(range(60))
    assert recording.meta["framework"] == "still made up"
    assert "end" not in recording.meta
    np.testing.assert_array_equal(recording.sums("sq")[:30], [matrix(step, 3, 6)[2] for step in range(30)])
    np.testing.assert_array_equal(recording.sums("sq")[30:], [matrix(step, 7, 6)[2, :3] for step in range(30, 60)])
    assert np.isnan(recording.rows("layer.0.weight")[:30]).all()
    assert np.isfinite(recording.rows("layer.0.weight")[30:]).all()
    for spans in (1, 5, 100):
        assert recording.envelope(spans=spans).records.sum() == 60
    assert rows(old, "SELECT sum(records) FROM pyramid WHERE level = 1") == [(70,)]


def test_it_has_then_all_that_a_new_file_has(old, tmp_path):
    Writer(old, {}, resume=True).close()
    query = "SELECT m.name, i.name, i.type FROM sqlite_master AS m, pragma_table_info(m.name) AS i ORDER BY 1, i.cid"
    assert rows(old, query) == rows(write(tmp_path / "new.norms"), query)
    again = old.read_bytes()
    Writer(old, {}, resume=True).close()
    assert len(old.read_bytes()) == len(again)


def test_a_newer_one_is_neither_read_nor_resumed(tmp_path):
    path = write(tmp_path / "a.norms")
    change(path, f"PRAGMA user_version = {schema.VERSION + 1}")
    before = path.read_bytes()
    said = rf"a\.norms' was written by a newer normkit: its format is {schema.VERSION + 1}, this one"
    with pytest.raises(FileError, match=f"{said} reads up to {schema.VERSION}; update normkit"):
        Recording(path)
    with pytest.raises(FileError, match=f"{said} writes {schema.VERSION}; update normkit"):
        Writer(path, {}, resume=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, r"the recording '.*x\.norms' cannot be resumed \(unable to open database file\)"),
        (lambda path: path.write_bytes(b"no database" * 99), r"cannot be resumed \(file is not a database\)"),
        (lambda path: sqlite3.connect(path).close() or path.touch(), r"'.*x\.norms' is not a normkit recording"),
    ],
)
def test_what_is_no_recording_is_not_resumed(make, sentence, tmp_path):
    make(tmp_path / "x.norms")
    with pytest.raises(FileError, match=sentence):
        Writer(tmp_path / "x.norms", {}, resume=True)
