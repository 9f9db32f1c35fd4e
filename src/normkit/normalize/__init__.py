"""Weights worked out from other numbers: w -> w, on arrays of any library, for use before a framework's door.

`weight.py` weight normalization, `first_batch.py` where it may begin; `spectral.py` spectral normalization;
`standardize.py` weight standardization.
"""

from normkit.lengths import norm_except_dim
from normkit.normalize.first_batch import started
from normkit.normalize.spectral import spectral_normalized
from normkit.normalize.standardize import standardized
from normkit.normalize.weight import gradients, normalized
from normkit.spectrum import spectral_start

__all__ = [
    "gradients",
    "norm_except_dim",
    "normalized",
    "spectral_normalized",
    "spectral_start",
    "standardized",
    "started",
]
