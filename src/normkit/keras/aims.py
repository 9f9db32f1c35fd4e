"""Which of the variables that an optimizer trains a rule acts on, and what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import keras

from normkit.errors import ArgumentError, ModelError
from normkit.groups import kept_axes
from normkit.keras.effective import Effective, weight_of
from normkit.keras.layers import kind_of, role_of_name
from normkit.keras.rule import Decay, Limit, Proximal, Rule
from normkit.keras.walk import Located, walk
from normkit.select import select as select_params
from normkit.select.selection import Row
from normkit.types import Param, Part


class Aim(NamedTuple):
    """One variable that a rule acts on, by its place among those that the optimizer trains.

    `kept` are the axes that a group keeps, `entries` the number of entries that share one length; `name` is the
    weight's, where that is its length g.
    """

    place: int
    name: str
    kept: tuple[int, ...] = ()
    entries: int = 1


class Aimed(NamedTuple):
    """What a rule reaches, and a row for every parameter: what happens to it and why."""

    aims: tuple[Aim, ...]
    rows: tuple[Row, ...]


def aimed(rule: Rule, everything: Sequence[Located], variables: Sequence[Any]) -> Aimed:
    """What `rule` reaches of `variables`, which are those of `everything` that an optimizer trains.

    Raises: ArgumentError for a rule that reaches nothing, ModelError for a weight-normed weight whose g has other
    groups than the rule.
    """
    selection = select_params([each.param for each in everything], rule.select, default="kernel")
    chosen = {param.name for param in selection.chosen}
    places = {id(variable): place for place, variable in enumerate(variables)}
    aims, rows = [], []
    for located, row in zip(everything, selection.explain().rows, strict=True):
        param = located.param
        whole = param.name.rpartition(".")[0] if param.part in ("g", "v") else ""
        by_weight = whole in chosen
        said = row.why if row.why != "frozen" or _is_floating(param) else _not_floating(param)
        if param.name in chosen or by_weight:
            said = _left_out(located, places, by_weight=by_weight)
            if not said:
                weight = next((each for each in everything if each.param.name == whole), None) if by_weight else None
                aims.append(_aim(rule, located, weight, places[id(located.variable)]))
                said = f"length of {whole}" if by_weight else row.why
                rows.append(replace(row, chosen=True, why=f"{rule.told}: {said}"))
                continue
        rows.append(replace(row, chosen=False, why=said))
    if not aims:
        reasons = ", ".join(dict.fromkeys(row.why for row in rows)) or "there are none"
        raise ArgumentError(f"{rule.told}: no trained weight is left to act on ({reasons}); say which with select=")
    return Aimed(tuple(aims), tuple(rows))


def located_by_path(variables: Sequence[Any]) -> list[Located]:
    """What the variables alone say, where no model is known: their paths, names and shapes."""
    found: list[Located] = []
    for variable in variables:
        weight, path = weight_of(variable), str(getattr(variable, "path", variable.name))
        if weight is None:
            found.append(_by_path(path, variable, variable))
            continue
        part: Part = "g" if weight.g is variable else "v"
        whole = _by_path(weight.path, weight, weight)
        if not any(each.variable is weight for each in found):
            found.append(replace(whole, param=replace(whole.param, part="effective")))
        param = replace(whole.param, name=f"{whole.param.name}.{part}", shape=tuple(variable.shape), part=part)
        found.append(Located(param, variable))
    return found


def located(model: Any, variables: Sequence[Any]) -> list[Located]:
    """Every weight of the model that trains the variables; these alone where there is none."""
    return located_by_path(variables) if model is None else walk(model)


def givens(rule: Rule, aims: Sequence[Aim], variables: Sequence[Any], given: Mapping[str, Any]) -> dict[int, Any]:
    """{place: what a weight is pulled toward} from arrays by name.

    Raises: ArgumentError for a weight without one, one of another shape, and a name of no weight that is reached.
    """
    found: dict[int, Any] = {}
    for name in given:
        if not any(name in (aim.name, f"{aim.name}.g") for aim in aims):
            raise ArgumentError(f"reference has {name!r}, and {rule.told} acts on {_some(aims)}")
    for aim in aims:
        name = aim.name if aim.name in given else f"{aim.name}.g"
        if name not in given:
            raise ArgumentError(
                f"reference has no array for {aim.name}, only for {', '.join(map(str, list(given)[:8])) or 'nothing'}; "
                f"add it, or leave it out with select='!{aim.name}'"
            )
        array, variable = keras.ops.convert_to_numpy(given[name]), variables[aim.place]
        weight = weight_of(variable)
        if weight is not None and array.shape == tuple(weight.shape) != tuple(variable.shape):
            array = keras.ops.convert_to_numpy(weight.length(keras.ops.convert_to_tensor(array, weight.dtype)))
        if array.shape != tuple(variable.shape):
            raise ArgumentError(
                f"reference of {name} has shape {array.shape} beside a weight of shape {tuple(variable.shape)}; "
                "expected one like it"
            )
        found[aim.place] = array
    return found


def _some(aims: Sequence[Aim]) -> str:
    return ", ".join(aim.name for aim in aims[:8])


def _left_out(located: Located, places: Mapping[int, int], *, by_weight: bool) -> str:
    """Why a chosen parameter is left alone all the same; "" where it is not."""
    param = located.param
    if isinstance(located.variable, Effective):
        return "computed from its parts"
    if by_weight and param.part == "v":
        return "direction of a weight-normed weight"
    if not _is_floating(param):
        return _not_floating(param)
    if id(located.variable) not in places:
        return "not in this optimizer" if param.trainable else "frozen"
    return ""


def _is_floating(param: Param) -> bool:
    return "float" in param.dtype


def _not_floating(param: Param) -> str:
    return f"{param.dtype}, not floating-point"


def _aim(rule: Rule, located: Located, weight: Located | None, place: int) -> Aim:
    param = located.param
    whole = param if weight is None else weight.param
    kept = tuple(sorted(kept_axes(rule.per, whole.shape, whole))) if _asks_groups(rule) else ()
    if weight is None:
        return Aim(place, param.name, kept, 1)
    _refuse_other_groups(rule, weight, kept)
    return Aim(place, whole.name, kept, whole.count // max(1, prod(whole.shape[axis] for axis in kept)))


def _asks_groups(rule: Rule) -> bool:
    if isinstance(rule, Decay):
        return rule.length is not None
    return not isinstance(rule, Proximal) or bool(rule.group)


def _refuse_other_groups(rule: Rule, weight: Located, kept: tuple[int, ...]) -> None:
    name, parts = weight.param.name, weight.variable
    own = tuple(sorted(parts.kept))
    alone = (isinstance(rule, Limit) and rule.name == "spectral_cap") or (isinstance(rule, Proximal) and rule.l1)
    if alone:
        raise ModelError(
            f"{rule.told}: {name} of shape {weight.param.shape} is weight-normed, and its lengths g do not say it; "
            f"leave it out with select='!{name}', or make it plain with nk.remove_weight_norm(model)"
        )
    if _asks_groups(rule) and (kept != own or parts.p != 2):
        raise ModelError(
            f"{rule.told}: {name} is weight-normed with p={parts.p} and one length per index of the axes {own}, and "
            f"per={rule.per!r} keeps {kept}: give per={own or 'tensor'!r} with a weight normed with p=2"
        )


def _by_path(path: str, variable: Any, owner: Any) -> Located:
    shape = tuple(int(size) for size in variable.shape)
    leaf = path.rpartition("/")[2].partition(":")[0]
    role = role_of_name(leaf)
    kind = kind_of(None, leaf, shape)
    param = Param(
        name=path.replace("/", "."),
        shape=shape,
        dtype=str(keras.backend.standardize_dtype(variable.dtype)),
        role=role or kind.role,
        rule=f"name {leaf}" if role else kind.rule,
    )
    return Located(param, owner)
