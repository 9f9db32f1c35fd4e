"""Questions to the envelope that make no sense, damaged and hostile pyramids: one sentence, or a plain answer."""

import numpy as np
import pytest

from normkit.errors import ArgumentError, FileError
from normkit.readers import Recording
from written import change, rows, write


def make(path, steps):
    return write(path, steps, 4)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    return make(tmp_path_factory.mktemp("long") / "a.norms", range(0, 3000, 3))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"norm": "std"}, r"'std' does not follow from the pyramid; 'l1', .*'nonfinite' do"),
        ({"norm": "spectral"}, r"'spectral' does not follow from the sums that a recording keeps"),
        ({"quantity": "gard"}, r"there is no quantity 'gard'; did you mean 'grad'\?"),
        ({"spans": 0}, r"spans=0: expected a whole number of at least 1"),
        ({"spans": 2.5}, r"spans=2\.5: expected a whole number of at least 1"),
        ({"spans": "many"}, r"spans='many': expected a whole number of at least 1"),
        ({"start": "0"}, r"start='0': expected a whole number of steps, or None"),
        ({"stop": 2.5}, r"stop=2\.5: expected a whole number of steps, or None"),
    ],
)
def test_arguments_that_make_no_sense(long, arguments, sentence):
    with pytest.raises(ArgumentError, match=f"^{sentence}"):
        Recording(long).envelope(**arguments)


def test_numbers_of_numpy_are_numbers(long):
    found = Recording(long).envelope(spans=np.int64(3), start=np.int32(30), stop=np.int64(600))
    assert 1 <= len(found.first) <= 3
    assert found.first[0] <= 30
    assert 600 <= found.last[-1] < 900


def ask(path):
    recording = Recording(path)
    for spans in (1, 3, 1000):
        for quantity in ("weight", "grad", "update"):
            found = recording.envelope(quantity=quantity, spans=spans)
            assert len(found.first) <= spans
            assert found.mean.shape == (len(found.first), len(recording.tensors))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("UPDATE pyramid SET weight = x'00'", r"block \d+ of the weight pyramid takes 1 bytes where 288 were expected"),
        ("UPDATE pyramid SET weight = zeroblob(292)", r"block \d+ .* takes 292 bytes where 288 were expected"),
        ("UPDATE pyramid SET weight = zeroblob(100000000) WHERE id = 1", r"block 1 .* takes 100000000 bytes"),
        ("UPDATE pyramid SET grad = x''", r"block \d+ of the grad pyramid takes 0 bytes where 288"),
        ("UPDATE pyramid SET weight = printf('%288s', 'x')", r"block \d+ of the weight pyramid takes 288 bytes"),
        ("UPDATE pyramid SET weight = 7", r"block \d+ of the weight pyramid takes 1 bytes"),
        ("UPDATE pyramid SET level = 'high'", r"a number of the pyramid is not one"),
        ("UPDATE pyramid SET first = 'a', last = 'b'", r"a number of the pyramid is not one"),
        ("UPDATE pyramid SET records = x'ff'", r"a number of the pyramid is not one"),
        ("UPDATE pyramid SET first = 1e300", r"a number of the pyramid is not one"),
        ("UPDATE pyramid SET level = 0", r"the block of records 0 to 15 has the level 0"),
        ("UPDATE pyramid SET level = -3", r"the block of records 0 to 15 has the level -3"),
        (
            "UPDATE pyramid SET level = 9223372036854775807",
            r"the block of records 0 to 15 has the level 9223372036854775807",
        ),
        ("UPDATE pyramid SET first = last, last = first WHERE id = 1", r"the block of records 15 to 0 has the level 1"),
        ("UPDATE pyramid SET first_step = 9 WHERE last_step < 9", None),
        ("UPDATE pyramid SET records = 0", r"the block of records 0 to 15 .* 0 records"),
        ("UPDATE pyramid SET records = -5", r"the block of records 0 to 15 .* -5 records"),
        ("UPDATE pyramid SET first = 3 WHERE id = 2", r"blocks of level 1 overlap at record 3"),
        ("UPDATE pyramid SET layout = 99", r"block \d+ of the weight pyramid takes 288 bytes where 0 were expected"),
        ("UPDATE pyramid SET last = 9223372036854775807 WHERE level = 2", None),
        ("UPDATE pyramid SET last_step = 9223372036854775807 WHERE level = 2", None),
        ("UPDATE pyramid SET attempt = 7", None),
        ("UPDATE pyramid SET scalars = 'no JSON'", None),
        ("DELETE FROM pyramid", None),
        ("DELETE FROM pyramid WHERE level = 1", None),
        ("UPDATE pyramid SET weight = NULL", None),
        ("DROP TABLE pyramid", r"it has no plain table 'pyramid'"),
        ("ALTER TABLE pyramid RENAME COLUMN first TO last_first", r"cannot be read as a recording: no such column"),
    ],
)
def test_a_damaged_pyramid_is_a_sentence_or_a_plain_answer(damage, sentence, tmp_path):
    path = make(tmp_path / "a.norms", range(40))
    change(path, damage)
    if sentence is None:
        ask(path)
    else:
        with pytest.raises(FileError, match=sentence):
            ask(path)


def test_many_blocks_of_many_tensors_are_not_made_room_for(tmp_path):
    path = make(tmp_path / "a.norms", range(2))
    change(
        path,
        "WITH RECURSIVE n(i) AS (SELECT 4 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
        " INSERT INTO layout SELECT 0, i, i % 4, NULL, NULL FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 4 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)"
        " INSERT INTO tensor SELECT i, 't' || i, '[]', 'kernel', '', '[2]', 'float32', NULL, NULL, 1, 'whole', ''"
        " FROM n",
        "UPDATE layout SET tensor = position",
        "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
        " INSERT INTO pyramid SELECT NULL, 1, i, i, 1, i, i, 0, 0, '{}', NULL, NULL, NULL FROM n",
    )
    with pytest.raises(FileError, match=r"it names 299\d\d records x 30001 tensors in \d+ bytes"):
        Recording(path).envelope(spans=100_000)


def test_a_view_instead_of_the_pyramid_of_an_old_file_is_not_asked(tmp_path):
    path = make(tmp_path / "a.norms", range(40))
    change(
        path,
        "DROP TABLE pyramid",
        "CREATE VIEW pyramid AS WITH RECURSIVE n(level) AS (SELECT 1 UNION ALL SELECT level FROM n) SELECT * FROM n",
        "PRAGMA user_version = 1",
    )
    assert Recording(path).envelope(spans=100).records.sum() == 40


def test_the_pyramid_of_the_helpers_is_there(tmp_path):
    assert rows(write(tmp_path / "a.norms"), "SELECT level, records FROM pyramid") == [(1, 5)]
