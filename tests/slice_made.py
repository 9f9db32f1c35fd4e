"""Slices made up from numbers: what the tests of live sinks feed."""

from __future__ import annotations

import numpy as np

import made_up
from normkit.sinks.slices import Slice
from normkit.sinks.tidy import COUNTS, LENGTHS

NAMES = ("conv1.weight", "conv1.bias", "fc.weight")


def params(names=NAMES):
    return tuple(made_up.param(name, (3, 2)) for name in names)


def made(step, of, *, quantities=("weight",), lacking=(), epoch=None, scalars=None, figures=None):
    """A slice whose norms tell step, place and norm apart; tensors at `lacking` places have no gradient or update."""
    norms, there = {}, {}
    for word in quantities:
        places = np.arange(len(of))
        there[word] = np.ones(len(of), bool) if word == "weight" else ~np.isin(places, lacking)
        kinds = {kind: step + places / 10 + number for number, kind in enumerate(LENGTHS)}
        kinds |= {kind: (places + number + 0.0) for number, kind in enumerate(COUNTS)}
        norms[word] = {kind: np.where(there[word], values, np.nan) for kind, values in kinds.items()}
    return Slice(step, epoch, 1.7e9 + step, of, norms, there, scalars or {}, figures or {})


def alone(step, **scalars):
    """A slice of scalars alone."""
    return Slice(step, None, 1.7e9 + step, (), {}, {}, scalars)
