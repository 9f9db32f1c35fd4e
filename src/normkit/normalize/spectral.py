"""Spectral normalization: a weight divided by how much its layer can stretch a vector.

    w / sigma          sigma = |W'u|, u after `iterations` of  u <- W W'u / |W W'u|

W is the matrix of the layer: a row for each index of the axes that `per` keeps, the others in one. u goes from step to
step, so that one iteration a step suffices for a weight that changes slowly.
"""

from __future__ import annotations

from typing import Any

from normkit.groups import Per
from normkit.spectrum import stretched


def spectral_normalized(w: Any, u: Any, per: Per = 0, *, iterations: int = 1) -> tuple[Any, Any, Any]:
    """The weight over its estimated spectral norm, the estimate, and the `u` to give the next time.

        u <- W W'u / |W W'u|  (`iterations` times)        v = W'u / |W'u|        sigma = u'W v = |W'u|

    Where |W'u| is below the largest |entry|, the row of that entry stands in for u, so no entry comes back above 1.
    Derivatives take u and v as constants, as Miyato et al. do: those of w / sigma for d sigma/dW = u v', second ones
    included, without those of u and v. Where w is zero, sigma is 0, w / sigma is 0, and its derivative that of w / 1.
    0 iterations leave u as it is, for evaluation.

    sigma is a lower bound, but for the rounding of sums. With s_1 >= s_2 >= ... the singular values of W [n][m]:

        max |w| <= sigma <= s_1              always
        s_1 <= sigma c^(-1 / (2 k + 1))      after k iterations, c = |cos| between the first u and W's first left vector
        |s_i - sigma| <= r / sqrt(2)         for some i, where r = |W v - sigma u|

    None depends on the gap s_1 - s_2, and none certifies s_1: for a start orthogonal to that vector c is 0, and s_i
    need not be s_1. Of starts drawn uniformly from the sphere, n >= 2, at most a share p has c < p sqrt(pi / (2 n)),
    and so fails the second line with that put in for c. On the average over such starts 1 - sigma^2 / s_1^2 is at most
    0.871 ln(n) / k; no number of iterations bounds it for a fixed start, which `spectral_start` is.

    Shapes: w [any], u [size of each axis in `per`, 1 for the others] -> [as w], [], [as u]; the first in w's dtype, the
            others in float32 where that is half precision. The length of u does not matter.
    Keeps:  a u that is zero, NaN or reaches nothing is begun anew. NaN in w makes w and sigma NaN, and leaves u.
    Raises: ArgumentError for a u of another shape, an axis that w does not have, iterations below 0.
    Source: Miyato et al. 2018, arXiv:1802.05957; Kuczynski & Wozniakowski 1992, SIAM J. Matrix Anal. Appl. 13.

    >>> import numpy as np
    >>> from normkit.spectrum import spectral_start
    >>> w = np.array([[3.0, 0.0], [0.0, 4.0]])
    >>> normalized, sigma, u = spectral_normalized(w, spectral_start(w), iterations=50)
    >>> float(round(sigma, 6)), np.round(normalized, 6)
    (4.0, array([[0.75, 0.  ],
           [0.  , 1.  ]]))
    """
    found = stretched(w, u, per, iterations=iterations)
    divisor = found.xp.where(found.share == 0, found.xp.ones(found.share), found.share)
    return found.xp.as_type_of(found.scaled / divisor, w), found.sigma, found.u
