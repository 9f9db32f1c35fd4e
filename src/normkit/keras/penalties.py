"""`add_penalty` and `remove_penalty`: terms added to the loss that `fit` minimizes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from normkit.errors import ArgumentError, ModelError
from normkit.groups import Per
from normkit.keras.effective import regularizer_of, set_regularizer, value_of, whole_of
from normkit.keras.inside import is_logged_besides, layers_in, log_besides, log_no_more, traced_again, weights_of
from normkit.keras.penalized import kept_of, named, references_of, taken
from normkit.keras.regularizer import TERMS, Penalty
from normkit.keras.walk import Located, walk
from normkit.penalize.coefficients import coefficients

MARK = "normkit>Penalty"  # as a configuration calls the class
LOGGED = "penalty_"  # before the name of a term, in logs
SHARED = {"_kernel_regularizer": "kernel", "_bias_regularizer": "bias"}  # attention: one for all layers in it


class Put(NamedTuple):
    """A regularizer that is to stand on a weight, and the attribute of its layer that saves it, if there is one."""

    located: Located
    attribute: str | None
    regularizer: Any


def add_penalty(
    model: Any,
    *,
    l1: float | None = None,
    l2: float | None = None,
    group: float | None = None,
    toward: float | None = None,
    orthogonality: float | None = None,
    spectral: float | None = None,
    select: Any = None,
    per: Per = "out",
    reference: Any = "initial",
    log: bool = False,
) -> list[str]:
    """Add terms to the loss that `fit` minimizes, one number per weight in `model.losses`; the names of the weights.

        l1             lambda sum |w|                      group     lambda sum_g sqrt(n) |w_g|
        l2             lambda/2 sum w^2                    toward    lambda/2 sum (w - reference)^2
        orthogonality  lambda |W W' - 1|_F^2               spectral  lambda/2 sigma^2, sigma the largest singular value

    model      a Keras model or layer that is built
    select     which weights (docs: select); default: kernels. Those not trained are left out
    per        the groups of `group`, and the rows of W: "out", "in", "tensor", or the axes kept
    reference  of `toward`: "initial", the weights as they are now, or {name: array}
    log        let `fit` and `evaluate` log each term of the whole model, as `penalty_l2`: the mean over the epoch. Of
               this object: `load_model` and `clone_model` give one that does not

    `l2=lambda` pulls as the coupled `weight_decay=lambda` of an optimizer; Keras' `L2(l)` is `l2=2 * l`. None of them
    is divided by the number of entries or samples, and none is times lr: the optimizer multiplies the gradient by it.
    A regularizer that a weight has is kept, the penalty added; a second call adds once more. Of a normalized weight
    the effective one is meant. sigma is found from below by 10 steps of power iteration, from the same start each time:
    Keras gives a regularizer no state.

    It is set on the layer and on the variable, and what was compiled is compiled anew (`fit` of a model around this one
    excepted: call this on the outermost). `save`, `load_model` and `clone_model` keep it, where the layer is saved with
    its regularizer; where it is not, as with a layer or model of one's own class, a warning says so. A reference is
    saved as text in the configuration.

    Raises: ArgumentError for what is no model, coefficients that are no finite numbers of at least 0 or none, a rule
    that reaches nothing, axes that a layer does not say, a reference that does not fit; ModelError for a model without
    weights yet. The model is then as it was.
    Source: Yuan & Lin 2006 (group); Yoshida & Miyato 2017, arXiv:1705.10941 (spectral).
    """
    if log and not isinstance(model, keras.Model):
        raise ArgumentError(f"log={log} is for what `fit` logs, and {type(model).__name__} is a layer: give the model")
    terms = coefficients(named(l1, l2, group, toward, orthogonality, spectral))
    chosen = taken(model, select)
    references = references_of({each.param.name: each.variable for each in chosen}, reference, terms)
    puts = [_put(each, terms, kept, references) for each, kept in zip(chosen, kept_of(chosen, terms, per), strict=True)]
    for put in puts:
        _set(put)
    _set_shared(model, puts)
    if log or is_logged_besides(model):
        log_besides(model, lambda: _by_term(model), _logged_names(model))
    traced_again(model)
    _warn_unsaved(model, puts)
    return [put.located.param.name for put in puts]


def remove_penalty(model: Any) -> list[str]:
    """Take away all that `add_penalty` has added; the names of the weights. Regularizers from before stay.

    Raises: ArgumentError for what is no model; ModelError where no weight has a penalty.
    """
    bearing = [each for each in walk(model) if isinstance(regularizer_of(each.variable), Penalty)]
    puts = [Put(each, _attribute(each), _without(regularizer_of(each.variable))) for each in bearing]
    if not puts:
        raise ModelError(f"{model.name} has no penalty: add_penalty has put none on a weight of it")
    for put in puts:
        _set(put)
    for layer in layers_in(model):
        for name in SHARED:
            if isinstance(vars(layer).get(name), Penalty):
                vars(layer)[name] = _without(vars(layer)[name])
    log_no_more(model, [LOGGED + name for name in TERMS])
    traced_again(model)
    return [put.located.param.name for put in puts]


def _put(located: Located, terms: Mapping[str, float], kept: tuple[int, ...], references: Mapping[str, Any]) -> Put:
    name, before = located.param.name, regularizer_of(located.variable)
    made = Penalty(terms, kept=kept, reference=references.get(name), also=before, weights=[name])
    return Put(located, _attribute(located), made)


def _attribute(located: Located) -> str | None:
    """The attribute of the layer that makes the weight's regularizer, when the layer is made anew."""
    name = str(located.variable.name)
    options = [f"{name}_regularizer", f"{name.removesuffix('_kernel')}_regularizer"]
    options += ["depthwise_regularizer"] * (name == "kernel")
    return next((each for each in options if each in vars(located.layer)), None)


