"""What is added to the loss: a number for a tree of weights, inside jit, grad, vmap and scan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per
from normkit.jax.parts import whole
from normkit.jax.stacks import of_each_layer
from normkit.jax.targets import Target, taken
from normkit.jax.walk import walk
from normkit.ops.jax_mesh import automatic
from normkit.penalize import group, l1, l2, orthogonality, spectral, toward
from normkit.penalize.coefficients import coefficients
from normkit.penalize.terms import refuse_reference
from normkit.spectrum import spectral_start

ITERATIONS = 20  # of a start that knows nothing: a pure function keeps no vector from step to step
SCALED = "for one that changes or is traced, multiply outside: scale * nk.penalty(params, ...)"


def penalty(
    params: Any,
    *,
    l1: float | None = None,
    l2: float | None = None,
    group: float | None = None,
    toward: float | None = None,
    orthogonality: float | None = None,
    spectral: float | None = None,
    select: Any = None,
    per: Per = "out",
    reference: Any = None,
) -> jax.Array:
    """One number to add to the loss: the chosen terms over the chosen weights, each times its coefficient.

        l1=c               c sum |w|                          gradient c sign(w), 0 at 0
        l2=c               c/2 sum w^2                        gradient c w: what a coupled `weight_decay=c` adds
        group=c            c sum_g sqrt(n) |w_g|              n entries in each group g; 0 at a zero group
        toward=c           c/2 sum (w - reference)^2
        orthogonality=c    c |W W' - 1|^2                     or W'W, where W has more rows than columns
        spectral=c         c/2 sigma^2                        sigma: of the largest singular value an estimate

    params  a tree of arrays: dicts, linen's params, an equinox or nnx module, an nnx State; or one array
    select  which weights (docs: select); default: kernels
    per     what is a group, and a row of W: "out", "in", "tensor" or kept axes. Each layer of a stack has its own W
    reference  a tree like params, or {name: array}, for `toward`; a constant for derivatives

    Coefficients are numbers; 0 and None leave a term out. Nothing is divided by numbers of samples or entries; nothing
    is times lr. A weight in two parts (`nk.weight_norm`) counts as the weight: its l2 is c/2 sum g^2. An nnx variable
    in two places counts once; integers, random keys and frozen variables not at all. `sigma` is what 20 steps of power
    iteration from a fixed start find, never above the true one. First and second derivatives are finite everywhere.

    The number is of the weights' dtype, of float32 for half precision. Walks the tree while jax traces, so that the
    errors come then. Raises: ArgumentError for coefficients that are negative or no numbers, all of them absent, a
    rule that reaches nothing, complex weights, a reference that is not like the weights, unknown axes.

    >>> float(penalty({"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.ones(1)}, l2=0.5))
    6.25
    """
    terms = penalty_terms(
        params,
        l1=l1,
        l2=l2,
        group=group,
        toward=toward,
        orthogonality=orthogonality,
        spectral=spectral,
        select=select,
        per=per,
        reference=reference,
    )
    return _sum(list(terms.values()))


def penalty_terms(
    params: Any,
    *,
    l1: float | None = None,
    l2: float | None = None,
    group: float | None = None,
    toward: float | None = None,
    orthogonality: float | None = None,
    spectral: float | None = None,
    select: Any = None,
    per: Per = "out",
    reference: Any = None,
) -> dict[str, jax.Array]:
    """Each term of `penalty` by its name, times its coefficient; their sum is what `penalty` gives.

    Arguments and errors as `penalty`.

    >>> terms = penalty_terms({"kernel": jnp.array([[3.0], [-4.0]])}, l1=0.5, l2=2.0)
    >>> {name: float(value) for name, value in terms.items()}
    {'l1': 3.5, 'l2': 25.0}
    """
    given = {
        "l1": l1,
        "l2": l2,
        "group": group,
        "toward": toward,
        "orthogonality": orthogonality,
        "spectral": spectral,
    }
    numbers = coefficients(given, advice=f"; {SCALED}")
    targets = taken(params, select, "penalize")
    references = _references(reference, targets, toward if "toward" in numbers else None)
    weights = [jnp.asarray(whole(target.array)) for target in targets]

    def values(weights: list[Any], references: list[Any]) -> dict[str, Any]:
        each = list(zip(targets, weights, references, strict=True))
        return {name: value * _sum([TERMS[name](*one, per) for one in each]) for name, value in numbers.items()}

    found: dict[str, jax.Array] = automatic(values, weights, references)
    return found


def _sum(numbers: list[Any]) -> Any:
    """Without Python's 0 to begin with."""
    return sum(numbers[1:], start=numbers[0])


# --- the terms, each of (target, weight, reference, per) --------------------------------------------------------------

Term = Callable[[Target, Any, Any, Per], Any]


def _spectral(w: Any, kept: tuple[int, ...]) -> Any:
    """In a loop of jax's, which compiles one iteration and not all of them."""
    still = jax.lax.stop_gradient(w)
    u = jax.lax.fori_loop(0, ITERATIONS, lambda _, u: spectral(still, u, kept)[1], spectral_start(still, kept))
    value, _ = spectral(w, u, kept, iterations=0)
    return value


def _of_matrices(term: Callable[[Any, tuple[int, ...]], Any], target: Target, w: Any, _: Any, per: Per) -> Any:
    """Added up over the layers of a stack."""
    return jnp.sum(of_each_layer(term, target.param, w, per))


TERMS: dict[str, Term] = {
    "l1": lambda target, w, reference, per: l1(w),
    "l2": lambda target, w, reference, per: l2(w),
    "group": lambda target, w, reference, per: group(w, target.kept(per)),
    "toward": lambda target, w, reference, per: toward(w, reference),
    "orthogonality": partial(_of_matrices, orthogonality),
    "spectral": partial(_of_matrices, _spectral),
}


# --- the reference ----------------------------------------------------------------------------------------------------


def _references(reference: Any, targets: list[Target], given: Any) -> list[Any]:
    """One for each target; None for each where no term needs them.

    Raises: ArgumentError where `toward` and `reference` are not given together, or do not fit the weights.
    """
    if given is None and reference is None:
        return [None] * len(targets)
    if given is None:
        raise ArgumentError(f"reference={in_brief(reference)} is for toward=, and that is absent")
    if reference is None or isinstance(reference, str):
        raise ArgumentError(
            f"penalty(toward={given!r}, reference={in_brief(reference)}): a pure function remembers no values; give "
            "the tree itself, such as the params before training: reference=jax.tree.map(jnp.copy, params)"
        )
    found = {
        name: item.array for item in walk(reference, "reference") for name in (item.param.name, *item.param.aliases)
    }
    return [_reference(found, target) for target in targets]


def _reference(found: dict[str, Any], target: Target) -> Any:
    name = target.param.name
    if name not in found:
        raise ArgumentError(
            f"reference lacks {name} of shape {target.param.shape}; it has {', '.join(list(found)[:3])}: give a tree "
            "like params, or leave the weight out with select="
        )
    try:
        value = jnp.asarray(whole(found[name]))
        refuse_reference(target.param, value)
    except ArgumentError as error:
        raise ArgumentError(f"{name}: {error}") from None
    return value
