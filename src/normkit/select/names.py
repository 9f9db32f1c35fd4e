"""Names that are given once."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def unused(name: str, taken: Collection[str], *, other: str | None = None) -> str:
    """`name`, or where it is taken `other`, or `other~2`, `other~3`, ...; without another, `name~2`, `name~3`, ..."""
    if name not in taken:
        return name
    stem = name if other is None else other
    candidate, count = stem, 1
    while candidate in taken:
        count += 1
        candidate = f"{stem}~{count}"
    return candidate


def distinct(names: Iterable[str]) -> list[str]:
    """The same names, each that comes again as `name~2`, `name~3`, ..."""
    taken: dict[str, None] = {}
    for name in names:
        taken[unused(name, taken)] = None
    return list(taken)