def _set(put: Put) -> None:
    set_regularizer(put.located.variable, put.regularizer)
    if put.attribute is not None:
        setattr(put.located.layer, put.attribute, put.regularizer)


def _set_shared(model: Any, puts: Sequence[Put]) -> None:
    """Attention layers save one regularizer for the kernels of all layers in them: set it where all get the same."""
    for layer in layers_in(model):
        for attribute, name in SHARED.items():
            if attribute not in vars(layer):
                continue
            inner = {id(variable) for each in layers_in(layer) for variable, _ in weights_of(each)}
            mine = [put for put in puts if put.located.variable.name == name and id(put.located.variable) in inner]
            count = sum(name == variable.name for each in layers_in(layer) for variable, _ in weights_of(each))
            made = [put.regularizer for put in mine]
            if made and len(made) == count and not any(each.kept or each.reference is not None for each in made):
                names = [put.located.param.name for put in mine]
                vars(layer)[attribute] = Penalty(made[0].terms, also=vars(layer)[attribute], weights=names)


def _without(regularizer: Any) -> Any:
    while isinstance(regularizer, Penalty):
        regularizer = regularizer.also
    return regularizer


def _logged_names(model: Any) -> list[str]:
    found = {name for each in walk(model) for one in _chain(regularizer_of(each.variable)) for name in one.terms}
    return [LOGGED + name for name in TERMS if name in found]


def _chain(regularizer: Any) -> Iterator[Penalty]:
    """The penalties that stand on one weight, the newest first."""
    while isinstance(regularizer, Penalty):
        yield regularizer
        regularizer = regularizer.also


def _by_term(model: Any) -> dict[str, Any]:
    """{name in logs: the sum over all weights} of every penalty that the model has."""
    total: dict[str, Any] = {}
    for variable in [whole_of(each) for each in model.trainable_weights if each.regularizer is not None]:
        for each in _chain(regularizer_of(variable)):
            for name, value in each.values(value_of(variable)).items():
                total[LOGGED + name] = total.get(LOGGED + name, 0.0) + value
    return total


def _warn_unsaved(model: Any, puts: Sequence[Put]) -> None:
    """Say which penalties the model's own configuration does not have."""
    try:
        saved = list(_saved_in(model.get_config()))
    except Exception:  # a class of the user's own that cannot be saved by its configuration
        saved = []
    lost = [
        put.located.param.name
        for put in puts
        if (put.located.param.name, put.regularizer.terms, list(put.regularizer.kept)) not in saved
    ]
    if lost:
        warnings.warn(
            f"the penalty of {', '.join(lost[:8])} acts in this model and is not saved with it, for the configuration "
            "of a layer around it has no regularizer: call add_penalty on what load_model or clone_model give",
            stacklevel=3,
        )


def _saved_in(config: Any) -> Iterator[tuple[str, Any, Any]]:
    """Weight, terms and axes kept of each penalty in a configuration."""
    if isinstance(config, Mapping):
        if config.get("registered_name") == MARK:
            own = config["config"]
            yield from ((name, own["terms"], own["kept"]) for name in own["weights"])
        config = list(config.values())
    if isinstance(config, list | tuple):
        for each in config:
            yield from _saved_in(each)
