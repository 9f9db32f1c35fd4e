"""The weight decay for a wish: how fast old values are forgotten, how long weights become, how far a step turns them.

With delta the share of a weight that a step takes and u the optimizer's direction (w <- (1 - delta) w - lr u), where
noise in the gradient and decay are in balance

    |w|^2 = lr^2 E|u|^2 tau / (2 delta)          |dw| / |w| = sqrt(2 delta / tau)          1 / delta steps to forget

tau = 1 + 2 sum_k corr(u_t, u_t+k): for how many steps a direction is kept.
"""

from __future__ import annotations

from typing import Any

from normkit.decay.convert import below_one, number
from normkit.decay.kinds import checked_kind, share
from normkit.errors import ArgumentError

KNOWN = ("decoupled", "independent", "corrected")  # kinds that take the same share of every weight


def solve_decay(
    *,
    lr: float,
    timescale: float | None = None,
    length: float | None = None,
    update_ratio: float | None = None,
    kind: str = "decoupled",
    lr_ref: float | None = None,
    count: int | None = None,
    beta1: float = 0.9,
    tau: float | None = None,
    rms: float | None = None,
) -> float:
    """The weight decay with which a group of weights gets what is wished for: one of three.

        timescale     delta = 1 / timescale                  lambda = 1 / (lr timescale) when decoupled
        length        delta = lr^2 count rms^2 tau / (2 length^2)
                      lambda = lr count / (2 length^2) for Adam's kind of direction, whatever beta1 is
        update_ratio  delta = tau update_ratio^2 / 2         tau = (1 + beta1) / (1 - beta1) unless it is given

    The first holds for every weight. The others are where noise in the gradient leads, after some 1 / delta steps: to
    3 % for AdamW on a layer whose output does not depend on its scale, not at all for one with a strong signal.

    Shapes: `count` is the number of entries whose length is meant, such as a row's or the tensor's.
    Units:  `timescale` in optimizer steps: of the weights that were there, 1/e is left after it. `length` in weight
        space (l2). `update_ratio` |dw| / |w| of one step. `rms` of the direction u, before lr; without it, Adam's under
        noise, sqrt((1 - beta1) / (1 + beta1)). What is found is for `kind` at the rate `lr`: per step, never per token.
    Raises: ArgumentError unless exactly one wish is given; for a kind that takes more of some weights than of others;
        where a number is missing or out of range; where a step would have to take a whole weight.
    Source: Kosson et al. 2023, arXiv:2305.17212 (equilibrium); Wang & Aitchison 2024, arXiv:2405.13698 (timescale).

    >>> solve_decay(lr=0.001, timescale=10_000)
    0.1
    >>> round(solve_decay(lr=0.001, length=2.0, count=800), 12)
    0.1
    """
    _refuse_kind(checked_kind(kind).name)
    lr = number(lr, "lr", above=0.0)
    tau = (1 + below_one(beta1, "beta1")) / (1 - beta1) if tau is None else number(tau, "tau", above=0.0)
    wishes: dict[str, Any] = {"timescale": timescale, "length": length, "update_ratio": update_ratio}
    name = _only(wishes)
    wish = number(wishes[name], name, above=0.0)
    kept = 1.0 if rms is None else number(rms, "rms", above=0.0) ** 2 * tau  # rms^2 tau is 1 for Adam's
    if name == "timescale":
        delta = 1 / wish
    elif name == "update_ratio":
        delta = tau * wish**2 / 2
    else:
        delta = lr**2 * _entries(count, wish) * kept / (2 * wish**2)
    if not delta < 1:
        raise ArgumentError(
            f"{name}={wish:g}: each step would have to take {delta:g} times the weight; expected below 1"
        )
    return float(delta / share(kind, 1.0, lr=lr, lr_ref=lr_ref))


def _refuse_kind(kind: str) -> None:
    if kind not in KNOWN:
        raise ArgumentError(
            f"kind={kind!r} does not take the same share of every weight, so no number can be told beforehand; "
            f"expected one of {', '.join(map(repr, KNOWN))}"
        )


def _only(wishes: dict[str, Any]) -> str:
    """The name of the only wish that was given."""
    given = [name for name, wish in wishes.items() if wish is not None]
    if len(given) != 1:
        said = f"{' and '.join(given)} were" if given else "nothing was"
        raise ArgumentError(f"{said} given; expected exactly one of {', '.join(f'{name}=' for name in wishes)}")
    return given[0]


def _entries(count: Any, wish: float) -> float:
    if count is None:
        raise ArgumentError(f"length={wish:g} needs count=, the number of entries whose length is meant")
    return number(count, "count", least=1.0)
