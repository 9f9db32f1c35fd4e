"""What weights are pulled toward: their first values, or given ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normkit.errors import ArgumentError, in_brief
from normkit.penalize.terms import refuse_reference
from normkit.torch.shards import dealt_out, is_sharded, whole


class References:
    """What `toward` measures from: the values at the first look, or those of a mapping.

    A weight that takes another's name and is of another shape has a first look of its own.
    """

    def __init__(self, given: Any) -> None:
        if isinstance(given, nn.Module):
            raise ArgumentError(f"reference={type(given).__name__}: give its values, as reference=model.state_dict()")
        if not (given == "initial" if isinstance(given, str) else isinstance(given, Mapping)):
            raise ArgumentError(f"reference={in_brief(given)}: expected 'initial', or a mapping of names to arrays")
        self.given = given
        self._kept: dict[str, Tensor] = {}

    def of(self, names: Sequence[str], w: Tensor) -> Tensor:
        """The reference of the weight of these names, as `w` is: its dtype, its device, its order in memory.

        Raises: ArgumentError where there is none, or of another shape.
        """
        name = names[0]
        kept = self._kept.get(name)
        if kept is None or kept.shape != w.shape or (kept.is_meta and not w.is_meta):  # meta has no values
            with torch.inference_mode(False):
                kept = self._kept[name] = self._first(names, w)
        if kept.dtype is not w.dtype or kept.device != w.device or is_sharded(kept) is not is_sharded(w):
            kept = self._kept[name] = _like(kept, w)
        return kept

    def _first(self, names: Sequence[str], w: Tensor) -> Tensor:
        if isinstance(self.given, str):
            return w.detach().clone(memory_format=torch.preserve_format)
        found = next((self.given[name] for name in names if name in self.given), None)
        if found is None:
            raise ArgumentError(f"reference= has nothing for {names[0]}: give its value, or leave it out of select=")
        try:
            value = found if isinstance(found, Tensor) else torch.as_tensor(np.asarray(found))
            refuse_reference(w, value)
        except (ArgumentError, TypeError, ValueError) as error:
            raise ArgumentError(f"{names[0]}: {error}") from None
        return _like(value.detach(), w)


def _like(value: Tensor, w: Tensor) -> Tensor:
    if is_sharded(w):
        return dealt_out(whole(value).to(w.device, w.dtype), w)
    return torch.empty_like(w, requires_grad=False).copy_(whole(value))
