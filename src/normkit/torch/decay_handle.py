"""`Decay`: the handle of a decay at work in an optimizer, and what it does around each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from normkit.decay import refuse_divergent, share
from normkit.errors import ArgumentError, ModelError, StateError, in_brief
from normkit.select import Explanation
from normkit.torch.aim import Aim, Target
from normkit.torch.attach import Attachment, attached_to
from normkit.torch.decay_step import Around, Batch, Member
from normkit.torch.decay_terms import (
    Terms,
    checked_weight_decay,
    reference_rate,
    refuse_own_decay,
    refuse_sparse,
    starts,
)


class Decay(Attachment):
    """A decay at work; made by `nk.decay`.

    `weight_decay` may be set at any time; `remove()` takes the decay off; `explain()` is the table of who decays and by
    how much; `shares` says what one step takes now, per parameter group.
    """

    VERB = "decay"

    def __init__(self, optimizer: Any, weight_decay: float, terms: Terms, rule: Any, model: Any) -> None:
        super().__init__(optimizer, rule, model)
        self.terms = terms
        self._weight_decay = checked_weight_decay(weight_decay)
        self.steps = 0
        self._refs: list[float | None] = []
        self._members: dict[str, Member] = {}
        self._met: dict[str, Member] = {}  # those that are frozen now, too: they go on as they were once they are freed
        self._around = Around(terms, self.optimizer)
        if not self.aim.targets:
            said = self.aim.explain(lambda target: "", "decay").summary()
            raise ModelError(f"decay of {type(self.optimizer).__name__}: {said}; choose others with select=")
        self._take_in(self.aim)
        self._refuse_divergence()

    # -- what the user sees ----------------------------------------------------------------------------------------

    @property
    def weight_decay(self) -> float:
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        before, self._weight_decay = self._weight_decay, checked_weight_decay(value)
        try:
            self._refuse_divergence()
        except ArgumentError:
            self._weight_decay = before
            raise

    @property
    def shares(self) -> list[float]:
        """What the next step takes, per parameter group of the optimizer; for kind "l2" the coefficient of w."""
        return [float(taken) for taken in self._shares(self.rates())]

    def explain(self) -> Explanation:
        """Which parameters decay, by which rule, and the share of each that the next step takes."""
        shares = self.shares

        def told(target: Target) -> str:
            share = shares[target.group]
            what = "in its gradient" if self.terms.kind == "l2" else "of it in the next step"
            return f"weight_decay {self._weight_decay:g} {self.terms.kind}, {share:.3g} {what}"

        found = self.aim.explain(told, "decay")
        return replace(found, rows=tuple(row for row in found.rows if row.role != "buffer"))  # no optimizer has one

    def __repr__(self) -> str:
        state = "" if self.attached else ", removed"
        count = "1 parameter" if len(self._members) == 1 else f"{len(self._members)} parameters"
        return f"Decay({self._weight_decay:g}, kind={self.terms.kind!r}: {count}{state})"

    # -- who decays ------------------------------------------------------------------------------------------------

    def found(self, now: Aim) -> None:
        self._take_in(now)
        self._around = Around(self.terms, self.optimizer)

    def _take_in(self, now: Aim) -> None:
        """Refuse what cannot be; then the rates to compare with, and what each tensor is pulled toward."""
        groups = self.optimizer.param_groups
        used = {target.group for target in now.targets}
        refuse_own_decay(self.optimizer, now)
        refuse_sparse(now, self.terms)
        self._refuse_overlap(now)
        known = self._refs[: len(groups)]
        refs = known + [
            reference_rate(groups[i], i, self.terms) if i in used else None for i in range(len(known), len(groups))
        ]
        refs = [
            reference_rate(groups[i], i, self.terms) if ref is None and i in used else ref for i, ref in enumerate(refs)
        ]
        members = {target.name: self._member(target) for target in now.targets}
        self._refs, self._members = refs, members
        self._met |= members
        self._by_group = [
            [members[target.name] for target in now.targets if target.group == i] for i in range(len(groups))
        ]

    def _member(self, target: Target) -> Member:
        before = self._met.get(target.name)
        if before is not None and before.tensor is target.tensor:
            return before
        return Member(target.name, target.tensor, *starts(target, self.terms))

    def _refuse_overlap(self, now: Aim) -> None:
        mine = {id(target.tensor): target.name for target in now.targets}
        for other in attached_to(self.optimizer):
            if isinstance(other, Decay) and other is not self:
                both = [mine[id(target.tensor)] for target in other.aim.targets if id(target.tensor) in mine]
                if both:
                    more = f" and {len(both) - 1} more" if len(both) > 1 else ""
                    raise ModelError(
                        f"{both[0]}{more} would decay twice: another nk.decay of this optimizer acts on it; remove() "
                        "that one, or choose others with select="
                    )

    # -- how much --------------------------------------------------------------------------------------------------

    def _factor(self) -> float:
        schedule = self.terms.schedule
        if schedule is None:
            return 1.0
        value = schedule(self.steps)
        try:
            number = -1.0 if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = -1.0
        if not 0 <= number < float("inf"):
            raise ArgumentError(
                f"schedule gave {in_brief(value)} at step {self.steps}; expected a factor on weight_decay, a number "
                "of at least 0"
            )
        return number

    def _shares(self, rates: Sequence[Any]) -> list[Any]:
        factor, kind = self._factor(), self.terms.kind
        return [
            share(kind, self._weight_decay, lr=rate, lr_ref=ref, factor=factor) if members else 0.0
            for rate, ref, members in zip(rates, self._refs, self._by_group, strict=True)
        ]

    def _refuse_divergence(self) -> None:
        """At the rates that are known: those of now, and the highest that a scheduler has said."""
        groups = self.optimizer.param_groups
        self._refuse_shares(
            [max(float(group.get(key, 0)) for key in ("lr", "initial_lr", "max_lr")) for group in groups]
        )

    def _refuse_shares(self, rates: Sequence[Any]) -> list[Any]:
        shares = self._shares(rates)
        for number, (taken, rate) in enumerate(zip(shares, rates, strict=True)):
            if any(isinstance(x, Tensor) and x.device.type != "cpu" for x in (taken, rate)):
                continue  # to read it would wait for the device
            plain = isinstance(self.optimizer, torch.optim.SGD) and not self.optimizer.param_groups[number]["momentum"]
            seen = taken if self.terms.kind != "l2" else taken * rate if plain else 0.0
            said = f"weight_decay={self._weight_decay:g}, kind={self.terms.kind!r} at lr={float(rate):g}"
            if seen >= 2:
                refuse_divergent(float(seen), said)
        return shares

    # -- around a step ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._around.put_back()  # after a step that failed halfway
        refuse_own_decay(self.optimizer, self.aim)
        shares = self._refuse_shares(self.rates())
        return self._around.before(args, kwargs, lambda: self._batches(shares), self._by_group)

    def _batches(self, shares: Sequence[Any]) -> list[Batch]:
        """What decays in this step: tensors that have a gradient, unless a gradient scaler skips the step."""
        alive = self.alive()
        found = []
        for group, (members, taken) in enumerate(zip(self._by_group, shares, strict=True)):
            graded = [member for member in members if member.tensor.grad is not None]
            if graded and not (isinstance(alive, float) and alive == 0):
                times = taken if isinstance(alive, float) or self.terms.kind == "l2" else taken * alive
                found.append(Batch(graded, times, group))
        return found

    @torch.no_grad()
    def after(self) -> None:
        self.steps += self._around.after()

    # -- the optimizer's state dict --------------------------------------------------------------------------------

    def saved(self) -> dict[str, Any]:
        known = self._met.items()
        return {
            "kind": self.terms.kind,
            "steps": self.steps,
            "lr_ref": list(self._refs),
            "reference": {name: member.reference for name, member in known if member.reference is not None},
            "length": {name: _as_tensor(member.length) for name, member in known if member.length is not None},
        }

    def check(self, saved: Mapping[str, Any]) -> Callable[[], None]:
        refs, steps = saved.get("lr_ref") or [], saved.get("steps", 0)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise StateError(f"the state dict has {in_brief(steps)} as the steps of a decay; expected a count")
        values: dict[str, Mapping[str, Tensor]] = {}
        if saved.get("kind") == self.terms.kind and "initial" in (self.terms.reference, self.terms.length):
            values = {what: saved.get(what, {}) for what in ("reference", "length")}
            for name, member in self._met.items():
                for what, there in values.items():
                    _refuse_misfit(name, what, getattr(member, what), there)

        def load() -> None:
            self.steps = steps
            if saved.get("kind") == self.terms.kind and self.terms.lr_ref is None and len(refs) == len(self._refs):
                self._refs = [old if new is None else new for new, old in zip(refs, self._refs, strict=True)]
            for what, there in values.items():
                for name, member in self._met.items():
                    if (mine := getattr(member, what)) is not None:
                        tensor = isinstance(mine, Tensor)
                        setattr(member, what, there[name].to(mine, copy=True) if tensor else float(there[name]))

        return load


def _as_tensor(length: Any) -> Tensor:
    return length if isinstance(length, Tensor) else torch.tensor(length, dtype=torch.float64)


def _refuse_misfit(name: str, what: str, mine: Any, there: Mapping[str, Tensor]) -> None:
    if mine is None:
        return
    expected = tuple(_as_tensor(mine).shape)
    if name not in there or tuple(there[name].shape) != expected:
        given = "none" if name not in there else f"one of shape {tuple(there[name].shape)}"
        raise StateError(f"the state dict has {given} as the {what} of {name}; expected one of shape {expected}")
