"""What a weight must satisfy after each step: w -> w, on arrays of any library.

`limits.py` limits on the length of each group of entries.
"""

from normkit.constrain.limits import hold, max_norm, min_max_norm, unit_norm

__all__ = ["hold", "max_norm", "min_max_norm", "unit_norm"]
