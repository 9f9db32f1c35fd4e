"""Numbers that are logged beside a record: here already, or still on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from normkit.errors import ArgumentError
from normkit.recording.about import warn_once
from normkit.recording.packet import Late, Packet

One = Callable[[str, Any], Any]  # (name, value) -> a float or a Late of one number; ArgumentError for anything else


def sorted_out(scalars: Mapping[str, Any], one: One) -> tuple[dict[str, float], dict[str, Late]]:
    """Those that are here as floats, those still on a device as Lates; what is no number is said and left out."""
    numbers: dict[str, float] = {}
    lates: dict[str, Late] = {}
    for name, value in scalars.items():
        try:
            number = one(name, value)
        except ArgumentError as error:
            warn_once(f"{error}; it is not recorded")
            continue
        if isinstance(number, float):
            numbers[name] = number
        else:
            lates[name] = number
    return numbers, lates


def attach(packet: Packet, numbers: Mapping[str, float], lates: Mapping[str, Late]) -> dict[str, float]:
    """Put them on their record; the result is what must be amended, as the record is written already."""
    if packet.seq is None:
        packet.scalars.update(numbers)
        packet.late_scalars.update(lates)
        return {}
    return {**numbers, **{name: float(late.wait()[0].reshape(-1)[0]) for name, late in lates.items()}}
