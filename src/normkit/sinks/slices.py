"""One step of a recording with all its tensors: what live sinks and curves are fed with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from normkit.sinks import tidy
from normkit.types import Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

    Floats = NDArray[np.float64]

MOST_CURVES = 20


@dataclass(frozen=True, eq=False)
class Slice:
    """The norms of every tensor at one step.

    norms    quantity -> name of a norm -> [tensors]; what was not there is NaN
    there    quantity -> [tensors]: was there such a tensor? A norm may be NaN where there was one
    scalars  what was logged (loss, lr)
    figures  a few numbers for all tensors together

    A slice may hold scalars alone: those that came after the rest had gone.
    """

    step: int
    epoch: int | None
    wall: float
    params: Sequence[Param]
    norms: Mapping[str, Mapping[str, Floats]]
    there: Mapping[str, NDArray[np.bool_]]
    scalars: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


def summary(part: Slice) -> dict[str, float]:
    """The figures and the scalars, up to MOST_CURVES of them in all."""
    return dict(list({**part.figures, **part.scalars}.items())[:MOST_CURVES])


class Sink(Protocol):
    """Something that takes slices, in the order of their steps; a step may come a second time, whole or scalars alone.

    norms    the norms it takes
    figures  does it take figures?
    """

    norms: tuple[str, ...]
    figures: bool

    def put(self, part: Slice) -> None:
        """Take the next slice."""

    def flush(self) -> None:
        """Let others see everything up to here."""

    def close(self) -> None:
        """Nothing more comes."""


class Source(tidy.Source, Protocol):
    """What slices are cut from: a `Recording`, or anything with these attributes."""

    @property
    def walls(self) -> Floats: ...
    @property
    def scalar_names(self) -> Sequence[str]: ...
    def scalar(self, name: str) -> Floats: ...


def slices(
    source: Source,
    norms: Sequence[str],
    nonfinite: Mapping[str, Matrix],
    *,
    select: set[str] | None = None,
    figures: Iterable[Mapping[str, float]] = repeat(MappingProxyType({})),
) -> Iterator[Slice]:
    """All steps of a recording.

    nonfinite  of each quantity that is wanted, the counts of non-finite entries, as `source.matrix` gives them: NaN
               where there was no tensor
    select     the names of the tensors wanted
    figures    of each step
    """
    columns = [n for n, param in enumerate(source.params) if select is None or param.name in select]
    params = [source.params[n] for n in columns]
    of = {word: {kind: source.matrix(kind, word)[:, columns] for kind in norms} for word in nonfinite}
    there = {word: ~np.isnan(matrix[:, columns]) for word, matrix in nonfinite.items()}
    logged = {name: source.scalar(name).tolist() for name in source.scalar_names}
    heads = zip(source.steps.tolist(), source.epochs.tolist(), source.walls.tolist(), strict=True)
    for row, ((step, epoch, wall), found) in enumerate(zip(heads, figures, strict=False)):
        yield Slice(
            step,
            None if np.isnan(epoch) else int(epoch),
            wall,
            params,
            {word: {kind: matrix[row] for kind, matrix in kinds.items()} for word, kinds in of.items()},
            {word: matrix[row] for word, matrix in there.items()},
            {name: values[row] for name, values in logged.items() if not np.isnan(values[row])},
            found,
        )
