"""The rows of `pulled_methods`: every term, step and decay as a function of one weight, with its oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import pulled
from normal_methods import drawn, kept_of
from normkit.constrain import hold, max_norm, min_max_norm, spectral_cap, unit_norm
from normkit.decay import coupled, decayed
from normkit.penalize import group, group_threshold, l1, l2, orthogonality, soft_threshold, spectral, toward

OTHER = drawn((4, 3, 5), seed=7)  # a reference, and an update


# -- the terms ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """w -> one number: as a function, its oracle, the gradient of that, and the power of a scale that it goes with."""

    name: str
    apply: Callable  # (library's array, per, NumPy array -> library's, the u of w)
    exact: Callable  # (NumPy array, kept)
    gradient: Callable
    power: int | None = None
    second: bool = True  # its second derivative is that of the gradient; spectral takes u and v as constants


def like(w):
    """A reference with the shape of w."""
    return np.resize(OTHER, np.shape(w))


def leading(w, per):
    """The first left singular vector, with the shape that `spectral` wants."""
    kept = kept_of(per, np.ndim(w))
    u = np.ones(max(len(pulled.matrix(w, kept)), 1))
    if np.size(w) and np.isfinite(w).all():
        u = np.linalg.svd(pulled.matrix(w, kept))[0][:, 0]
    ordered = u[: len(pulled.matrix(w, kept))].reshape([np.shape(w)[axis] for axis in kept])
    return ordered.reshape([size if axis in kept else 1 for axis, size in enumerate(np.shape(w))])


TERMS = [
    Term(
        "l1", lambda w, per, *_: l1(w), lambda w, kept: pulled.penalty_l1(w), lambda w, kept: pulled.gradient_l1(w), 1
    ),
    Term(
        "l2", lambda w, per, *_: l2(w), lambda w, kept: pulled.penalty_l2(w), lambda w, kept: pulled.gradient_l2(w), 2
    ),
    Term("group", lambda w, per, *_: group(w, per), pulled.penalty_group, pulled.gradient_group, 1),
    Term(
        "toward",
        lambda w, per, made, _: toward(w, made(like(w))),
        lambda w, kept: pulled.penalty_toward(w, like(w)),
        lambda w, kept: pulled.gradient_toward(w, like(w)),
    ),
    Term(
        "orthogonality",
        lambda w, per, *_: orthogonality(w, per),
        pulled.penalty_orthogonality,
        pulled.gradient_orthogonality,
    ),
    Term(
        "spectral",
        lambda w, per, made, start: spectral(w, made(start), per)[0],
        pulled.penalty_spectral,
        pulled.gradient_spectral,
        2,
        second=False,
    ),
]


# -- the steps ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """w -> w: as a function, its oracle, and what is true of the lengths (or singular values) that it leaves."""

    name: str
    apply: Callable  # (library's array, per, NumPy array -> library's, scale of the limit)
    exact: Callable  # (NumPy array, kept, scale of the limit)
    within: Callable | None = None  # (lengths, slack) -> whether they are allowed
    by_group: bool = True
    twice: bool = True  # a second application changes no bit
    margin: float = 2.0  # how many roundings of its dtype it may aim below its limit
    measure: Callable = pulled.lengths


LIMITS = [
    Step(
        "max_norm",
        lambda w, per, _, times: max_norm(w, 1.5 * times, per),
        lambda w, kept, times: pulled.max_norm(w, 1.5 * times, kept),
        lambda length, _: length <= 1.5,
    ),
    Step(
        "unit_norm",
        lambda w, per, _, times: hold(w, times, per) if times != 1 else unit_norm(w, per),
        lambda w, kept, times: pulled.hold(w, times, kept),
        lambda length, slack: abs(length - 1) <= slack,
    ),
    Step(
        "min_max_norm",
        lambda w, per, _, times: min_max_norm(w, (1.9 * times, 2.1 * times), per),
        lambda w, kept, times: pulled.min_max_norm(w, (1.9 * times, 2.1 * times), kept),
        lambda length, _: (length >= 1.9) & (length <= 2.1),
    ),
    Step(
        "hold",
        lambda w, per, _, times: hold(w, 3.0 * times, per),
        lambda w, kept, times: pulled.hold(w, 3.0 * times, kept),
        lambda length, slack: abs(length - 3) <= 3 * slack,
    ),
    Step(
        "spectral_cap",
        lambda w, per, _, times: spectral_cap(w, 1.5 * times, per),
        lambda w, kept, times: pulled.spectral_cap(w, 1.5 * times, kept),
        lambda sigma, _: sigma <= 1.5,
        by_group=False,
        margin=40.0,
        measure=pulled.sigmas,
    ),
]
THRESHOLDS = [
    Step(
        "soft_threshold",
        lambda w, per, _, times: soft_threshold(w, 0.5 * times),
        lambda w, kept, times: pulled.soft_threshold(w, 0.5 * times),
        twice=False,
    ),
    Step(
        "group_threshold",
        lambda w, per, _, times: group_threshold(w, 0.5 * times, per),
        lambda w, kept, times: pulled.group_threshold(w, 0.5 * times, kept),
        twice=False,
    ),
]


def _decay(kind, **more):
    given = {"lr": 0.25, "lr_ref": 0.5, "factor": 0.75}

    def apply(w, per, made, times):
        arrays = {name: made(like(w)) for name in ("update", "reference") if name in more}
        length = {"length": 2.0 * times, "per": per} if "length" in more else {}
        return decayed(w, 0.5, kind=kind, **given, **arrays, **length)

    def exact(w, kept, times):
        arrays = {name: like(w) for name in ("update", "reference") if name in more}
        length = {"length": 2.0 * times, "kept": kept} if "length" in more else {}
        return pulled.shrunk(w, kind, 0.5, **given, **arrays, **length)

    return Step(" ".join([kind, *more]), apply, exact, twice=False)


DECAYS = [
    _decay("decoupled"),
    _decay("independent"),
    _decay("corrected"),
    _decay("cautious", update=True),
    _decay("toward", reference=True),
    _decay("toward", length=True),
    Step(
        "l2",
        lambda w, per, made, times: coupled(made(like(w)), w, 0.5),
        lambda w, kept, times: like(w) + 0.5 * pulled.wide(w),
        twice=False,
    ),
]
FREE = [row for row in DECAYS if "reference" not in row.name and row.name != "l2"]  # a power of two goes through
