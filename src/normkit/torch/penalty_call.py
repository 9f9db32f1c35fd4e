"""`penalty`: terms to add to the loss, over the weights of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from normkit.asked import number
from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.groups import Per
from normkit.penalize import orthogonality, spectral
from normkit.penalize.coefficients import coefficients
from normkit.select import Explanation
from normkit.spectrum import spectral_start
from normkit.torch.describe import untraced
from normkit.torch.penalty_entries import Entries
from normkit.torch.penalty_found import Pulled, Source, found_in, source_of
from normkit.torch.penalty_sum import total
from normkit.torch.penalty_work import ROOM
from normkit.torch.references import References
from normkit.torch.shards import whole
from normkit.torch.signature import Signature

TERMS = ("l1", "l2", "group", "toward", "orthogonality", "spectral")
START = 20  # power iterations for a weight that is met for the first time; then one per call


def penalty(
    model: Any,
    *,
    l1: float | None = None,
    l2: float | None = None,
    group: float | None = None,
    toward: float | None = None,
    orthogonality: float | None = None,
    spectral: float | None = None,
    select: Any = None,
    per: Per = "out",
    reference: Any = "initial",
) -> Penalty:
    """Terms on the weights of `model`, to be added to the loss: `loss = criterion(...) + penalty()`.

        l1 sum |w|  +  l2/2 sum w^2  +  group sum_g sqrt(n) |w_g|  +  toward/2 sum (w - reference)^2
        + orthogonality |W W' - 1|^2  +  spectral/2 sigma(W)^2

    model      a module, several in a list or dict, a tensor, or a list or dict of tensors (then all of them)
    select     which weights (docs: select); default: kernels
    per        the groups of `group`, and the rows of the matrix W: "out", "in", "tensor" or the kept axes
    reference  "initial": the values at this call, of a weight that comes later (freed, of another size, on meta until
               then) those at the first call that finds it; or {name: array}, such as a state dict

    Units:  every coefficient is a finite number of at least 0, of the loss; times lr as every gradient is. `l2` is the
    number that SGD and Adam call `weight_decay`: the gradient is l2 * w, rounded once. Nothing is divided by the number
    of samples or of weights. With an optimizer that maximizes, subtract it.
    Shapes: one number, in the widest of the weights' dtypes, at least float32, on the first one's device.

    A weight-normed or otherwise computed weight is pulled as the layer uses it (`l2` through its lengths g); tied
    weights count once; frozen ones, buffers and integers are left out. Weights that the loss does not use are pulled
    too. Sharded weights (DTensor) count once over all processes, each of which must make the call. Derivatives at 0 are
    finite, the first and the second; there is no forward-mode.
    Raises: ArgumentError for what is no model, a coefficient that is none, a rule that matches nothing, a reference
    that does not fit; StateError for a lazy layer that has seen no batch; ModelError for a model sharded by the older
    FullyShardedDataParallel.

    >>> layer = torch.nn.Linear(2, 1)
    >>> _ = torch.nn.init.constant_(layer.weight, 3.0)
    >>> pull = penalty(layer, l1=0.1, l2=0.5)
    >>> round(pull().item(), 6), {name: round(value.item(), 6) for name, value in pull.terms.items()}
    (5.1, {'l1': 0.6, 'l2': 4.5})
    """
    source = source_of(model)
    given = dict(zip(TERMS, (l1, l2, group, toward, orthogonality, spectral), strict=True))
    return Penalty(source, dict.fromkeys(TERMS, 0.0) | coefficients(given), select=select, per=per, reference=reference)


class _Coefficient:
    """`penalty.l2`, to be read and set."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, holder: Penalty | None, owner: type) -> Any:
        return self if holder is None else holder._coefficients[self.name]

    def __set__(self, holder: Penalty, value: Any) -> None:
        holder._set(self.name, value)


