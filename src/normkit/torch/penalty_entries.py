"""The tensors that a penalty's entrywise terms act on, one entry each, in the order of their `Work`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from normkit.groups import Per
from normkit.torch.fused import runs
from normkit.torch.penalty_found import Pulled
from normkit.torch.penalty_work import ROOM, Work
from normkit.torch.references import References
from normkit.torch.shards import Groups, cut_axes, groups_of, is_sharded, part_here, whole


@dataclass(frozen=True)
class Entry:
    """Some terms on one tensor: a weight as it is or as it is worked out, its part in this process, or its lengths."""

    pulled: Pulled
    terms: frozenset[str]
    kept: tuple[int, ...] = ()
    reference: Tensor | None = None
    groups: Groups = ()
    tensor: Tensor | None = None  # where it is a tensor that stays
    whole: bool = False

    def now(self) -> Tensor:
        """The tensor, through which derivatives reach the parameters."""
        if self.tensor is not None:
            return self.tensor
        w = self.pulled.now()
        if not is_sharded(w):
            return w
        return part_here(w) if not self.whole and runs() else whole(w)


class Entries:
    """All entries for the terms whose coefficient is not 0.

    Raises: ArgumentError where a group or a reference does not fit, with the weight's name.
    """

    def __init__(
        self, pulled: Sequence[Pulled], coefficients: Mapping[str, float], per: Per, references: References | None
    ) -> None:
        active = frozenset(term for term in ROOM if coefficients[term])
        self._all = [entry for each in pulled for entry in _of(each, active, per, references)]
        self.work = Work(
            [entry.terms for entry in self._all],
            [entry.kept for entry in self._all],
            [entry.reference for entry in self._all],
            [entry.groups for entry in self._all],
        )
        self._lasting = [entry.tensor for entry in self._all if entry.tensor is not None]

    def __len__(self) -> int:
        return len(self._all)

    def tensors(self) -> list[Tensor]:
        """The tensors now."""
        return self._lasting if len(self._lasting) == len(self._all) else [entry.now() for entry in self._all]


def _of(pulled: Pulled, active: frozenset[str], per: Per, references: References | None) -> Iterator[Entry]:
    if pulled.lengths is not None and "l2" in active:
        active = active - {"l2"}
        sharded = is_sharded(pulled.lengths)
        parts = Pulled(pulled.param, pulled.lengths)
        yield Entry(parts, frozenset({"l2"}), (), None, groups_of(pulled.lengths), None if sharded else pulled.lengths)
    if not active:
        return
    w = pulled.now()
    kept = pulled.kept(per) if "group" in active else ()
    reference = None
    if "toward" in active and references is not None:
        reference = references.of((pulled.param.name, *pulled.param.aliases), w)
    if "group" in active and not cut_axes(w) <= set(kept):  # a group lies in several processes
        active = active - {"group"}
        yield Entry(pulled, frozenset({"group"}), kept, whole=True)
    if active:
        yield Entry(pulled, active, kept, reference, groups_of(w), None if is_sharded(w) else pulled.tensor)
