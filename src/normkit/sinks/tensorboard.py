"""Curves for TensorBoard: one file of events per run, in a folder of its own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from normkit.errors import ArgumentError
from normkit.sinks.events import Template, checksum, framed, start, version
from normkit.sinks.slices import Slice
from normkit.sinks.whole import write_whole
from normkit.types import Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

FULL = 1000  # events, after which every second step is left out; after as many more, three of four; and so on
SUFFIX = ".normkit"
WORDS = {"weight": "", "grad": "grad/", "update": "update/"}  # in a tag, between the tensor's name and the norm's
FIGURES = "normkit/"

Select = Callable[[Sequence[Param]], set[str]]

_numbers = count()  # of the files that this process began


class EventFile:
    """Writes one event per slice, with the tags `conv1/weight/l2`, `conv1/weight/grad/l2`, `loss`, `normkit/weight_l2`.

    norms    names of norms
    select   gives the names of the tensors that shall have curves; None: all
    most     of these so many have some, those with the most entries; None: all
    thinned  leave steps out of a long run, as FULL says; its last step is there in any case
    resumed  the first slice goes on with an older run: TensorBoard forgets what it knows of that step and later ones

    The file has a name that no other writer takes. It is made with the first slice, or by `begin`; one into which
    nothing came is taken away at the end.
    Raises: ArgumentError where google-crc32c is not installed.
    """

    figures = True

    def __init__(
        self,
        folder: Path,
        *,
        norms: Sequence[str] = ("l2",),
        select: Select | None = None,
        most: int | None = None,
        thinned: bool = True,
        resumed: bool = False,
    ) -> None:
        self.folder, self.norms = folder, tuple(norms)
        self._select, self._most, self._thinned, self._resumed = select, most, thinned, resumed
        self._crc = checksum()
        self._file: BinaryIO | None = None
        self._curves: _Curves | None = None
        self._skipped: Slice | None = None
        self._seen, self._stride = 0, 1

    def begin(self) -> None:
        """Make the file now, so that others see that the folder is taken. Raises: OSError."""
        self._file = self._begun(time.time())

    def put(self, part: Slice) -> None:
        """Write the event of one step, or leave the step out; scalars that come alone belong to the step before."""
        if part.norms:
            self._seen += 1
            self._skipped = part
            if self._seen % self._stride and self._thinned:
                return
            if self._seen == FULL * self._stride:
                self._seen, self._stride = 0, 2 * self._stride
        elif self._skipped is not None:
            return
        self._skipped = None
        self._write(part)

    def flush(self) -> None:
        """Each event is in the file already."""

    def close(self) -> None:
        """Write the last step, if it was left out, and close the file."""
        if self._skipped is not None:
            self._write(self._skipped)
        if self._file is not None:
            self._file.close()
            if self._curves is None:
                with suppress(OSError):
                    os.unlink(self._file.name)

    def _write(self, part: Slice) -> None:
        if self._curves is None or not self._curves.fit(part):
            self._curves = _Curves(part, self._select, self._most)
        event = self._curves.event(part)
        if self._file is None:
            self._file = self._begun(part.wall)
        if self._resumed:
            write_whole(self._file, framed(start(part.wall, part.step), self._crc))
            self._resumed = False
        write_whole(self._file, framed(event, self._crc))

    def _begun(self, wall: float) -> BinaryIO:
        """A new file, of a name as TensorBoard's own writers choose it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        named = (f"{int(time.time()):010d}", socket.gethostname(), str(os.getpid()), str(next(_numbers)))
        file = (self.folder / f"events.out.tfevents.{'.'.join(named)}{SUFFIX}").open("xb", buffering=0)
        write_whole(file, framed(version(wall), self._crc))
        return file


class _Curves:
    """The tags of slices that hold the same things, and where their numbers stand."""

    def __init__(self, part: Slice, select: Select | None, most: int | None) -> None:
        self._params, self._held = part.params, _held(part)
        chosen = largest(part.params, _selected(part.params, select), most)
        self._places = {word: chosen[there[chosen]] for word, there in part.there.items()}
        names = [param.name.replace(".", "/") for param in part.params]
        curves = [
            f"{names[place]}/{WORDS[word]}{kind}"
            for word, kinds in part.norms.items()
            for kind in kinds
            for place in self._places[word]
        ]
        self._template = Template([*curves, *part.scalars, *(FIGURES + name for name in part.figures)])

    def fit(self, part: Slice) -> bool:
        """Does the slice hold the same things?"""
        return part.params is self._params and _held(part) == self._held

    def event(self, part: Slice) -> bytes:
        curves = [values[self._places[word]] for word, kinds in part.norms.items() for values in kinds.values()]
        alone = [*part.scalars.values(), *part.figures.values()]
        return self._template.event(part.wall, part.step, np.concatenate([*curves, np.array(alone, dtype=np.float64)]))


def _held(part: Slice) -> tuple[object, ...]:
    columns = tuple((word, tuple(kinds), part.there[word].tobytes()) for word, kinds in part.norms.items())
    return columns, tuple(part.scalars), tuple(part.figures)


def _selected(params: Sequence[Param], select: Select | None) -> Sequence[int]:
    """The places that shall have curves; what a rule meant may have left the model in mid-run."""
    if select is None:
        return range(len(params))
    try:
        names = select(params)
    except ArgumentError:
        return ()
    return [place for place, param in enumerate(params) if param.name in names]


def largest(params: Sequence[Param], places: Sequence[int], most: int | None) -> NDArray[np.intp]:
    """Those of the places whose tensors have the most entries, in the model's order."""
    found = np.array(places, dtype=np.intp)
    if most is None or len(found) <= most:
        return found
    sizes = np.array([params[place].count for place in places])
    return np.sort(found[np.argsort(-sizes, kind="stable")[:most]])


def begun_by_normkit(folder: Path) -> bool:
    """Does the folder hold the curves of another run?"""
    return any(folder.glob(f"*tfevents*{SUFFIX}"))
