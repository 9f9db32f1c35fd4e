"""A recording as one tidy table in memory, for Arrow and for pandas: the columns are those of `normkit export`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit.errors import ArgumentError, in_brief
from normkit.sinks import parquet
from normkit.sinks.tidy import HEADER, WORDS, Block, blocks, coded, numbers
from normkit.types import QUANTITIES

if TYPE_CHECKING:
    from normkit.readers.recording import Recording


def to_arrow(recording: Recording, *, select: object = None, quantities: str | Sequence[str] = QUANTITIES) -> Any:
    """The recording as a `pyarrow.Table`, one row for each step, tensor and quantity.

    Columns: step, epoch (null where the run did not say), tensor, layer, weight, quantity (dictionaries of strings),
        l1 l2 linf rms mean std (float64), zeros, nonfinite (int64). Rows stand in the model's order, steps ascending.
    Units:  those of the weights; zeros and nonfinite are numbers of entries.
    Raises: ArgumentError where pyarrow is not installed, where `select` reaches no tensor, and for a quantity that does
        not exist.
    """
    parquet.pyarrow("to_arrow()")
    return parquet.table(rows(recording, select, quantities))


def to_pandas(recording: Recording, *, select: object = None, quantities: str | Sequence[str] = QUANTITIES) -> Any:
    """The recording as a `pandas.DataFrame`, one row for each step, tensor and quantity.

    Columns: as `to_arrow`; epoch is Int64, missing where the run did not say; tensor, layer, weight and quantity are
        categories in the model's order.
    Raises: ArgumentError where pandas is not installed, and as `to_arrow`.
    """
    pd = pandas()
    group = rows(recording, select, quantities)
    columns: dict[str, Any] = dict(numbers(group))
    unknown = np.isnan(columns["epoch"])
    columns["epoch"] = pd.arrays.IntegerArray(np.where(unknown, 0, columns["epoch"]).astype(np.int64), unknown)
    for name in WORDS:
        codes, words = coded(group, name)
        columns[name] = pd.Categorical.from_codes(codes, categories=words)
    return pd.DataFrame({name: columns[name] for name in HEADER}, copy=False)


def rows(recording: Recording, select: object, quantities: str | Sequence[str]) -> list[Block]:
    """What both are made of. Raises: ArgumentError for what is not there."""
    asked = (quantities,) if isinstance(quantities, str) else tuple(quantities)
    if not asked or set(asked) - set(QUANTITIES):
        raise ArgumentError(f"quantities={in_brief(quantities)}: expected some of {', '.join(map(repr, QUANTITIES))}")
    names = None if select is None else reached(recording, select)
    return list(blocks(recording, select=names, quantities=asked))


def reached(recording: Recording, rule: object) -> set[str]:
    """Names of the tensors that a rule of `select` reaches."""
    from normkit.select import select

    return {param.name for param in select(recording.params, rule, default="all").chosen}


def pandas() -> Any:
    """The library, which is not a dependency of normkit's own.

    Raises: ArgumentError where it is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ArgumentError(f"to_pandas() needs pandas ({error}); `pip install 'normkit[pandas]'` brings it") from None
    return pd
