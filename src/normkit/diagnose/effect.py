"""Biases that change nothing the network computes: what is left of their gradient is rounding."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from normkit.diagnose.columns import Columns
from normkit.diagnose.words import listed, number, verb
from normkit.types import Finding, Param

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
    if not columns.trained.any():
        return []
    pairs = [(bias, kernel) for bias, kernel in _pairs(columns) if _cancels(columns, bias, kernel)]
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


def _cancels(columns: Columns, bias: int, kernel: int) -> bool:
    unit = UNITS.get(columns.params[bias].dtype.split(".")[-1])
    if unit is None:
        return False
    sizes = columns.matrix("rms", "grad")[columns.trained]
    peers = [n for n, param in enumerate(columns.params) if param.role in ("bias", "scale") and n != bias]
    strongest = np.fmax.reduce(sizes[:, peers], axis=1) if peers else np.full(len(sizes), np.nan)
    usable = np.isfinite(sizes[:, bias]) & (sizes[:, kernel] > 0) & (strongest > 0)
    if not usable.any() or not sizes[usable, bias].any():  # exactly zero throughout is the business of `never_updated`
        return False
    share = np.sqrt(unit) if _length_is_lost(columns, kernel) else unit * np.sqrt(TERMS)
    limit = share * np.fmin(sizes[:, kernel], strongest)
    return bool((sizes[usable, bias] < limit[usable]).all())


def _length_is_lost(columns: Columns, kernel: int) -> bool:
    """Is the gradient orthogonal to the kernel in every record, so that what follows must divide its length out?"""
    cosines = np.abs(columns.cosines()[columns.trained, kernel])
    known = cosines[np.isfinite(cosines)]
    return bool(known.size and known.max() < INVARIANT)


def _finding(columns: Columns, pairs: Sequence[tuple[int, int]]) -> Finding:
    names = tuple(columns.tensors[bias] for bias, _ in pairs)
    bias, kernel = pairs[0]
    sizes = columns.matrix("rms", "grad")[columns.trained]
    own, beside = (float(np.nanmedian(sizes[:, n])) for n in (bias, kernel))
    which = f" of {names[0]}" if len(names) > 1 else ""
    text = (
        f"{listed(names)} {verb(names, 'has', 'have')} no effect: rms gradient{which} {number(own)} "
        f"({columns.tensors[kernel]}: {number(beside)})."
    )
    evidence = {"grad_rms": own, "kernel_grad_rms": beside, "tensors": len(names)}
    remedy, source = _remedy(columns, bias, kernel)
    return Finding("no-effect", "warning", text, remedy, names, source=source, evidence=evidence)


def _remedy(columns: Columns, bias: int, kernel: int) -> tuple[str, str]:
    option = "use_bias=False" if columns.tensors[kernel].endswith("kernel") else "bias=False"
    use = f"Use {columns.params[bias].layer or 'the layer'}(..., {option})."
    if KEY.search(_layer(columns.tensors[bias])):
        return f"A key's bias adds the same to every score of a query, and the softmax takes it out. {use}", ""
    normalizer = next((param.layer for param in columns.params if NORMALIZERS.search(param.layer)), None)
    if normalizer:
        name = re.sub(r"\d*d?$", "", normalizer) if normalizer[-1] == "d" else normalizer
        return f"A bias before {name} cancels. {use}", "Ioffe & Szegedy 2015, arXiv:1502.03167"
    return f"Something after the layer takes it out again, as a normalization does. {use}", ""
