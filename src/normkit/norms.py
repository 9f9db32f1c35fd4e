"""Norms by name: entrywise ones follow from sums, operator norms from singular values.

An `ord` number is not taken: `ord=2` is the length of a vector and the spectral norm of a matrix, and which of the two
one gets depends on the library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per, kept_axes
from normkit.ops import ops_of
from normkit.spectrum import OPERATOR_NORMS
from normkit.sums import as_array, stats_of, to_matrix
from normkit.types import Stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

    Floats = NDArray[np.float64]

Formula = Callable[["Matrix", "Floats"], "Floats"]

_SUM, _ABS, _SQ, _MAX, _ZEROS, _NONFINITE = range(6)
NO_VARIANCE = 1e-13  # of the mean square: what rounding leaves of the variance of a constant, of any length


def _std(sums: Matrix, counts: Floats) -> Floats:
    mean_square = sums[_SQ] / counts
    variance = mean_square - (sums[_SUM] / counts) ** 2
    return np.where(variance < NO_VARIANCE * mean_square, 0.0, np.sqrt(np.maximum(variance, 0.0)))


NORMS: dict[str, Formula] = {
    "l1": lambda sums, counts: sums[_ABS],
    "l2": lambda sums, counts: np.sqrt(sums[_SQ]),
    "linf": lambda sums, counts: sums[_MAX],
    "rms": lambda sums, counts: np.sqrt(sums[_SQ] / counts),
    "mean": lambda sums, counts: sums[_SUM] / counts,
    "std": _std,
    "zeros": lambda sums, counts: sums[_ZEROS],
    "nonfinite": lambda sums, counts: sums[_NONFINITE],
}
ALIASES = {"frobenius": "l2", "fro": "l2"}
KINDS = (*NORMS, *OPERATOR_NORMS)

_MEANT = {
    "max": "linf",
    "inf": "linf",
    "absmax": "linf",
    "euclidean": "l2",
    "length": "l2",
    "sparsity": "zeros",
    "nan": "nonfinite",
}
_MEANT_BY_NUMBER = {
    1: "'l1'",
    2: "'l2' or 'spectral'",
    float("inf"): "'linf'",
}


def norm(x: Any, kind: str = "l2", per: Per = "tensor") -> float | Floats:
    """One number that says how large `x` is, or one per index of the kept axes.

        l1         sum |x|                    linf       max |x|
        l2         sqrt(sum x^2)              rms        sqrt(mean x^2)
        mean       sum x / n                  std        sqrt(mean x^2 - mean^2)
        zeros      entries equal to 0         nonfinite  entries that are NaN or infinite
        spectral   largest singular value     nuclear    sum of the singular values
        stable_rank   l2^2 / spectral^2

    The first eight are entrywise, whatever the rank; `frobenius` and `fro` are other names of `l2`. The last three are
    of a matrix. Sums are float64, so l1, l2 and rms are right to 1e-12 and the mean to 1e-12 of the rms, whatever the
    size and dtype; nothing overflows in float16.
    `std` has ddof 0; a variance below 1e-13 of the mean square is what rounding leaves of none, and counts as 0 (a std
    below 3e-7 of the rms).

    Shapes: x [any] -> number; with kept axes an array [kept axes in their order]. `x` may be a `Stats`.
    Units:  those of x; `zeros`, `nonfinite` and `stable_rank` are numbers of entries or of dimensions.
    Keeps:  a NaN makes l1, l2, linf, rms, mean and std NaN; infinities without NaN make l1, l2, linf and rms inf. An
            empty array has l1, l2 and linf 0, and mean, rms and std NaN.
    Raises: ArgumentError for an unknown kind, complex numbers, an axis that x has not, or an operator norm of what is
            not a matrix.

    >>> norm([3.0, -4.0])
    5.0
    >>> norm(np.array([[3.0, -4.0], [0.0, 1.0]]), "l1", per=0)
    array([7., 1.])
    >>> norm(np.ones(70000, np.float16), "l2") == 70000**0.5
    True
    """
    kind = canonical(kind)
    if isinstance(x, Stats):
        return _norm_of_stats(x, kind, per)
    x = as_array(x)
    ops = ops_of(x)
    kept = kept_axes(per, tuple(x.shape))
    if kind in OPERATOR_NORMS:
        if kept:
            raise ArgumentError(f"{kind} was asked with per={per!r}; it is a norm of a whole matrix: use per='tensor'")
        return OPERATOR_NORMS[kind](x)
    if not kept:
        return float(_norms(ops, kind, ops.matrix_of_sums([x]), x, ())[0])
    rows = ops.as_rows(x, kept)
    return _norms(ops, kind, ops.sums_of_rows(rows), x, kept).reshape([x.shape[axis] for axis in kept])


def stats(x: Any) -> Stats:
    """All sums of `x` in one pass: every entrywise norm follows from them, and `a + b` is of both together.

    Shapes: x [any].
    Raises: ArgumentError for complex numbers and for what is no array.

    >>> stats([3.0, -4.0, 0.0])
    Stats(count=3, sum=-1.0, abs=7.0, sq=25.0, max=4.0, zeros=1, nonfinite=0, dot=nan)
    >>> norm(stats([3.0]) + stats([-4.0]), "l2")
    5.0
    """
    return x if isinstance(x, Stats) else stats_of(x)


def from_sums(matrix: Matrix, counts: Any, kind: str) -> Floats:
    """The entrywise norm `kind` of every column of sums; NaN for a column of NaN.

    Shapes: matrix [6 or 7][...], counts [...] or a number -> [...].
    Raises: ArgumentError for an unknown kind or one that does not follow from sums.

    >>> from_sums(np.array([[-1.0], [7.0], [25.0], [4.0], [0.0], [0.0]]), [2], "rms")
    array([3.53553391])
    """
    name = canonical(kind)
    if name not in NORMS:
        raise ArgumentError(
            f"{name} does not follow from sums; it needs the array: the kinds that do are {_listed(NORMS)}"
        )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(NORMS[name](matrix, np.asarray(counts, dtype=np.float64)), dtype=np.float64)


def balance(g: Any, v: Any, entries: Any) -> Floats:
    """How fast the direction of a normalized weight turns beside its length: 1 is balanced.

        R = sqrt(C - 1) (|g| / |v|)^2          w = g v / |v|, C entries per group

    For SGD on gradients of isotropic noise, R is the expected rotation of v in a step over the expected relative change
    of g. Where v starts as the weight itself, |v| = |g| and R is sqrt(C - 1); every such step lengthens v, since its
    gradient is orthogonal to it, and R falls. Below 1 the direction is frozen beside the length.

    Shapes: l2 norms of g and of v over the whole tensor [...], entries per group C [...] -> [...]. Exact where all
            groups are alike; else the mean of the groups' figures, weighted by |v|^2. NaN where C < 2 or v is 0.
    Source: derived for this package; |v| grows: Salimans & Kingma 2016, arXiv:1602.07868.

    >>> balance([1.0, 3.0], [2.0, 3.0], [17, 17])
    array([1., 4.])
    """
    length, gain, count = (np.asarray(value, dtype=np.float64) for value in (v, g, entries))
    with np.errstate(all="ignore"):
        ratio = gain / length
        return np.where((count >= 2) & (length > 0), np.sqrt(count - 1) * ratio * ratio, np.nan)


def canonical(kind: object) -> str:
    """The one name of a norm.

    Raises: ArgumentError for anything else, with the name that was probably meant.

    >>> canonical("fro")
    'l2'
    """
    if isinstance(kind, str):
        name = ALIASES.get(kind.lower(), kind.lower())
        if name in KINDS:
            return name
        near = _MEANT.get(name) or next(iter(get_close_matches(name, [*KINDS, *ALIASES], 1)), None)
        hint = f"did you mean {near!r}? " if near else ""
        raise ArgumentError(f"{in_brief(kind)} is not the name of a norm; {hint}the names are {_listed(KINDS)}")
    if not isinstance(kind, int | float):
        raise ArgumentError(f"kind is {in_brief(kind)}; it must be the name of a norm: {_listed(KINDS)}")
    meant = _MEANT_BY_NUMBER.get(kind, "one by its name")
    raise ArgumentError(
        f"kind is {kind!r}, and such a number means different norms for vectors and matrices: say {meant}; "
        f"the names are {_listed(KINDS)}"
    )


def _listed(names: Sequence[str] | dict[str, Any]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}"


def _norm_of_stats(stats: Stats, kind: str, per: Per) -> float:
    if per != "tensor":
        raise ArgumentError(f"per is {in_brief(per)}, but a Stats has no axes: use per='tensor', or give the array")
    return float(from_sums(to_matrix([stats]), [stats.count], kind)[0])


def _norms(ops: Any, kind: str, sums: Matrix, x: Any, kept: tuple[int, ...]) -> Floats:
    """The norm of every group of `x`, given their sums [6][groups]."""
    values = from_sums(sums, prod(x.shape) // max(sums.shape[1], 1), kind)
    squares, largest = sums[_SQ], sums[_MAX]
    beyond = (np.isinf(squares) & np.isfinite(largest)) | ((squares < 1e-280) & (largest > 0))
    if kind in ("l2", "rms", "std") and beyond.any():
        values[beyond] = _scaled(ops.as_float64(ops.as_rows(x, kept))[beyond], largest[beyond], kind)
    return values


def _scaled(rows: Floats, largest: Floats, kind: str) -> Floats:
    """Norms of rows whose squares leave the range of float64 (entries beyond 1e154 or all below 1e-140)."""
    exponents = np.frexp(largest)[1]
    scaled = np.ldexp(rows, -exponents[:, None])
    return np.ldexp(from_sums(ops_of(scaled).sums_of_rows(scaled), rows.shape[1], kind), exponents)
