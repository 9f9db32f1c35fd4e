"""The recording file, as SQLite sees it: the schema, its version and its history.

The SQL below is the contract; its comments are the documentation, and `page()` prints them for the docs.
"""

from __future__ import annotations

from normkit.types import QUANTITIES, SUMS

APPLICATION_ID = 0x4E4F524D  # "NORM": what `file` and SQLite's own header call this kind of file
VERSION = 2

HISTORY = {
    1: "first version: meta, tensor, layout, record, sums, finding, event",
    2: "pyramid, and columns of a layout that hold one group of a tensor (per)",
}

SQL = """
-- What is known of the run as a whole. One row per key; the value is JSON.
CREATE TABLE meta (
  key    TEXT PRIMARY KEY,
  value  TEXT NOT NULL
) WITHOUT ROWID;

-- One row per description of a tensor. A tensor that is unfrozen or reshaped in mid-run gets a second row
-- of the same name; the layouts say which one was meant.
CREATE TABLE tensor (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL,     -- as the framework names it, wrappers' prefixes removed
  aliases    TEXT NOT NULL,     -- JSON list of the other names of tied storage
  role       TEXT NOT NULL,     -- kernel, bias, scale, embedding, buffer or other
  layer      TEXT NOT NULL,     -- class name of the owning layer, or empty
  shape      TEXT NOT NULL,     -- JSON list of sizes
  dtype      TEXT NOT NULL,
  out_axes   TEXT,              -- JSON list of positions in shape; NULL where the layer does not say
  in_axes    TEXT,              -- likewise
  trainable  INTEGER NOT NULL,  -- 0 or 1
  part       TEXT NOT NULL,     -- whole, g, v or effective
  rule       TEXT NOT NULL      -- why it has this role
);

-- The columns of a matrix of sums, in order. A model that changes in mid-run gets a further layout.
CREATE TABLE layout (
  layout    INTEGER NOT NULL,
  position  INTEGER NOT NULL,  -- 0, 1, 2, ... : the column
  tensor    INTEGER NOT NULL,  -- tensor.id
  "group"   INTEGER,           -- NULL: the whole tensor; else which of its groups the column holds: 0, 1, 2, ...
  per       TEXT,              -- NULL, or what a group is: one index of the tensor's "out" or "in" axes
  PRIMARY KEY (layout, position)
) WITHOUT ROWID;

-- One row per record. A resumed run may repeat steps: seq is the key, and the row with the highest seq counts.
CREATE TABLE record (
  seq      INTEGER PRIMARY KEY,
  step     INTEGER NOT NULL,  -- optimizer steps done when it was taken
  attempt  INTEGER NOT NULL,  -- 0, then one more at each resume
  epoch    INTEGER,
  wall     REAL NOT NULL,     -- seconds since 1970-01-01 UTC
  layout   INTEGER NOT NULL,
  scalars  TEXT NOT NULL      -- JSON object of numbers (lr, loss, ...); non-finite ones are "nan", "inf", "-inf"
);

-- The numbers of that record: per quantity one matrix [sum][tensor] of little-endian float64, packed, without a
-- header. The rows are sum, abs, sq, max, zeros, nonfinite and, where there is a second array, dot; how many
-- there are follows from the size. A column of NaN: there was none. NULL: the quantity was not recorded.
CREATE TABLE sums (
  seq       INTEGER PRIMARY KEY,  -- record.seq
  weight    BLOB,
  grad      BLOB,
  "update"  BLOB
);

-- The records at a coarser and coarser scale. A block of level 1 stands for up to 16 records, one of level 2 for up to
-- 16 blocks of level 1, and so on; all records of a block have one layout and one attempt. Blocks outlive records
-- that were deleted to keep the file within its budget, and old blocks go when a coarser one stands for them.
-- The numbers are little-endian float32 matrices [sum][min, mean, max][tensor], without a header, with the rows of a
-- record's sums, but l2 = sqrt(sq) in the place of sq. NaN is left out of all three; a block counts in a coarser mean
-- as often as it has records.
CREATE TABLE pyramid (
  id          INTEGER PRIMARY KEY,
  level       INTEGER NOT NULL,
  first       INTEGER NOT NULL,  -- record.seq of its first record
  last        INTEGER NOT NULL,  -- and of its last
  records     INTEGER NOT NULL,  -- how many it stands for
  first_step  INTEGER NOT NULL,
  last_step   INTEGER NOT NULL,
  attempt     INTEGER NOT NULL,
  layout      INTEGER NOT NULL,
  scalars     TEXT NOT NULL,     -- JSON: name -> [min, mean, max]
  weight      BLOB,
  grad        BLOB,
  "update"    BLOB
);

-- Blocks are looked up by level and place.
CREATE INDEX pyramid_level ON pyramid (level, first);

-- What was found in the run, as said at its end.
CREATE TABLE finding (
  id        INTEGER PRIMARY KEY,
  rule      TEXT NOT NULL,
  severity  TEXT NOT NULL,  -- error, warning or note
  text      TEXT NOT NULL,
  remedy    TEXT NOT NULL,
  tensors   TEXT NOT NULL,  -- JSON list of names
  basis     TEXT NOT NULL,  -- theorem, model or heuristic
  source    TEXT NOT NULL,  -- where the threshold comes from
  step      INTEGER,
  evidence  TEXT NOT NULL   -- JSON object
);

-- What happened in mid-run: parameters changed, the run was resumed.
CREATE TABLE event (
  id      INTEGER PRIMARY KEY,
  wall    REAL NOT NULL,
  kind    TEXT NOT NULL,
  text    TEXT NOT NULL,
  step    INTEGER,
  tensor  TEXT              -- a tensor's name
);
"""

FIRST = ("meta", "tensor", "layout", "record", "sums", "finding", "event")
TABLES = {1: FIRST, 2: (*FIRST, "pyramid")}  # version -> what a file of it has
COLUMNS = {"weight": "weight", "grad": "grad", "update": '"update"'}  # quantity -> its column in SQL


def statements() -> list[str]:
    """The SQL, statement by statement, each with the comment above it."""
    return [statement.strip() for statement in SQL.split(";\n\n") if statement.strip()]


def upgrade(version: int) -> list[str]:
    """What makes a file of an older `version` one of this."""
    if version >= VERSION:
        return []
    new = [statement for statement in statements() if "pyramid" in statement]
    return ["ALTER TABLE layout ADD COLUMN per TEXT", *new, f"PRAGMA user_version={VERSION}"]


def page() -> str:
    """The documentation page of the file format, in Markdown, made from the SQL above."""
    history = "\n".join(f"- **{version}**: {text}" for version, text in sorted(HISTORY.items(), reverse=True))
    return f"""# The recording file

A recording is one SQLite database (`application_id` {APPLICATION_ID:#x}, `user_version` {VERSION}), so any tool that
opens SQLite reads it, also while the run is still writing. It stores sums, not norms; every norm follows from them.

Quantities: {", ".join(QUANTITIES)}. Rows of a matrix: {", ".join(SUMS)}.

```sql
{SQL.strip()}
```

## Versions

{history}
"""
