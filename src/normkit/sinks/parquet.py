"""Rows as one sorted Parquet file, which other programs read a tensor at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from normkit.errors import ArgumentError
from normkit.sinks.tidy import COUNTS, HEADER, LENGTHS, WORDS, Block, coded, numbers

GROUP = 1 << 18  # rows that are packed together: about 20 MB


def pyarrow(what: str = "a Parquet file") -> Any:
    """The library, which is not a dependency of normkit's own; `what` is said to need it.

    Raises: ArgumentError where it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet  # makes pa.parquet
    except ImportError as error:
        raise ArgumentError(f"{what} needs pyarrow ({error}); `pip install 'normkit[parquet]'` brings it") from None
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
            writer.write_table(table(group), row_group_size=GROUP)
            rows += sum(map(len, group))
    return rows


def table(group: Sequence[Block]) -> Any:
    """The blocks as one table in memory. Raises: ArgumentError where pyarrow is not installed."""
    pa = pyarrow()
    columns: dict[str, Any] = dict(numbers(group))
    unknown = np.isnan(columns["epoch"])
    columns["epoch"] = pa.array(np.where(unknown, 0, columns["epoch"]).astype(np.int64), mask=unknown)
    for name in WORDS:
        codes, words = coded(group, name)
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(words, pa.string()))
    return pa.table({name: columns[name] for name in HEADER}, schema=schema(pa))


def schema(pa: Any) -> Any:
    """Names and types of the columns."""
    words = pa.dictionary(pa.int32(), pa.string())
    kinds = {"step": pa.int64(), "epoch": pa.int64(), **dict.fromkeys(WORDS, words)}
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
        "use_dictionary": list(WORDS),
        "column_encoding": encodings,
        "sorting_columns": pa.parquet.SortingColumn.from_ordering(schema(pa), order),
    }
