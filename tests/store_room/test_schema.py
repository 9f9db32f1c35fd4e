"""The schema: what it creates, and that its page says what it is."""

import sqlite3

from normkit.store import schema
from normkit.types import QUANTITIES, SUMS
from written import rows, write


def test_sql_makes_exactly_the_tables():
    con = sqlite3.connect(":memory:")
    for statement in schema.statements():
        con.execute(statement)
    made = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rootpage")]
    con.close()
    assert sorted(made) == sorted(schema.TABLES[schema.VERSION])


def test_every_table_and_column_says_what_it_is():
    for statement in schema.statements():
        assert statement.startswith("-- ")


def test_version_has_a_history():
    assert max(schema.HISTORY) == schema.VERSION
    assert sorted(schema.HISTORY) == list(range(1, schema.VERSION + 1))


def test_page_shows_the_sql_and_the_words():
    page = schema.page()
    assert schema.SQL.strip() in page
    assert "application_id" in page
    for word in (*QUANTITIES, *SUMS, *(f"**{version}**" for version in schema.HISTORY)):
        assert word in page


def test_quantities_have_a_column():
    assert tuple(schema.COLUMNS) == QUANTITIES


def test_file_bears_its_kind_and_version(tmp_path):
    path = write(tmp_path / "a.norms")
    assert rows(path, "PRAGMA application_id") == [(schema.APPLICATION_ID,)]
    assert rows(path, "PRAGMA user_version") == [(schema.VERSION,)]
    assert path.read_bytes()[68:72] == b"NORM"
