"""Numbers as they stand in the table."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exponent(value: float, digits: int) -> str:
    """Scientific, with a short exponent.

    >>> exponent(9.04e-5, 1)
    '9.0e-5'
    """
    mantissa, power = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(power)}"


def length(value: float) -> str:
    """A norm in four digits.

    >>> length(2.3049), length(0.43), length(14325.2), length(3.1e-7), length(0.0), length(float("nan"))
    ('2.305', '0.4300', '14325', '3.10e-7', '0', 'nan')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-3 <= value < 99999.5:
        return exponent(value, 2)
    return f"{value:.{max(0, 3 - math.floor(math.log10(value)))}f}"


def ratio(value: float) -> str:
    """A step's size as a share of the weight; "-" where there is none.

    >>> ratio(9.04e-5), ratio(0.0), ratio(float("nan"))
    ('9.0e-5', '0', '-')
    """
    if math.isnan(value):
        return "-"
    return "0" if value == 0 else exponent(value, 1)


def change(share: float, first: float, last: float) -> str:
    """A relative change: percent, beyond tenfold the factor, and words where there is no such share.

    >>> change(-0.013, 1.0, 0.987), change(0.0, 2.0, 2.0), change(31.0, 1.0, 32.0), change(math.inf, 0.0, 3.0)
    ('-1.3 %', '0 %', 'x 32', 'from 0')
    >>> change(math.inf, 0.7, math.inf), change(math.nan, 0.7, math.nan), change(math.nan, math.inf, 0.7)
    ('to inf', 'to nan', 'from inf')
    """
    if not math.isfinite(share):
        return _course(first, last)
    if share >= 9:
        return f"x {1 + share:.3g}"
    return "0 %" if share == 0 else f"{100 * share:+.1f} %"


def _course(first: float, last: float) -> str:
    """
    >>> _course(0.0, math.inf), _course(math.nan, 1.0), _course(math.inf, math.nan), _course(math.nan, math.nan)
    ('to inf', 'from nan', 'to nan', '-')
    """
    if math.isfinite(last):
        return f"from {first:g}"
    alike = first == last or (math.isnan(first) and math.isnan(last))
    return "-" if alike else f"to {last:g}"


def changes(shares: Sequence[float], together: float, first: float, last: float) -> str:
    """The change of a row from `first` to `last`: of folded siblings the range, where they differ by a percent or more.

    >>> changes([0.01, 0.412, 0.2], 0.22, 1.0, 1.22), changes([0.0101, 0.0102], 0.0101, 1.0, 1.0101)
    ('+1..+41 %', '+1.0 %')
    """
    finite = [share for share in shares if math.isfinite(share)]
    if len(finite) < len(shares) or not finite or max(finite) - min(finite) < 0.01:
        return change(together, first, last)
    if max(finite) >= 9:
        return f"x{1 + min(finite):.2g}..x{1 + max(finite):.2g}"
    return f"{100 * min(finite):+.0f}..{100 * max(finite):+.0f} %"


def extent(shapes: Sequence[tuple[int, ...]]) -> str:
    """
    >>> extent([(16, 1, 3, 3)]), extent([()]), extent([(2,), (3,)])
    ('16x1x3x3', 'scalar', 'various')
    """
    if len(set(shapes)) > 1:
        return "various"
    return "x".join(map(str, shapes[0])) if shapes[0] else "scalar"


def plural(count: int, noun: str) -> str:
    """
    >>> plural(1, "finding"), plural(5, "bias"), plural(1200, "step")
    ('1 finding', '5 biases', '1,200 steps')
    """
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def duration(seconds: float) -> str:
    """
    >>> duration(3.2), duration(200), duration(7300), duration(200000)
    ('3 s', '3 min', '2 h', '2 days')
    """
    for size, unit, limit in ((1, "s", 120), (60, "min", 7200), (3600, "h", 172800), (86400, "days", math.inf)):
        if seconds < limit:
            return f"{max(0, seconds) / size:.0f} {unit}"
    return ""


def ordinal(number: int) -> str:
    """
    >>> ordinal(2), ordinal(16), ordinal(32), ordinal(112), ordinal(1024)
    ('2nd', '16th', '32nd', '112th', '1,024th')
    """
    ending = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def size(count: int) -> str:
    """Bytes in units of 1024.

    >>> size(0), size(5000), size(256 << 20), size(3 << 29), size(10**16)
    ('0 bytes', '4.88 kB', '256 MB', '1.5 GB', '9,095 TB')
    """
    for power, unit in enumerate(("bytes", "kB", "MB", "GB")):
        if count < 1000 << 10 * power:
            value = count / (1 << 10 * power)
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{count / (1 << 40):,.0f} TB"