class Penalty:
    """What `penalty` gives: call it for the penalty now, a new graph each time.

    `l1`, `l2`, ... are its coefficients, to be read and set (a schedule sets them); `terms` holds the value of each
    term of the last call, on the device, without a graph.
    """

    l1, l2, group, toward = _Coefficient(), _Coefficient(), _Coefficient(), _Coefficient()
    orthogonality, spectral = _Coefficient(), _Coefficient()

    def __init__(
        self, source: Source, coefficients: Mapping[str, float], *, select: Any, per: Per, reference: Any
    ) -> None:
        if not coefficients["toward"] and not (isinstance(reference, str) and reference == "initial"):
            raise ArgumentError(f"reference={in_brief(reference)} without toward=; give toward=1e-3 or the like")
        self.terms: dict[str, Tensor] = {}
        self._coefficients, self._select, self._per = dict(coefficients), select, per
        self._references = References(reference) if coefficients["toward"] else None
        self._directions: dict[str, tuple[torch.Size, Tensor]] = {}
        self._source = source
        self._seen: Any = None
        self._look(again=False)

    def __call__(self) -> Tensor:
        """The penalty now; add it to the loss."""
        if torch.compiler.is_compiling():
            if self._seen is None or any(w.requires_grad is not trained for w, trained in self._trained):
                self._look_outside()
        elif self._changed():
            self._look(again=True)
        with torch.autocast(self._device, enabled=False):
            return self._summed()

    def explain(self) -> Explanation:
        """The table: parameter, role, where the role came from, whether it is pulled, by what and why."""
        if self._changed():
            self._look(again=True)
        lengths = {pulled.param.name for pulled in self._found.pulled if pulled.lengths is not None}
        rows = (
            replace(row, told=self._told(row.name.partition(" = ")[0] in lengths)) if row.chosen else row
            for row in self._found.table.rows
        )
        return Explanation(tuple(rows))

    def check(self) -> None:
        """Look at every weight that is pulled, which waits for the device: call it when the penalty is not finite.

        Raises: ModelError that names the first weight with an entry that is not finite, or too large for its square.
        """
        if self._changed():
            self._look(again=True)
        for pulled in self._found.pulled:
            w = whole(pulled.now().detach())
            if count := int((~w.isfinite()).sum()):
                raise ModelError(f"{pulled.param.name} has {count} of {w.numel()} entries that are not finite")
        sizes = {term: value.item() for term, value in self.terms.items()}
        if beyond := [term for term, value in sizes.items() if not math.isfinite(value)]:
            raise ModelError(f"{beyond[0]} is {sizes[beyond[0]]} over finite weights: the sum is beyond its dtype")

    # -- what is there ----------------------------------------------------------------------------------------------

    def _changed(self) -> bool:
        return self._seen is None or (isinstance(self._seen, Signature) and self._seen.changed())

    def _look(self, *, again: bool) -> None:
        """Find the weights, and lay down which term acts on which tensor."""
        found = found_in(self._source, self._select, again=again)
        entries = Entries(found.pulled, self._coefficients, self._per, self._references)
        matrices = [] if not self._of_matrices() else [(each, each.kept(self._per)) for each in found.pulled]
        self._found, self._entries, self._matrices = found, entries, matrices
        first = found.pulled[0].now() if found.pulled else torch.zeros(())
        self._device = first.device.type if torch.amp.is_autocast_available(first.device.type) else "cpu"
        self._at = first.device
        model = None if isinstance(self._source, dict) else self._source
        self._seen = True if model is None else Signature(model)
        self._trained = [] if model is None else [(w, w.requires_grad) for w in model.parameters()]

    @untraced
    def _look_outside(self) -> None:
        """Of the compiled graph, which breaks here; it is traced anew only when a weight is frozen or freed."""
        self._look(again=True)

    def _of_matrices(self) -> dict[str, float]:
        return {term: self._coefficients[term] for term in TERMS[4:] if self._coefficients[term]}

    def _set(self, term: str, value: Any) -> None:
        coefficient = 0.0 if value is None else number(value, term)
        if term == "toward" and coefficient and self._references is None:
            raise ArgumentError(f"toward={in_brief(value)}: it was absent when the penalty was made; give it there")
        anew = bool(coefficient) is not bool(self._coefficients[term])
        self._coefficients[term] = coefficient
        if anew:
            self._look(again=True)

    def _summed(self) -> Tensor:
        active = {term: self._coefficients[term] for term in ROOM if self._coefficients[term]}
        values: dict[str, Tensor] = {}
        sums = []
        if active and len(self._entries):
            value, each = total(self._entries.work, active, self._entries.tensors())
            sums.append(value)
            values.update(zip(active, each.unbind(), strict=True))
        for term, coefficient in self._of_matrices().items():
            parts = [self._of_matrix(term, pulled, kept) for pulled, kept in self._matrices]
            if parts:
                sums.append(coefficient * torch.stack([part.to(parts[0]) for part in parts]).sum())
                values[term] = sums[-1].detach()
        self.terms = {term: values[term] for term in TERMS if term in values}
        if not sums:
            return torch.zeros((), device=self._at)
        return sums[0] if len(sums) == 1 else torch.stack([each.to(sums[0].device) for each in sums]).sum()

    def _of_matrix(self, term: str, pulled: Pulled, kept: tuple[int, ...]) -> Tensor:
        w = whole(pulled.now())
        if term == "orthogonality":
            value: Tensor = orthogonality(w, kept)
            return value
        name = pulled.param.name
        of_shape, known = self._directions.get(name, (w.shape, None))
        if known is None or known.device != w.device or of_shape != w.shape:
            with torch.inference_mode(False), torch.no_grad():  # it is written to at later calls, in any mode
                at = w.detach().clone()
                _, known = spectral(at, spectral_start(at, kept), kept, iterations=START)
            self._directions[name] = w.shape, known
        value, u = spectral(w, known, kept)
        known.copy_(u.detach())
        return value

    def _told(self, by_lengths: bool) -> str:
        names = {"l2": "l2 of its lengths g"} if by_lengths else {}
        return ", ".join(f"{names.get(term, term)} {value:g}" for term, value in self._coefficients.items() if value)

    def __repr__(self) -> str:
        if self._found is None:  # a copy that has not been called
            self._look(again=True)
        count = "1 parameter" if len(self._found.pulled) == 1 else f"{len(self._found.pulled)} parameters"
        said = ", ".join(f"{term}={value:g}" for term, value in self._coefficients.items() if value)
        return f"Penalty({said or 'nothing'}: {count})"

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or a pickle, looks anew at its own model."""
        return {
            **self.__dict__,
            "_seen": None,
            "_found": None,
            "_entries": None,
            "_matrices": None,
            "_trained": [],
            "terms": {},
        }


def _uncalled(self: Penalty, *others: object) -> NoReturn:
    raise ArgumentError(f"{self!r} was not called: write loss + penalty(), with the brackets")


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "neg", "pos", "float"):
    setattr(Penalty, f"__{_name}__", _uncalled)
for _name in ("backward", "item", "detach"):
    setattr(Penalty, _name, _uncalled)
