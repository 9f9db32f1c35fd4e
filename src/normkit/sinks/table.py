"""A table that grows while a model trains: the rows of `tidy` in a CSV file, a step at a time."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import BinaryIO

from normkit.errors import ArgumentError, FileError
from normkit.sinks.slices import Slice
from normkit.sinks.tidy import COUNTS, HEADER, LENGTHS, layer_and_weight, writable
from normkit.sinks.whole import write_whole
from normkit.store.paths import shown
from normkit.types import Param

HEAD = (",".join(HEADER) + "\n").encode()


class Table:
    """Writes the rows of each slice behind those of earlier steps, all at once: never half a line, nothing to flush.

    A step that comes again replaces what the file says of it and of later ones, and so does the first step of a run
    that goes on with its file (`resumed`).

    Raises: ArgumentError where a file to go on with is none of these. FileError where it cannot be written.
    """

    norms: tuple[str, ...] = (*LENGTHS, *COUNTS)
    figures = False

    def __init__(self, path: Path, *, resumed: bool = False) -> None:
        self.path = path
        self._words: tuple[object, list[tuple[str, str, str]]] = ((), [])
        self._last = -1
        self._file: BinaryIO = _opened(path, resumed=resumed)
        try:
            self._end = self._begin = self._start(resumed=resumed)
        except BaseException:
            self._file.close()
            raise
        self._resumed = resumed

    def put(self, part: Slice) -> None:
        """Write the rows of one step."""
        if not part.norms:
            return
        if self._resumed:
            self._cut(before(self._whole_lines(), part.step, len(HEAD)))
            self._resumed = False
        elif part.step == self._last:
            self._cut(self._begin)
        self._begin, self._last = self._end, part.step
        self._append(self._text(part))

    def flush(self) -> None:
        """All rows are in the file already."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _start(self, *, resumed: bool) -> int:
        size = self._file.seek(0, os.SEEK_END)
        if size == 0:
            self._end = 0
            self._append(HEAD)
            return self._end
        self._file.seek(0)
        if self._file.read(len(HEAD)) != HEAD:
            raise ArgumentError(
                f"csv={str(self.path)!r} is not a table that normkit wrote; give the run another one to go on with"
            )
        return size

    def _whole_lines(self) -> Iterator[bytes]:
        self._file.seek(len(HEAD))
        while line := self._file.readline():
            yield line

    def _text(self, part: Slice) -> bytes:
        text = StringIO()
        if self._words[0] is not part.params:
            self._words = (part.params, [_words(param) for param in part.params])
        returns = any("\r" in words[0] for words in self._words[1])  # before Python 3.13 not quoted for themselves
        writer = partial(csv.writer, text, lineterminator="\n")
        wanted = writer(quoting=csv.QUOTE_NONNUMERIC) if returns else writer()
        wanted.writerows(_rows(part, self._words[1]))
        return text.getvalue().encode()

    def _append(self, text: bytes) -> None:
        """Write all of it, or nothing."""
        self._file.seek(self._end)
        try:
            self._end += write_whole(self._file, text)
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise

    def _cut(self, end: int) -> None:
        self._file.truncate(end)
        self._end = end


def before(lines: Iterable[bytes], step: int, begin: int) -> int:
    """Where the rows of `step` and later ones begin, in a table whose rows begin at `begin`: the rest stays.

    A line that does not end, which a killed process left, goes too. A line break inside quotes ends no row.

    >>> before([b"0,,a\\n", b"5,,a\\n", b"5,,b"], 3, 100), before([b"0,,a\\n", b"5,,a\\n", b"5,,b"], 9, 100)
    (105, 110)
    """
    place, inside = begin, False
    kept = begin
    for line in lines:
        if not inside and _step_of(line) >= step:
            return kept
        inside ^= bool(line.count(b'"') % 2)
        place += len(line)
        if not inside and line.endswith(b"\n"):
            kept = place
    return kept


def _step_of(line: bytes) -> float:
    found = line.partition(b",")[0]
    return int(found) if found.isdigit() else float("-inf")


def _words(param: Param) -> tuple[str, str, str]:
    return (writable(param.name), *layer_and_weight(param))


def _rows(part: Slice, words: list[tuple[str, str, str]]) -> Iterator[tuple[object, ...]]:
    """The rows of one step: tensor by tensor, the quantities in the house's order."""
    there = {word: part.there[word].tolist() for word in part.norms}
    rows = {
        word: list(zip(*(kinds[name].tolist() for name in (*LENGTHS, *COUNTS)), strict=True))
        for word, kinds in part.norms.items()
    }
    for place, named in enumerate(words):
        for word, values in rows.items():
            if there[word][place]:
                *lengths, zeros, nonfinite = values[place]
                yield (part.step, part.epoch, *named, word, *lengths, int(zeros), int(nonfinite))


def _opened(path: Path, *, resumed: bool) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("r+b" if resumed else "x+b", buffering=0)
    except OSError as error:
        raise FileError(f"csv={shown(path)!r} cannot be written ({error.strerror}); give another path") from None
