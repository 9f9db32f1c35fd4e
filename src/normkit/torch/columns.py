"""The columns of a recording: which tensors stand in it, who steps them, and how they are measured around a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from normkit.errors import ArgumentError, ModelError
from normkit.ops import torch as ops
from normkit.ops.torch_columns import refuse_unreadable
from normkit.recording.grouped import Grouped
from normkit.recording.packet import Late, Piece
from normkit.torch.late import Fetched
from normkit.torch.look import tensor_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.torch.walk import Located


class Columns:
    """Some columns of a recording, measured together: those of one optimizer, or all that others do not own.

    `before` runs just before an optimizer step and `after` just after it. Between them stand the gradients' sums and
    a copy of the weights (one model in size, made once and used again), which the update is measured against.
    """

    def __init__(self, located: Sequence[Located], index: Sequence[int], groups: Sequence[Grouped] = ()) -> None:
        self.index: NDArray[np.intp] = np.asarray(index, dtype=np.intp)
        local = {place: i for i, place in enumerate(index)}
        self._groups = [(local[each.place], each) for each in groups if each.place in local]
        self._group_columns = np.concatenate([self.index[:0], *(each.columns for _, each in self._groups)])
        self.located = [located[i] for i in index]
        self.tensors: list[torch.Tensor] | None = None
        if all(item.effective is None for item in self.located):
            # the parameters themselves: `p.data = ...` moves one to other memory
            self.tensors = [item.tensor for item in self.located if item.tensor is not None]
        self._copies: list[torch.Tensor] | None = None
        self._sampled: list[Piece] = []
        self._graded = False
        self._weights_cache, self._grads_cache, self._steps_cache = ops.Cache(), ops.Cache(), ops.Cache()

    def weights(self) -> list[torch.Tensor]:
        """The weights now; those of parametrized layers are computed, without side effects."""
        if self.tensors is not None:
            return self.tensors
        return [item.tensor if item.tensor is not None else tensor_of(item) for item in self.located]

    def measure(self) -> list[Piece]:
        """The weights' sums now."""
        weights = self.weights()
        whole = Piece(ops.sums(weights, cache=self._weights_cache), self.index, ("weight",))
        return [whole, *self._of_groups(("weight",), ops.sums, weights)]

    def before(self, what: Sequence[str], *, closure: bool, scale: Any = None) -> None:
        """Take the gradients' sums and the copy that the update needs. With a closure, gradients come in the step."""
        self._sampled, self._graded = [], "grad" in what and not closure
        weights = self.weights()
        copies = self._room(weights) if "update" in what else None
        if self._graded:
            self._sampled += self._gradients(weights if copies else None, copies, scale)
        elif copies is not None:
            for weight, copy in zip(weights, copies, strict=True):
                copy.copy_(weight)

    def after(self, what: Sequence[str]) -> list[Piece]:
        """What the step did: sums of the weights and of the update, and of the gradients if not taken before."""
        weights = self.weights()
        if "grad" in what and not self._graded:
            self._sampled += self._gradients(self._copies if "update" in what else None, None, None)
        if "update" in what and self._copies is not None:
            late = ops.step_sums(weights, self._copies, cache=self._steps_cache)
            self._sampled.append(Piece(late, self.index, ("weight", "update")))
            self._sampled += self._of_groups(("weight", "update"), ops.step_sums, weights, self._copies)
        else:
            self._sampled += self.measure()
        return self._sampled

    def _of_groups(
        self, quantities: tuple[str, ...], sums: Any, *lists: Any, unscale: Late | None = None
    ) -> list[Piece]:
        """The same sums for each group of the tensors that have groups."""
        if not self._groups:
            return []
        rows = [[row for place, each in self._groups for row in rows_of(tensors[place], each)] for tensors in lists]
        return [Piece(sums(*rows), self._group_columns, quantities, unscale=unscale)]

    def _gradients(
        self, weights: list[torch.Tensor] | None, copies: list[torch.Tensor] | None, scale: Any
    ) -> list[Piece]:
        """Sums of the gradients, with <w, g> where the weights are given: that reads as many bytes again."""
        grads = [None if item.tensor is None else item.tensor.grad for item in self.located]
        if weights is None:
            late = ops.sums(grads, cache=self._grads_cache)
        else:
            late = ops.grad_sums(grads, weights, copies, cache=self._grads_cache)
        unscale = None if scale is None else Fetched(scale)
        whole = Piece(late, self.index, ("grad",), unscale=unscale)
        if weights is None:
            return [whole, *self._of_groups(("grad",), ops.sums, grads, unscale=unscale)]
        return [whole, *self._of_groups(("grad",), ops.grad_sums, grads, weights, unscale=unscale)]

    def _room(self, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        if self._copies is None:
            self._copies = [torch.empty_like(weight, requires_grad=False) for weight in weights]
        return self._copies


def rows_of(tensor: torch.Tensor | None, groups: Grouped) -> list[torch.Tensor | None]:
    """The groups of `tensor`, each flat; a view of it where its memory allows."""
    return [None] * groups.count if tensor is None else list(ops.as_rows(tensor.detach(), groups.axes).unbind(0))


def split(
    everything: Sequence[Located],
    chosen: Sequence[Located],
    optimizers: Sequence[Any],
    groups: Sequence[Grouped] = (),
) -> tuple[list[Columns], Columns]:
    """One Columns per optimizer, and one of all that the first optimizer does not own.

    An effective weight goes with the optimizer that holds one of its parts.
    """
    owned: list[Columns] = []
    for optimizer in optimizers:
        held = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
        names = {item.param.name for item in everything if id(item.tensor) in held}
        whole = {name.rpartition(".")[0] for name in names}
        index = [i for i, item in enumerate(chosen) if item.param.name in (whole if item.effective else names)]
        owned.append(Columns(chosen, index, groups))
    first = set(owned[0].index.tolist()) if owned else set()
    return owned, Columns(chosen, [i for i in range(len(chosen)) if i not in first], groups)


def check_readable(located: Sequence[Located]) -> None:
    """Raises: ModelError naming the first tensor whose memory cannot be read."""
    for item in located:
        if item.tensor is not None:
            try:
                refuse_unreadable(item.tensor, item.param.name)
            except ArgumentError as error:
                raise ModelError(str(error)) from None


def warm_up(located: Sequence[Located]) -> None:
    """Compile the kernels for these tensors now, so that the first steps don't."""
    for example in {(t.dtype, t.device): t for t in (item.tensor for item in located) if t is not None}.values():
        tensors = [torch.zeros(2, dtype=example.dtype, device=example.device)]
        ops.sums(tensors).wait()
        ops.grad_sums(tensors, tensors, [tensors[0].clone()]).wait()
        ops.step_sums(tensors, tensors).wait()
