"""What a decay does around one optimizer step, once it is known which tensors decay and by how much."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from normkit.errors import ModelError
from normkit.groups import Per
from normkit.ops.torch import Cache
from normkit.torch.attach import closure_of, with_closure
from normkit.torch.decay_pull import SMALL, Copies, is_plain, shrink, toward, toward_length
from normkit.torch.decay_terms import Terms, sparse


@dataclass
class Member:
    """One tensor that decays, and what it is pulled toward."""

    name: str
    tensor: Tensor
    reference: Tensor | None = None
    length: Any = None
    per: Per = "tensor"


@dataclass(frozen=True)
class Batch:
    """The tensors of one parameter group that decay in this step, and the share that is taken of them."""

    members: Sequence[Member]
    taken: Any
    group: int

    @cached_property
    def tensors(self) -> list[Tensor]:
        return [member.tensor for member in self.members]


# LBFGS evaluates the loss several times in a step; the update of Adafactor is as long as the weight.
LOOKS_AGAIN = (torch.optim.LBFGS, torch.optim.Adafactor)
Batches = Callable[[], list[Batch]]  # asked once the gradients are there


class Around:
    """The pull of each step: through the gradient, before the weights are moved, or after that from a copy.

    With a closure the gradients are there only once it has been called; so it is called inside another one. Where an
    optimizer looks at the weights again within a step, the share of the weight before the step is taken after it.
    """

    def __init__(self, terms: Terms, optimizer: torch.optim.Optimizer) -> None:
        self._terms, self._optimizer = terms, optimizer
        self._several = isinstance(optimizer, torch.optim.LBFGS)
        self._is_late = terms.kind == "cautious" or (isinstance(optimizer, LOOKS_AGAIN) and terms.kind != "l2")
        self._copies: dict[int, Copies] = {}
        self._swapped: list[tuple[Tensor, Tensor, Tensor]] = []  # a tensor, its gradient, and the one that it got
        self._caches: defaultdict[int, Cache] = defaultdict(Cache)
        self._room: dict[int, Tensor] = {}
        self._late: list[Batch] = []
        self._done = False

    def before(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], batches: Batches, groups: Sequence[Sequence[Member]]
    ) -> Any:
        self._late, self._done = [], False
        closure = closure_of(args, kwargs)
        if closure is None:
            self._act(batches())
            for batch in self._late:
                self._copy(batch.group, batch.tensors)
            return None
        if self._is_late:
            for number, members in enumerate(groups):
                self._copy(number, [member.tensor for member in members])
        return with_closure(args, kwargs, lambda: self._evaluated(closure, batches))

    def after(self) -> bool:
        """Was it a step?"""
        self.put_back()
        late, self._late = self._late, []
        for batch in late:
            copies = self._copies[batch.group]
            if self._terms.kind == "cautious":
                copies.cautious(batch.tensors, batch.taken)
                continue
            known = copies.olds()
            olds = [known[id(tensor)] for tensor in batch.tensors]
            pulled = torch._foreach_clone(olds)
            self._pull(batch, pulled)
            torch._foreach_add_(batch.tensors, torch._foreach_sub(pulled, olds))
        return self._done

    def put_back(self) -> None:
        """The gradients as they were, where nobody has put others there."""
        swapped, self._swapped = self._swapped, []
        for tensor, own, coupled in swapped:
            if tensor.grad is coupled:
                tensor.grad = own

    def _evaluated(self, closure: Callable[[], Any], batches: Batches) -> Any:
        """The closure; then the pull is in the gradients (and in the loss of a line search), or the weights shrink."""
        self.put_back()
        loss = closure()
        with torch.no_grad():
            if self._terms.kind == "l2":
                found = batches()
                self._act(found)
                if self._several and loss is not None:
                    loss = loss + sum(0.5 * b.taken * sum(t.square().sum() for t in b.tensors) for b in found)
            elif not self._done:
                self._act(batches())
        return loss

    def _act(self, batches: list[Batch]) -> None:
        self._done = bool(batches)
        if self._is_late:
            self._late = batches
            return
        if self._terms.kind == "l2":
            _refuse_sparse(batches)
        for batch in batches:
            if self._terms.kind == "l2":
                self._couple(batch)
            else:
                self._pull(batch, batch.tensors)

    def _couple(self, batch: Batch) -> None:
        """g <- g + lambda w in new memory; as torch's own, the other way round where the optimizer climbs."""
        grads = [grad for member in batch.members if (grad := member.tensor.grad) is not None]
        taken = -batch.taken if self._optimizer.param_groups[batch.group].get("maximize") else batch.taken
        scale = getattr(self._optimizer, "grad_scale", None)
        if scale is None:
            coupled = self._sum(grads, batch.tensors, taken)
        else:  # a fused optimizer divides the gradients by it
            coupled = torch._foreach_mul(batch.tensors, taken * scale)
            torch._foreach_add_(coupled, grads)
        for member, grad, other in zip(batch.members, grads, coupled, strict=True):
            member.tensor.grad = other
            self._swapped.append((member.tensor, grad, other))

    def _sum(self, grads: Sequence[Tensor], weights: Sequence[Tensor], taken: float) -> Sequence[Tensor]:
        """Large ones in memory that is kept: to fetch it anew each time costs as much as the sum."""
        if grads[0].device.type != "cpu" or all(grad.numel() <= SMALL for grad in grads):
            return torch._foreach_add(list(grads), list(weights), alpha=taken)
        found: dict[int, Tensor] = {}
        small = []
        for i, (grad, weight) in enumerate(zip(grads, weights, strict=True)):
            if grad.numel() <= SMALL or not is_plain(grad):
                small.append(i)
                continue
            room = self._room.get(id(weight))
            if room is None or room.shape != grad.shape or room.dtype != grad.dtype:
                room = self._room[id(weight)] = torch.empty_like(grad)
            found[i] = torch.add(grad, weight, alpha=taken, out=room)
        if small:
            sums = torch._foreach_add([grads[i] for i in small], [weights[i] for i in small], alpha=taken)
            found |= dict(zip(small, sums, strict=True))
        return [found[i] for i in range(len(grads))]

    def _pull(self, batch: Batch, weights: Sequence[Tensor]) -> None:
        if self._terms.kind != "toward":
            shrink(weights, batch.taken)
        elif self._terms.length is None:
            toward(weights, [_at(member) for member in batch.members], batch.taken)
        else:
            lengths, pers = [m.length for m in batch.members], [m.per for m in batch.members]
            toward_length(weights, lengths, pers, batch.taken, self._caches[batch.group])

    def _copy(self, group: int, weights: Sequence[Tensor]) -> None:
        if group not in self._copies or not self._copies[group].serves(weights):
            self._copies[group] = Copies(weights)
        self._copies[group].take()


def _refuse_sparse(batches: Sequence[Batch]) -> None:
    for batch in batches:
        for member in batch.members:
            if member.tensor.grad is not None and member.tensor.grad.layout is not torch.strided:
                raise ModelError(sparse(member.name))


def _at(member: Member) -> Tensor:
    """Its reference, where the weight is now."""
    assert member.reference is not None
    if member.reference.device != member.tensor.device or member.reference.dtype != member.tensor.dtype:
        member.reference = member.reference.to(member.tensor)
    return member.reference
