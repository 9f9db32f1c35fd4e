"""The columns of a recording that hold one group of a tensor: a row of a matrix, a filter of a convolution."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import numpy as np

from normkit.errors import ArgumentError
from normkit.readers import blobs, formula
from normkit.readers.index import EMPTY, Index

if TYPE_CHECKING:
    from normkit.types import Matrix


def count(index: Index, name: str, per: str) -> int:
    """How many groups of the tensor were recorded. Raises: ArgumentError for none."""
    groups = max((len(layout.groups.get((name, per), ())) for _, layout in index.used_layouts), default=0)
    if not groups:
        raise ArgumentError(f"{name!r} was not recorded per={per!r}; record(..., per={per!r}) does so")
    return groups


def read(con: sqlite3.Connection, index: Index, name: str, *, per: str, kind: str, quantity: str) -> Matrix:
    """[steps][groups]: the norm `kind` of each group of the tensor."""
    groups = count(index, name, per)
    blobs.check_room(len(index.steps), groups, con)
    out = np.full((len(index.steps), groups), np.nan)
    for number, layout in index.used_layouts:
        here = layout.groups.get((name, per), EMPTY.positions)
        places = np.flatnonzero(index.layout_numbers == number)
        needs = formula.NEEDS[kind]
        rows = blobs.read_rows(con, number, layout, index.seqs[places], quantity=quantity, names=needs)
        entries = next((param.count for param in layout.params if param.name == name), 0)  # as it was then
        counts = np.full(len(here), entries / max(len(here), 1))
        out[places, : len(here)] = formula.value(kind, rows[:, :, here], counts)
    return out
