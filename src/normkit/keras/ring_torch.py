"""The ring's slots on PyTorch, which runs step by step: sums on their way, in a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from normkit.keras.effective import settled
from normkit.keras.ring_hooks import Watched
from normkit.keras.ring_slots import none_of
from normkit.ops.torch import Cache, grad_sums, step_sums, sums

if TYPE_CHECKING:
    from normkit.keras.ring_slots import Found

Part = tuple[tuple[str, ...], list[int], Any]  # quantities, their columns, and the Late of their matrices


class RingSlots:
    """What each wanted step's sums are, from the moment they are asked for."""

    variables: Sequence[Any] = ()
    around = None
    apart = None

    def __init__(self, watched: Watched, number: int) -> None:
        del number  # `want` is given no more steps than that
        self._watched = watched
        self._caches: dict[Any, Cache] = {}
        self._copies: list[Any] = []
        self._parts: list[Part] | None = None
        kept = {id(variable) for variable in watched.trained}
        self._others = [i for i, variable in enumerate(watched.live) if id(variable) not in kept]
        self._same = [i for i in range(len(watched.live)) if i not in self._others]
        self.want([], newest=False)

    def want(self, steps: Sequence[int], *, newest: bool) -> None:
        self._wanted, self._newest = frozenset(steps), newest
        self._held: dict[int, list[Part]] = {}
        self._batch = int(self._watched.optimizer._iterations.value)  # counted here from now on: no wait at each step

    def take(self) -> Found:
        held, self._held = self._held, {}
        return [(step, self._joined(parts)) for step, parts in held.items()]

    def before(self) -> None:
        self._batch += 1
        self._step, rest = divmod(self._batch, self._watched.batches)
        self._parts = [] if not rest and (self._newest or self._step in self._wanted) else None
        if self._parts is None or self._watched.what == ("weight",):
            return
        if not self._copies:
            self._copies = [settled(variable).detach().clone() for variable in self._watched.trained]
        else:
            for copy, variable in zip(self._copies, self._watched.trained, strict=True):
                copy.copy_(settled(variable).detach())

    def gradients(self, gradients: Mapping[Any, Any]) -> None:
        if self._parts is None or "grad" not in self._watched.what:
            return
        found = self._watched.in_order(gradients)
        columns = [i for i, gradient in enumerate(found) if gradient is not None]
        old = [self._copies[i] for i in columns]
        late = grad_sums([found[i] for i in columns], old, cache=self._cache("grad", tuple(columns)))
        self._parts.append((("grad",), columns, late))

    def after(self) -> None:
        if self._parts is None:
            return
        what = self._watched.what
        if "update" in what:
            new = [settled(variable).detach() for variable in self._watched.trained]
            late = step_sums(new, self._copies, cache=self._cache("update"))
            self._parts.append((("weight", "update"), self._same, late))
        if "weight" in what and (rest := self._others if "update" in what else list(range(len(self._watched.live)))):
            values = [settled(self._watched.live[i]).detach() for i in rest]
            self._parts.append((("weight",), rest, sums(values, cache=self._cache("weight"))))
        self._keep(self._parts)

    def _keep(self, parts: list[Part]) -> None:
        """As this step's; a step kept only as the newest makes room."""
        for step in [step for step in self._held if step not in self._wanted]:
            del self._held[step]
        self._held[self._step] = parts

    def _cache(self, *key: Any) -> Cache:
        return self._caches.setdefault(key, Cache())

    def _joined(self, parts: Sequence[Part]) -> dict[str, Any]:
        joined = {name: none_of(self._watched, name) for name in self._watched.what}
        for names, columns, late in parts:
            for name, matrix in zip(names, late.wait(), strict=True):
                if name == "update":
                    joined[name][:] = matrix
                elif name in joined:
                    joined[name][:, columns] = matrix
        return joined
