"""Names and numbers in the sentences of findings."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 3  # so many tensors are named, the rest is counted


def listed(names: Sequence[str], named: int = NAMED) -> str:
    """The names as a person would say them.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    >>> listed(["a", "b"])
    'a, b'
    """
    if len(names) <= named + 1:  # "and 1 more" is no shorter than the name
        return ", ".join(names)
    return f"{', '.join(names[:named])} and {len(names) - named} more"


def number(value: float) -> str:
    """Two digits, as short as it gets.

    >>> number(1.23e-8), number(0.0063), number(120.0), number(0.0)
    ('1.2e-8', '0.0063', '120', '0')
    """
    text = f"{value:.2g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        power = int(exponent)
        return f"{value:,.0f}" if 0 <= power < 6 else f"{mantissa}e{power}"
    return text


def tensors(count: int) -> str:
    """
    >>> tensors(1), tensors(1200)
    ('1 tensor', '1,200 tensors')
    """
    return f"{count:,} tensor{'s' * (count != 1)}"


def verb(names: Sequence[str], one: str, many: str) -> str:
    """The form of a verb that agrees with the number of names.

    >>> verb(["a"], "has", "have"), verb(["a", "b"], "has", "have")
    ('has', 'have')
    """
    return one if len(names) == 1 else many
