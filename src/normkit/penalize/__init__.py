"""What is added to the loss: w -> one number, on arrays of any library; and the steps that make exact zeros.

`terms.py` the terms, `proximal.py` what takes the place of a gradient step for those with a corner at 0.
"""

from normkit.penalize.proximal import group_threshold, soft_threshold
from normkit.penalize.terms import group, l1, l2, orthogonality, spectral, toward

__all__ = ["group", "group_threshold", "l1", "l2", "orthogonality", "soft_threshold", "spectral", "toward"]
