"""The rules of `decay_groups`: pairs of a selection and what holds for it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from typing import Any

import torch

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.select.rules import WORDS, barred, parse
from normkit.torch.decay_terms import checked_weight_decay
from normkit.types import Param

OWN = ("weight_decay", "lr_scale")
ELSEWHERE = {  # what other libraries call them
    "wd": "weight_decay",
    "decay": "weight_decay",
    "l2": "weight_decay",
    "learning_rate": "lr",
    "lr_mult": "lr_scale",
    "lr_multiplier": "lr_scale",
    "scale": "lr_scale",
}


@dataclass(frozen=True)
class Rule:
    """One pair: what it selects; its decay (None: the base), the factor on lr, other options of the optimizer."""

    place: str
    text: str
    select: Any
    own: float | None
    lr_scale: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def has_role(self) -> bool:
        """Does it name a role, so that what it reaches may decay whatever that is?"""
        items = self.select if isinstance(self.select, list | tuple | set | frozenset) else [self.select]
        return any(isinstance(item, str) and item in WORDS for item in items) or callable(self.select)

    def weight_decay(self, base: float) -> float:
        return base if self.own is None else self.own


NO_RULE = Rule("", "", None, None)


def checked_rules(rules: Any) -> list[Rule]:
    """Raises: ArgumentError for what is no list of pairs, and for options that are misspelt or cannot be."""
    if isinstance(rules, str | Mapping) or not isinstance(rules, Sequence):
        raise ArgumentError(f"rules={in_brief(rules)}: {_EXPECTED}")
    return [_rule(i, pair) for i, pair in enumerate(rules)]


_EXPECTED = "expected pairs of a selection and its weight decay, as in rules=[('head.*', 0.0)]"


def _rule(number: int, pair: Any) -> Rule:
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise ArgumentError(f"rules[{number}]={in_brief(pair)}: {_EXPECTED}")
    rule, given = pair
    if rule is None:
        raise ArgumentError(f"rules[{number}]: its selection is None; name a role, a pattern or a layer class")
    text = parse(rule).text
    place = f"rules[{number}] ({text})"
    if not isinstance(given, Mapping):
        return Rule(place, text, rule, _decay(place, given))
    options = {key: value for key, value in given.items() if key not in OWN}
    _refuse_misspelt(place, options)
    own = _decay(place, given["weight_decay"]) if "weight_decay" in given else None
    return Rule(place, text, rule, own, _scale(place, given.get("lr_scale", 1.0)), options)


def _decay(place: str, value: object) -> float:
    try:
        return checked_weight_decay(value)
    except ArgumentError as error:
        raise ArgumentError(f"{place}: {error}") from None


def _scale(place: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ArgumentError(f"{place}: lr_scale={in_brief(value)}: expected a factor of at least 0, such as 0.1")
    return float(value)


def _refuse_misspelt(place: str, options: Mapping[Any, Any]) -> None:
    known = {*OWN, *_known_options()}
    for key in options:
        if not isinstance(key, str) or key in ("params", "param_names"):
            raise ArgumentError(f"{place}: {in_brief(key)} is no option of an optimizer")
        meant = [ELSEWHERE[key]] if key in ELSEWHERE else get_close_matches(key.lower(), known, 1, 0.8)
        close = [] if key in known else meant
        if close:
            raise ArgumentError(f"{place}: there is no option {key!r}; did you mean {close[0]!r}?")


@cache
def _known_options() -> frozenset[str]:
    """What some optimizer of torch.optim takes."""
    classes = [cls for cls in vars(torch.optim).values() if inspect.isclass(cls)]
    names = (inspect.signature(cls).parameters for cls in classes if issubclass(cls, torch.optim.Optimizer))
    return frozenset(name for each in names for name in each) - {"params", "defaults"}


def refuse_unmet(rule: Rule, mine: set[str], taken: Mapping[str, Any]) -> None:
    """Raises: ArgumentError for a rule that reaches nothing that trains, or only what earlier rules took."""
    if not mine:
        raise ArgumentError(f"{rule.place} reaches no trainable parameter")
    if mine <= set(taken):
        name = min(mine)
        raise ArgumentError(
            f"{rule.place} reaches only what earlier rules took, such as {name} by {taken[name][0].place}; put it first"
        )


def refuse_ties(params: Sequence[Param], rules: Sequence[Rule]) -> None:
    """Raises: ModelError for a tied parameter that two rules reach under different names with different terms."""
    for param in params:
        if not param.aliases or not param.trainable or param.role == "buffer":
            continue
        met = [(rule, names) for rule in rules if (names := _met_by(param, rule))]
        for rule, names in met[1:]:
            first, before = met[0]
            if not names & before and _terms(rule) != _terms(first):
                raise ModelError(
                    f"{' = '.join((param.name, *param.aliases))} is one tied parameter; {first.place} and {rule.place} "
                    "say different things of it; give both names to one rule"
                )


def _met_by(param: Param, rule: Rule) -> set[str]:
    """Which of its names the rule reaches."""
    parsed = parse(rule.select)
    if barred(param, parsed.roles or ("trainable",)):
        return set()
    alone = [replace(param, name=name, aliases=()) for name in (param.name, *param.aliases)]
    return {
        one.name
        for one in alone
        if (not parsed.terms or any(term.meets(one) for term in parsed.terms))
        and not any(term.meets(one) for term in parsed.away)
    }


def _terms(rule: Rule) -> tuple[Any, ...]:
    return rule.own, rule.lr_scale, repr(rule.options)
