"""A look at variables right now: their norms, and which of them a rule takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normkit.errors import ArgumentError
from normkit.groups import Per
from normkit.recording.look import norms_of
from normkit.select import Explanation
from normkit.select import select as select_params
from normkit.tensorflow.walk import walk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def norms(
    model: Any, kind: str = "l2", per: Per = "tensor", *, select: Any = None
) -> dict[str, float | NDArray[np.float64]]:
    """The norm of every weight now, as {name: value}.

    model   a tf.Module, a tf_keras or Keras model, a tf.Variable, or several of these in a list or dict
    kind    an entrywise norm (l1 l2 linf rms mean std zeros nonfinite) or an operator norm (spectral stable_rank
            nuclear), which takes kernels and embeddings as the matrices that the layers apply
    per     "tensor" (one float each), "out" or "in" (an array: one value per output or input unit), or kept axes
    select  which weights (docs: select); default: everything trainable

    Raises: ArgumentError for what holds no variables, an unknown kind, a rule that matches nothing, or a variable
    whose layer does not say which axes are outputs (`per="out"`).

    >>> import tensorflow as tf
    >>> norms({"w": tf.Variable([[3.0, -4.0]])}, "l1")
    {'w': 7.0}
    """
    if isinstance(model, str):
        raise ArgumentError(f"model={model!r}: the model comes first: nk.norms(model, 'l2')")
    return norms_of([(each.param, each.value) for each in walk(model)], kind, per, select)


def explain(model: Any, select: Any = None) -> Explanation:
    """Which variables `select` takes and why; print it.

    `model` is what `norms` takes. Raises: ArgumentError for what holds no variables, and for a rule that matches
    nothing.
    """
    return select_params([each.param for each in walk(model)], select, default="trainable").explain()
