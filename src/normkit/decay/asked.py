"""What a decay was asked for besides its coefficient, checked against its kind."""

from __future__ import annotations

from typing import Any

from normkit.asked import number
from normkit.decay.kinds import KINDS, Kind, checked_kind
from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per


def checked_request(kind: object, *, lr_ref: Any, reference: Any, length: Any, per: Per) -> Kind:
    """The kind that is named, once what stands beside it is what that kind has a use for.

    Raises: ArgumentError for an unknown kind, for `lr_ref`, `reference` or `length` where the kind has no use for it or
        that are no values of theirs, for "toward" without one of its two, and for `per` without a length.
    """
    found = checked_kind(kind)
    _refuse_idle(found.name, "lr_ref", lr_ref, found.needs_ref)
    for name, value in (("reference", reference), ("length", length)):
        _refuse_idle(found.name, name, value, found.name == "toward")
    if found.name == "toward":
        _refuse_aim(reference, length)
    if length is None and per != "tensor":
        raise ArgumentError(
            f"per={in_brief(per)}: only a length has groups, as in kind='toward', length=1.0, per='out'"
        )
    return found


def _refuse_idle(kind: str, name: str, value: object, used: bool) -> None:
    if value is not None and not used:
        kinds = [
            each.name for each in KINDS.values() if (each.needs_ref if name == "lr_ref" else each.name == "toward")
        ]
        raise ArgumentError(
            f"{name}={in_brief(value)} is of no use with kind={kind!r}; it belongs to {' and '.join(map(repr, kinds))}"
        )


def _refuse_aim(reference: Any, length: Any) -> None:
    if (reference is None) == (length is None):
        given = "neither was" if reference is None else "both were"
        raise ArgumentError(
            f"kind={'toward'!r} needs one of reference= and length=, and {given} given; as in reference='initial'"
        )
    if isinstance(reference, str) and reference != "initial":
        raise ArgumentError(f"reference={reference!r}: expected 'initial', or arrays by name")
    if length is not None and length != "initial":
        number(length, "length", advice=", or 'initial'")
