"""What a compiled step hands out: arrays read without a trace, and float64 numbers as pairs of words, without x64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def behind_barrier(arrays: Sequence[Any]) -> list[Any]:
    """The arrays, for reading inside a compiled function so that what else is made of them stays what it was.

    Read as they are, they would be computed, and rounded, otherwise than in a function without us.
    """
    kept = iter(jax.lax.optimization_barrier([x for x in arrays if x is not None]))
    return [None if x is None else next(kept) for x in arrays]


def as_words(matrices: Sequence[Any]) -> Any:
    """All numbers of float64 matrices, one after another, as [numbers][2] of uint32: the same bits."""
    with jax.enable_x64(True):
        return jax.lax.bitcast_convert_type(jnp.concatenate([m.reshape(-1) for m in matrices]), jnp.uint32)


def from_words(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """[..][numbers] float64 from [..][numbers][2] words, the lower one first."""
    low, high = (words[..., i].astype(np.uint64) for i in (0, 1))
    numbers: NDArray[np.float64] = (low | high << np.uint64(32)).view(np.float64)
    return numbers
