"""Rows as comma-separated values: UTF-8, a line feed behind each, floats with every digit they have."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import TextIOWrapper
from itertools import repeat
from typing import BinaryIO

import numpy as np

from normkit.sinks.tidy import HEADER, Block


def write(blocks: Iterable[Block], stream: BinaryIO) -> int:
    """Write a header and all rows, block by block; returns the number of rows.

    A float reads back as the same float; NaN and infinity are `nan`, `inf` and `-inf`, an unknown epoch is empty.
    """
    text = TextIOWrapper(stream, encoding="utf-8", newline="")
    rows = 0
    try:
        csv.writer(text, lineterminator="\n").writerow(HEADER)
        for block in blocks:
            _writer(text, block).writerows(_rows(block))
            rows += len(block)
        text.flush()
    finally:
        text.detach()  # the stream is the caller's to close
    return rows


def _writer(text: TextIOWrapper, block: Block):  # type: ignore[no-untyped-def]  # csv's own type has no public name
    """Before Python 3.13 a carriage return is not quoted for itself, and a reader would break the line there."""
    if "\r" in block.tensor:
        return csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return csv.writer(text, lineterminator="\n")


def _rows(block: Block) -> Iterable[tuple[object, ...]]:
    epochs = [
        None if unknown else int(epoch) for epoch, unknown in zip(block.epochs, np.isnan(block.epochs), strict=True)
    ]
    alike = (repeat(word) for word in (block.tensor, block.layer, block.weight, block.quantity))
    return zip(block.steps.tolist(), epochs, *alike, *block.lengths.tolist(), *block.counts.tolist())  # noqa: B905
