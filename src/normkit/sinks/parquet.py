"""Rows as one sorted Parquet file, which other programs read a tensor at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from normkit.errors import ArgumentError
from normkit.sinks.tidy import COUNTS, HEADER, LENGTHS, Block

NAMES = ("tensor", "layer", "weight", "quantity")  # columns of words
GROUP = 1 << 18  # rows that are packed together: about 20 MB


def pyarrow() -> Any:
    """The library, which is not a dependency of normkit's own.

    Raises: ArgumentError where it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet  # makes pa.parquet
    except ImportError as error:
        raise ArgumentError(
            f"a Parquet file needs pyarrow ({error}); `pip install 'normkit[parquet]'` brings it"
        ) from None
    return pa


def write(blocks: Iterable[Block], stream: BinaryIO) -> int:
    """Write all rows; returns their number. `blocks` come ordered by tensor, quantity and step.

    Floats are split by their bytes and packed with zstd, without loss; an unknown epoch is null.
    Raises: ArgumentError where pyarrow is not installed.
    """
    pa = pyarrow()
    rows = 0
    with pa.parquet.ParquetWriter(stream, schema(pa), **_packing(pa)) as writer:
        for group in grouped(blocks):
            table = _table(pa, group)
            writer.write_table(table, row_group_size=GROUP)
            rows += table.num_rows
    return rows


def schema(pa: Any) -> Any:
    """Names and types of the columns."""
    words = pa.dictionary(pa.int32(), pa.string())
    kinds = {"step": pa.int64(), "epoch": pa.int64(), **dict.fromkeys(NAMES, words)}
    kinds |= dict.fromkeys(LENGTHS, pa.float64()) | dict.fromkeys(COUNTS, pa.int64())
    return pa.schema([(name, kinds[name]) for name in HEADER])


def grouped(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Blocks together until they have `GROUP` rows: a group of rows costs a reader a seek."""
    group: list[Block] = []
    for block in blocks:
        group.append(block)
        if sum(map(len, group)) >= GROUP:
            yield group
            group = []
    if group:
        yield group


def _packing(pa: Any) -> dict[str, Any]:
    encodings = dict.fromkeys(LENGTHS, "BYTE_STREAM_SPLIT")
    encodings |= dict.fromkeys(("step", "epoch", *COUNTS), "DELTA_BINARY_PACKED")
    order = [(name, "ascending") for name in ("tensor", "quantity", "step")]
    return {
        "compression": "zstd",
        "use_dictionary": list(NAMES),
        "column_encoding": encodings,
        "sorting_columns": pa.parquet.SortingColumn.from_ordering(schema(pa), order),
    }


def _table(pa: Any, group: Sequence[Block]) -> Any:
    epochs = np.concatenate([block.epochs for block in group])
    unknown = np.isnan(epochs)
    whole = np.where(unknown, 0, epochs).astype(np.int64)
    columns = {"step": np.concatenate([block.steps for block in group]), "epoch": pa.array(whole, mask=unknown)}
    columns |= {name: _words(pa, [getattr(block, name) for block in group], list(map(len, group))) for name in NAMES}
    for names, part in ((LENGTHS, "lengths"), (COUNTS, "counts")):
        values = np.concatenate([getattr(block, part) for block in group], axis=1)
        columns |= dict(zip(names, values, strict=True))
    return pa.table(columns, schema=schema(pa))


def _words(pa: Any, words: Sequence[str], lengths: Sequence[int]) -> Any:
    """A column in which each word stands as often as its block is long; a word is stored once."""
    known = list(dict.fromkeys(words))
    place = {word: n for n, word in enumerate(known)}
    codes = np.repeat(np.array([place[word] for word in words], dtype=np.int32), lengths)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(known, pa.string()))
