"""Names of variables and layers that are the same for two builds of a model in one process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

NAMELESS = re.compile(r"variable(_\d+)?", re.IGNORECASE)


def own_name(variable: Any) -> str:
    """The last part of a variable's name, without the output number; empty where the user gave none."""
    name = str(getattr(variable, "name", None) or "").rpartition("/")[2].partition(":")[0]
    return "" if NAMELESS.fullmatch(name) else name.replace(".", "_")


def layer_names(children: Sequence[Any]) -> list[str]:
    """Names of the layers inside one; those that Keras numbered by counters of the process are numbered anew."""
    stems = [_stem(child) for child in children]
    numbers: dict[str, list[int]] = {}
    for stem, number in stems:
        if number is not None:
            numbers.setdefault(stem, []).append(number)
    ranks = {stem: sorted(set(given)) for stem, given in numbers.items()}
    return [stem if number is None else _numbered(stem, ranks[stem].index(number)) for stem, number in stems]


def _stem(child: Any) -> tuple[str, int | None]:
    """The layer's name without Keras' number, and that number (0 for none); None where the user gave the name."""
    name = str(getattr(child, "name", "") or type(child).__name__)
    snake = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(child).__name__)).lower()
    own = re.fullmatch(rf"((?:forward_|backward_)?{re.escape(snake)})(?:_(\d+))?", name)
    return (name.replace(".", "_").replace("/", "."), None) if own is None else (own[1], int(own[2] or 0))


def _numbered(stem: str, number: int) -> str:
    return f"{stem}_{number}" if number else stem
