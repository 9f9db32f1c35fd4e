"""Norms of the matrix that a layer applies: `exact.py` by singular values, `power.py` by iteration."""

from normkit.spectrum.exact import OPERATOR_NORMS, matrix, nuclear, singular_values, spectral, stable_rank
from normkit.spectrum.power import spectral_start, stretched

__all__ = [
    "OPERATOR_NORMS",
    "matrix",
    "nuclear",
    "singular_values",
    "spectral",
    "spectral_start",
    "stable_rank",
    "stretched",
]
