"""Biases that change nothing the network computes: what is left of their gradient is rounding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from normkit.diagnose.balance import parts
from normkit.diagnose.columns import Columns
from normkit.diagnose.words import listed, number, verb
from normkit.types import Finding, Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.diagnose.columns import Flags
    from normkit.types import Matrix

TERMS = 3e4  # terms of a cancelling sum (images x positions)
INVARIANT = 1e-2  # |cos(w, g)| of a kernel whose length does not matter; measured 1e-6 to 5e-5, else 0.1 to 0.5
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24}  # unit roundoff; half precision rounds too coarsely to tell
NORMALIZERS = re.compile(r"(Batch|Instance)_?Norm", re.IGNORECASE)
KEY = re.compile(r"(^|[._/])(k|key)(_?proj(ection)?)?$", re.IGNORECASE)


def no_effect(columns: Columns) -> list[Finding]:
    """A bias whose gradient is below what rounding leaves of zero, in every record.

        rms(g_bias) < c rms(g)      for both g: its layer's kernel, and the strongest other bias or scale
        c = sqrt(u)                 where the kernel's gradient is orthogonal to it: half of all digits cancelled
        c = u sqrt(N), N = 3e4      elsewhere: about what is left of a sum of N terms that cancels exactly

    u is the unit roundoff: c is 2.4e-4 and 1e-5 for float32. The comparison with other biases keeps out a layer whose
    inputs are merely huge. A normalization that takes out the bias takes out the kernel's length too, which makes its
    gradient orthogonal (measured there 1e-6 to 4e-5); a key's bias cancels in the softmax without that.
    """
    pairs = _cancelling(columns)
    keys = [pair for pair in pairs if KEY.search(_layer(columns.tensors[pair[0]]))]
    others = [pair for pair in pairs if pair not in keys]
    return [_finding(columns, group) for group in (others, keys) if group]


def _layer(name: str) -> str:
    return re.split(r"[./][^./]*$", name)[0] if re.search(r"[./]", name) else ""


def _pairs(columns: Columns) -> list[tuple[int, int]]:
    """Columns of each bias and of the kernel in the same layer."""
    kernels = {_layer(param.name): n for n, param in enumerate(columns.params) if _is_kernel(param)}
    kernels |= {_layer(_layer(param.name)): n for n, param in enumerate(columns.params) if param.part == "v"}
    biases = [(n, _layer(param.name)) for n, param in enumerate(columns.params) if param.role == "bias"]
    return [(n, kernels[layer]) for n, layer in biases if layer in kernels]


def _is_kernel(param: Param) -> bool:
    return param.role == "kernel" and param.part == "whole"


def _cancelling(columns: Columns) -> list[tuple[int, int]]:
    """The pairs whose bias stays under the limit, all pairs at once: a large model has hundreds."""
    pairs = [pair for pair in _pairs(columns) if _unit(columns, pair[0])]
    if not pairs or not columns.trained.any():
        return []
    sizes = _sizes(columns)
    biases, kernels = (list(which) for which in zip(*pairs, strict=True))
    own, limit = sizes[:, biases], np.minimum(sizes[:, kernels], _strongest_other(columns, sizes, biases))
    usable = np.isfinite(own) & (limit > 0)
    told = (usable & (own != 0)).any(axis=0)  # exactly zero throughout is the business of `never_updated`
    units = np.array([_unit(columns, bias) for bias in biases])
    nothing, rounding = (
        told & ((own < shares * limit) | ~usable).all(axis=0) for shares in (units * np.sqrt(TERMS), np.sqrt(units))
    )
    if (rounding & ~nothing).any():
        nothing |= rounding & _length_is_lost(columns)[kernels]
    return [pair for pair, fires in zip(pairs, nothing, strict=True) if fires]


def _sizes(columns: Columns) -> Matrix:
    """[trained records][tensors]: rms gradients; under a direction v stands that of the weight which it makes.

    |dL/dw|^2 = |dL/dg|^2 + (|v| / |g|)^2 |dL/dv|^2          w = g v / |v|, exact where all groups are alike
    """
    sizes, lengths, grads = columns.sizes("grad"), columns.matrix("l2"), columns.matrix("l2", "grad")
    for _, g, v in parts(columns):
        with np.errstate(all="ignore"):
            whole = np.hypot(grads[:, g], grads[:, v] * lengths[:, v] / lengths[:, g])
        sizes[:, v] = whole / np.sqrt(max(columns.params[v].count, 1))
    return np.asarray(sizes[columns.trained])


def _unit(columns: Columns, n: int) -> float:
    """The unit roundoff of a tensor; 0 where it is too coarse to tell."""
    return UNITS.get(columns.params[n].dtype.split(".")[-1], 0.0)


def _strongest_other(columns: Columns, sizes: Matrix, biases: Sequence[int]) -> Matrix:
    """[records][biases]: the largest of all biases and scales but the bias itself; -inf where there is none."""
    peers = [n for n, param in enumerate(columns.params) if param.role in ("bias", "scale")]
    known = np.where(np.isnan(sizes), -np.inf, sizes)
    if len(peers) < 2:
        return np.full((len(sizes), len(biases)), -np.inf)
    second, first = (each[:, None] for each in np.partition(known[:, peers], (-2, -1), axis=1)[:, -2:].T)
    strongest: Matrix = np.where(known[:, biases] == first, second, first)
    return strongest


def _length_is_lost(columns: Columns) -> Flags:
    """[tensors]: is the gradient orthogonal to it in every record, so that what follows must divide its length out?"""
    cosines = np.abs(columns.cosines()[columns.trained])
    for g, v, of_weight in _cosines_of_weights(columns):
        cosines[:, [g, v]] = of_weight[:, None]
    known = np.isfinite(cosines)
    return np.asarray(known.any(axis=0) & (np.where(known, cosines, 0.0) < INVARIANT).all(axis=0))


def _cosines_of_weights(columns: Columns) -> list[tuple[int, int, NDArray[np.float64]]]:
    """Columns g and v of each normalized weight, and |cos(w, dL/dw)|: v is orthogonal to its gradient in any case.

    cos = <g, dL/dg> / |g| |dL/dw|
    """
    if not (normalized := parts(columns)):
        return []
    counts = np.array([param.count for param in columns.params], dtype=np.float64)
    lengths, grads = columns.matrix("l2")[columns.trained], _sizes(columns) * np.sqrt(counts)
    dots = columns.source.sums("dot", "grad")[columns.trained]
    with np.errstate(all="ignore"):
        return [(g, v, np.abs(dots[:, g] / (lengths[:, g] * grads[:, v]))) for _, g, v in normalized]


def _finding(columns: Columns, pairs: Sequence[tuple[int, int]]) -> Finding:
    names = tuple(columns.tensors[bias] for bias, _ in pairs)
    bias, kernel = pairs[0]
    sizes = _sizes(columns)
    own, beside = (float(np.nanmedian(sizes[:, n])) for n in (bias, kernel))
    which = f" of {names[0]}" if len(names) > 1 else ""
    text = (
        f"{listed(names)} {verb(names, 'has', 'have')} no effect: rms gradient{which} {number(own)} "
        f"({_weight(columns, kernel)}: {number(beside)})."
    )
    evidence = {"grad_rms": own, "kernel_grad_rms": beside, "tensors": len(names)}
    remedy, source = _remedy(columns, bias, kernel)
    return Finding("no-effect", "warning", text, remedy, names, source=source, evidence=evidence)


def _weight(columns: Columns, kernel: int) -> str:
    name = columns.tensors[kernel]
    return name.removesuffix(".v") if columns.params[kernel].part == "v" else name


def _remedy(columns: Columns, bias: int, kernel: int) -> tuple[str, str]:
    option = "use_bias=False" if _weight(columns, kernel).endswith("kernel") else "bias=False"
    use = f"Use {columns.params[bias].layer or 'the layer'}(..., {option})."
    if KEY.search(_layer(columns.tensors[bias])):
        return f"A key's bias adds the same to every score of a query, and the softmax takes it out. {use}", ""
    normalizer = next((param.layer for param in columns.params if NORMALIZERS.search(param.layer)), None)
    if normalizer:
        name = re.sub(r"\d*d?$", "", normalizer) if normalizer[-1] == "d" else normalizer
        return f"A bias before {name} cancels. {use}", "Ioffe & Szegedy 2015, arXiv:1502.03167"
    return f"Something after the layer takes it out again, as a normalization does. {use}", ""
