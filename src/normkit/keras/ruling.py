"""A rule in an optimizer: what it reaches, what it stores, how it is saved, and which rules do not go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from normkit.decay import refuse_divergent
from normkit.errors import ModelError
from normkit.keras.aims import Aim, Aimed, aimed, givens, located
from normkit.keras.asked import number_of
from normkit.keras.inside import decays
from normkit.keras.ring_hooks import inner_of, leaves_of
from normkit.keras.rule import Decay, Limit, Rule, is_written, rule_from
from normkit.select.selection import Row


@dataclass
class Ruling:
    """A rule in an optimizer: arrays given to it, what it reaches, and the variables that it stores for each place."""

    rule: Rule
    given: Mapping[str, Any] | None = None
    starts: Mapping[str, Any] = field(default_factory=dict)  # by name: "initial", where a model was given
    aims: tuple[Aim, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()  # of all that the optimizer trains, when it was aimed
    rows: tuple[Row, ...] = ()
    stored: dict[int, Any] = field(default_factory=dict)
    awaits: bool = False  # arrays given to the one that this was saved from, which are in the saved state

    def config(self) -> dict[str, Any]:
        """As `saved_ruling` reads it."""
        if not self.aims and not is_written(self.rule.select):
            raise ModelError(
                f"{self.rule.told}: select={self.rule.select!r} is no text, so it can be saved once the optimizer "
                "knows its weights; give model= as well, or name them"
            )
        aims = [list(aim) for aim in self.aims]
        return {**self.rule.config(), "aims": aims, "shapes": [list(shape) for shape in self.shapes]}


def saved_ruling(config: Mapping[str, Any]) -> Ruling:
    """The ruling of a configuration."""
    aims = tuple(Aim(place, name, tuple(kept), entries) for place, name, kept, entries in config["aims"])
    shapes = tuple(tuple(shape) for shape in config["shapes"])
    rule = rule_from({name: value for name, value in config.items() if name not in ("aims", "shapes")})
    return Ruling(rule, aims=aims, shapes=shapes, awaits=getattr(rule, "reference", None) == "given")


def resolved(ruling: Ruling, variables: Sequence[Any], model: Any) -> Aimed:
    """What a rule reaches of these variables: what it did, where they have the same shapes and no more is known."""
    if ruling.aims and ruling.shapes == shapes_of(variables) and not (ruling.rows and model is not None):
        found = Aimed(ruling.aims, ruling.rows or _rows(ruling, variables, model))
    else:
        if ruling.aims and not ruling.rows and not is_written(ruling.rule.select):
            raise ModelError(f"{ruling.rule.told} was saved for {len(ruling.shapes)} other weights than these")
        found = aimed(ruling.rule, located(model, variables), variables)
    if ruling.given is not None:
        givens(ruling.rule, found.aims, variables, ruling.given)
    return found


def refuse_conflicts(
    optimizer: Any, rulings: Sequence[Ruling], found: Sequence[Aimed], variables: Sequence[Any]
) -> None:
    """Raises: ModelError for a weight that decays twice, and for one that a layer's constraint would move again."""
    decayed: dict[int, Ruling] = {}
    for ruling, reached in zip(rulings, found, strict=True):
        for aim in reached.aims:
            variable = variables[aim.place]
            if isinstance(ruling.rule, Decay):
                refuse_own_decay(optimizer, variable, aim.name)
                if aim.place in decayed:
                    raise ModelError(
                        f"{aim.name} would decay twice, by {decayed[aim.place].rule.told} and {ruling.rule.told}; "
                        f"take it away from one of them, as in select='!{aim.name}'"
                    )
                decayed[aim.place] = ruling
            if isinstance(ruling.rule, Limit) and getattr(variable, "constraint", None) is not None:
                kind = type(variable.constraint).__name__
                raise ModelError(
                    f"{ruling.rule.told}: {aim.name} has the constraint {kind} of its layer, which would move it "
                    "again; leave out one of the two"
                )


def refuse_rate(rule: Rule, lr: float | None, step: int = 0) -> None:
    """Raises: ArgumentError for a decay that diverges at this rate, and at what its schedule gives for a step."""
    if not isinstance(rule, Decay) or lr is None:
        return
    factor = number_of(rule.factor(keras.ops.convert_to_tensor(step, "int32")))
    times = "" if rule.schedule is None else f" times schedule={factor:g}"
    refuse_divergent(rule.taken(lr, factor), f"weight_decay={rule.weight_decay:g}{times} with learning rate {lr:g}")


def refuse_own_decay(optimizer: Any, variable: Any, name: str) -> None:
    """Raises: ModelError where the optimizer decays this variable itself."""
    for leaf in leaves_of(inner_of(optimizer)):
        own = getattr(leaf, "weight_decay", None)
        if own and (variable is None or decays(leaf, variable)):
            kind = type(leaf).__name__
            raise ModelError(
                f"{name} would decay twice: {kind} has weight_decay={own:g} itself; set it to 0, as in "
                f"keras.optimizers.{kind}(..., weight_decay=0.0)"
            )


def asks_start(rule: Rule) -> bool:
    if isinstance(rule, Decay):
        return rule.reference is not None or rule.length == "initial"
    return isinstance(rule, Limit) and rule.value == "initial"


def shapes_of(variables: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(size) for size in variable.shape) for variable in variables)


def _rows(ruling: Ruling, variables: Sequence[Any], model: Any) -> tuple[Row, ...]:
    """What a rule that was saved says of each weight: the reasons why are not saved."""
    reached = {id(variables[aim.place]) for aim in ruling.aims}
    told = {True: f"{ruling.rule.told}: as it was saved", False: "left out, as it was saved"}
    found = located(model, variables)
    taken = [id(each.variable) in reached for each in found]
    return tuple(
        Row(each.param.name, each.param.role, each.param.rule, mine, told[mine])
        for each, mine in zip(found, taken, strict=True)
    )
