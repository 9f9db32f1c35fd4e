"""What a weight must satisfy after each step: w -> w, on arrays of any library.

`limits.py` limits on the length of each group of entries; `spectral.py` one on how much a layer's matrix stretches.
"""

from normkit.constrain.limits import hold, max_norm, min_max_norm, unit_norm
from normkit.constrain.spectral import spectral_bound, spectral_cap

__all__ = ["hold", "max_norm", "min_max_norm", "spectral_bound", "spectral_cap", "unit_norm"]
