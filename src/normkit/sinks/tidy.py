"""The rows of a recording: one per step, tensor and quantity, with a column per norm."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from normkit.types import QUANTITIES, Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

KEYS = ("step", "epoch", "tensor", "layer", "weight", "quantity")
LENGTHS = ("l1", "l2", "linf", "rms", "mean", "std")  # floats
COUNTS = ("zeros", "nonfinite")  # whole numbers: of entries
WORDS = ("tensor", "layer", "weight", "quantity")  # strings, alike in all rows of a block
HEADER = (*KEYS, *LENGTHS, *COUNTS)


class Source(Protocol):
    """What rows are made of: a `Recording`, or anything with these attributes."""

    @property
    def params(self) -> Sequence[Param]: ...
    @property
    def steps(self) -> NDArray[np.int64]: ...
    @property
    def epochs(self) -> NDArray[np.float64]: ...
    def matrix(self, norm: str = "l2", quantity: str = "weight") -> Matrix: ...


@dataclass(frozen=True, eq=False)
class Block:
    """The rows of one quantity of one tensor, steps ascending: what is alike in all of them, and the columns.

    Shapes: steps, epochs [rows]; lengths [6][rows] in the order of `LENGTHS`; counts [2][rows] in that of `COUNTS`.
        An epoch is NaN where the run did not say.
    """

    tensor: str
    layer: str
    weight: str
    quantity: str
    steps: NDArray[np.int64]
    epochs: NDArray[np.float64]
    lengths: Matrix
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.steps)


def blocks(
    source: Source,
    *,
    select: Collection[str] | None = None,
    quantities: Collection[str] = QUANTITIES,
    ordered: bool = False,
) -> Iterator[Block]:
    """All rows, a block per tensor and quantity; steps of which there is no record are left out.

    `select` holds names of the tensors wanted. The order is the model's, or with `ordered` the alphabet's, by tensor
    and then quantity.
    """
    wanted = None if select is None else set(select)
    columns = [(n, param) for n, param in enumerate(source.params) if wanted is None or param.name in wanted]
    words = [word for word in QUANTITIES if word in quantities]
    if ordered:
        columns.sort(key=lambda pair: writable(pair[1].name))
        words.sort()
    steps, epochs = source.steps, source.epochs
    # Each matrix once, all at a time: a row of sums is contiguous in the file, a tensor is not. Files have a budget.
    chosen = [n for n, _ in columns]
    values = {word: {name: source.matrix(name, word)[:, chosen].T for name in (*LENGTHS, *COUNTS)} for word in words}
    for place, (_, param) in enumerate(columns):
        for word in words:
            there = np.flatnonzero(~np.isnan(values[word]["nonfinite"][place]))
            if there.size:
                lengths, counts = (
                    np.stack([values[word][name][place][there] for name in names]) for names in (LENGTHS, COUNTS)
                )
                layer, weight = layer_and_weight(param)
                yield Block(
                    writable(param.name), layer, weight, word, steps[there], epochs[there], lengths, counts.astype(int)
                )


def numbers(group: Sequence[Block]) -> dict[str, NDArray[Any]]:
    """The columns of numbers of several blocks, one below the other; an unknown epoch is NaN."""
    steps = np.concatenate([block.steps for block in group] or [np.empty(0, np.int64)])
    columns = {"step": steps, "epoch": np.concatenate([block.epochs for block in group] or [np.empty(0)])}
    for names, part, kind in ((LENGTHS, "lengths", np.float64), (COUNTS, "counts", np.int64)):
        parts = [getattr(block, part) for block in group] or [np.empty((len(names), 0), kind)]
        columns |= dict(zip(names, np.concatenate(parts, axis=1), strict=True))
    return columns


def coded(group: Sequence[Block], name: str) -> tuple[NDArray[np.int32], list[str]]:
    """A column of words of several blocks: which word stands in each row, and the words in order of appearance."""
    words = [getattr(block, name) for block in group]
    place = {word: n for n, word in enumerate(dict.fromkeys(words))}
    return np.repeat(np.array([place[word] for word in words], dtype=np.int32), list(map(len, group))), list(place)


def layer_and_weight(param: Param) -> tuple[str, str]:
    """The name up to its last dot, and the rest; the parts of a normalized weight stay with it.

    >>> layer_and_weight(Param("h.0.attn.weight", (2, 2), "float32", "kernel"))
    ('h.0.attn', 'weight')
    >>> layer_and_weight(Param("conv.weight.g", (2, 1), "float32", "kernel", part="g"))
    ('conv', 'weight.g')
    >>> layer_and_weight(Param("scale", (), "float32", "other"))
    ('', 'scale')
    """
    name = writable(param.name)
    whole = name.removesuffix(f".{param.part}") if param.part in ("g", "v") else name
    layer = whole.rpartition(".")[0]
    return layer, name[len(layer) + 1 :] if layer else name


def writable(name: str) -> str:
    r"""The name as UTF-8 can carry it: half a surrogate pair, which a damaged file may hold, becomes its code.

    >>> writable("größe"), writable("a\ud800")
    ('größe', 'a\\ud800')
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
