"""A look at a Keras model right now: its norms, and which of its weights a rule takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normkit.errors import ArgumentError
from normkit.groups import Per
from normkit.keras.walk import Located, walk
from normkit.recording.look import norms_of
from normkit.select import Explanation
from normkit.select import select as select_params

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def norms(
    model: Any, kind: str = "l2", per: Per = "tensor", *, select: Any = None
) -> dict[str, float | NDArray[np.float64]]:
    """The norm of every weight now, as {name: value}.

    model   a Keras model or layer that is built
    kind    an entrywise norm (l1 l2 linf rms mean std zeros nonfinite) or an operator norm (spectral stable_rank
            nuclear), which takes kernels and embeddings as the matrices that the layers apply
    per     "tensor" (one float each), "out" or "in" (an array: one value per output or input unit), or kept axes
    select  which weights (docs: select); default: everything trainable

    Waits for the device. Inside a callback give it `self.model`. Raises: ArgumentError for what is no model, an unknown
    kind, a rule that matches nothing, or a weight whose layer does not say which axes are outputs (`per="out"`);
    ModelError for a model without weights yet.
    """
    if isinstance(model, str):
        raise ArgumentError(f"model={model!r}: the model comes first: nk.norms(model, 'l2')")
    return norms_of([(item.param, item.value) for item in walk(model)], kind, per, select)


def explain(model: Any, select: Any = None) -> Explanation:
    """Which weights `select` takes and why; print it.

    `model` is what `norms` takes. Raises: ArgumentError for what is no model, and for a rule that matches nothing.
    """
    located: list[Located] = walk(model)
    return select_params([item.param for item in located], select, default="trainable").explain()
