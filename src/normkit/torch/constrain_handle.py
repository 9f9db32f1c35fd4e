"""`Constraint`: the handle of a limit that weights are brought back to after each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normkit.constrain import spectral_bound
from normkit.constrain.asked import said, within
from normkit.errors import ModelError, StateError
from normkit.groups import Per
from normkit.lengths import norm_except_dim
from normkit.ops.torch_math import widest
from normkit.select import Explanation
from normkit.spectrum import matrix, spectral
from normkit.torch.aim import Aim, Target
from normkit.torch.attach import Attachment
from normkit.torch.kept import groups_within
from normkit.torch.shards import cut_axes, dealt_out, is_sharded, whole

CLEAR = 1e-9  # share of a limit by which a length is within it, however its squares were added up
SEEN = 1e-100  # limits whose squares are numbers


@dataclass(frozen=True)
class Limit:
    """One limit by its name, and its value: a length, two, "initial", or True."""

    name: str
    value: Any

    def __str__(self) -> str:
        return said(self.name, self.value)


@dataclass(frozen=True)
class Held:
    """One tensor that is kept within the limit: its groups, and the lengths that it began with where these count."""

    name: str
    tensor: Tensor
    kept: tuple[int, ...]
    lengths: Tensor | None = None


class Constraint(Attachment):
    """A limit at work; made by `nk.constrain`.

    `apply()` brings the weights within it now, `remove()` takes it off, `explain()` is the table of whom it holds, and
    for spectral_cap `certify()` gives a bound for each weight that its largest singular value does not exceed.
    """

    VERB = "constrain"

    def __init__(self, optimizer: Any, limit: Limit, rule: Any, per: Per, model: Any) -> None:
        super().__init__(optimizer, rule, model)
        self.limit, self._per = limit, per
        self._held: dict[str, Held] = {}
        if not self.aim.targets:
            raise ModelError(
                f"constrain: {type(self.optimizer).__name__} holds none of the parameters chosen; print "
                "nk.explain(model, select) beside the optimizer's groups"
            )
        self.found(self.aim)

    # -- what the user sees ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def apply(self) -> None:
        """Bring every weight within the limit now."""
        self.refresh()
        for held in self._held.values():
            self._bring(held)

    @torch.no_grad()
    def certify(self) -> dict[str, float]:
        """{name: a number that the largest singular value does not exceed}; waits for the device.

        Where the bound of the room is over the limit, the singular values in float64 plus a share of 1e-9, which is
        more than their rounding.

        Raises: StateError where the limit is another than spectral_cap.
        """
        if self.limit.name != "spectral_cap":
            raise StateError(f"certify() is for spectral_cap; this handle holds {self.limit}")
        self.refresh()
        return {held.name: self._bound(whole(held.tensor.detach()), held.kept) for held in self._held.values()}

    def _bound(self, w: Tensor, kept: tuple[int, ...]) -> float:
        bound = float(spectral_bound(w, kept))
        if not bound > self.limit.value:
            return bound
        others = tuple(axis for axis in range(w.ndim) if axis not in kept)
        return min(bound, spectral(matrix(w, kept, others)) * (1 + CLEAR))

    def explain(self) -> Explanation:
        """Which parameters are held, and by which rule."""
        self.refresh()
        return self.aim.explain(lambda target: f"{self.limit} per {self._per!r}")

    def __repr__(self) -> str:
        state = "" if self.attached else ", removed"
        count = "1 parameter" if len(self._held) == 1 else f"{len(self._held)} parameters"
        return f"Constraint({self.limit}: {count}{state})"

    # -- who is held -----------------------------------------------------------------------------------------------

    def found(self, now: Aim) -> None:
        self._held = {target.name: self._taken_in(target) for target in now.targets}

    def _taken_in(self, target: Target) -> Held:
        if self.limit.name == "spectral_cap" and target.weight is not None:
            raise ModelError(
                f"{target.weight.param.name} is weight-normed: spectral_cap acts on the whole matrix; take max_norm, "
                "or nk.remove_weight_norm first"
            )
        kept = groups_within(target, self._per, self.VERB)
        before = self._held.get(target.name)
        real = before is None or before.lengths is None or not before.lengths.is_meta
        if before is not None and real and before.tensor.shape == target.tensor.shape:
            return Held(target.name, target.tensor, kept, before.lengths)
        initial = self.limit.name == "hold" and self.limit.value == "initial"
        return Held(target.name, target.tensor, kept, _first_lengths(target, kept) if initial else None)

    # -- around a step ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def after(self) -> None:
        alive = self.alive()
        if isinstance(alive, float) and not alive:
            return
        for held in self._held.values():
            self._bring(held)

    def _bring(self, held: Held) -> None:
        """Bring one weight within the limit; the memory of one that is within it is not written to."""
        w = held.tensor.detach()
        apart = is_sharded(w)
        of_all = self.limit.name == "spectral_cap" or held.lengths is not None or not cut_axes(w) <= set(held.kept)
        together = apart and of_all
        now = whole(w) if together else w.to_local() if apart else w  # type: ignore[attr-defined]
        if self._clearly_within(now, held.kept):
            return
        new = self._within(now, held)
        if together:
            new = dealt_out(new, w).to_local()  # type: ignore[attr-defined]
        (w.to_local() if apart else w).copy_(new)  # type: ignore[attr-defined]

    def _within(self, w: Tensor, held: Held) -> Tensor:
        value = self.limit.value if held.lengths is None else held.lengths.to(w.device)
        made: Tensor = within(self.limit.name, w, value, held.kept)
        return made

    def _clearly_within(self, w: Tensor, kept: Sequence[int]) -> bool:
        """Does one pass show it? Where it is a close thing, and on devices, the room decides."""
        bounds = {"max_norm": (0.0, self.limit.value), "min_max_norm": self.limit.value}.get(self.limit.name)
        others = tuple(axis for axis in range(w.ndim) if axis not in kept)
        if bounds is None or w.device.type != "cpu" or not w.numel() or not others:
            return False
        low, high = bounds
        if high < SEEN:
            return False
        lengths = torch.linalg.vector_norm(w, dim=others, dtype=torch.float64)
        least, most = lengths.aminmax()  # both NaN where there is one
        return bool(most <= high * (1 - CLEAR)) and not (low and bool(least < low * (1 + CLEAR)))

    # -- the optimizer's state dict --------------------------------------------------------------------------------

    def saved(self) -> dict[str, Any]:
        return {name: held.lengths for name, held in self._held.items() if held.lengths is not None}

    def check(self, saved: Mapping[str, Any]) -> Callable[[], None]:
        for name, lengths in saved.items():
            held = self._held.get(name)
            if not isinstance(lengths, Tensor):
                raise StateError(f"the state dict's lengths of {name} are {type(lengths).__name__}; expected a tensor")
            if held is not None and held.lengths is not None and lengths.shape != held.lengths.shape:
                raise StateError(
                    f"the state dict's lengths of {name} have shape {tuple(lengths.shape)}; expected "
                    f"{tuple(held.lengths.shape)}"
                )
        return lambda: self._take_up(saved)

    def _take_up(self, saved: Mapping[str, Any]) -> None:
        for name, held in self._held.items():
            if held.lengths is not None and name in saved:
                self._held[name] = Held(name, held.tensor, held.kept, saved[name].to(held.lengths))


def _first_lengths(target: Target, kept: tuple[int, ...]) -> Tensor:
    """Of each group now. Raises: ModelError for a group without a length that it could be brought back to."""
    lengths: Tensor = norm_except_dim(widest(whole(target.tensor.detach())), kept)
    if not lengths.is_meta and (bad := int((~((lengths > 0) & lengths.isfinite())).sum())):
        raise ModelError(
            f"{target.name} has {bad} of {lengths.numel()} groups whose length is 0 or not finite, so hold='initial' "
            "would keep them so: give a number, or leave it out (select=)"
        )
    return lengths
