"""What to say when a part of a rule reaches no parameter: one sentence, with what would have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice

from normkit.errors import ArgumentError
from normkit.select.rules import WORDS, Parsed, Term, barred, matches
from normkit.types import Param


def refuse_misses(params: Sequence[Param], rule: Parsed, default: Sequence[str]) -> None:
    """ArgumentError for the first role, term or "!" of `rule` that reaches none of `params`."""
    for role in rule.roles:
        _refuse_role(params, role)
    for term in (*rule.terms, *rule.away):
        hits = [p for p in params if term.kind == "callable" or term.meets(p)]
        if not hits and term.kind != "callable":
            raise ArgumentError(_no_match(params, term))
        if term in rule.terms and term.kind != "callable":
            _refuse_roles_apart(hits, term, rule, default)


def _refuse_role(params: Sequence[Param], role: str) -> None:
    if role == "all" or any(not barred(p, (role,)) for p in params):
        return
    frozen = sum(p.role == role for p in params)
    if frozen:
        raise ArgumentError(
            f"select={role!r} finds {_parameters(frozen)} with that role, {_all(frozen)} frozen; "
            "only 'all' takes frozen ones"
        )
    here = ", ".join(f"{role} ({count})" for role, count in Counter(p.role for p in params).items())
    raise ArgumentError(
        f"select={role!r} finds no parameter with that role among {len(params)}; here: {here or 'none'}"
    )


def _refuse_roles_apart(hits: Sequence[Param], term: Term, rule: Parsed, default: Sequence[str]) -> None:
    """A name or class that meets parameters, none of which has the role asked for."""
    roles = rule.roles or default
    if any(not barred(p, roles) for p in hits):
        return
    said = f"select={term.text} matches {_parameters(len(hits))}"
    if any(barred(p, roles) == "frozen" for p in hits):
        some = "all" if all(barred(p, roles) == "frozen" for p in hits) else "those with the role"
        some = "which is" if len(hits) == 1 else some
        raise ArgumentError(f"{said}, {some} frozen; add 'all' to take frozen ones, as in select=['all', {term.text}]")
    wanted = " or ".join(roles)
    there = hits[0].role
    what = "none trainable" if "trainable" in roles else f"none with role {wanted}"
    raise ArgumentError(f"{said}, {what}; add the role, as in select=[{there!r}, {term.text}]")


def _no_match(params: Sequence[Param], term: Term) -> str:
    said = f"select={term.text}"
    if not params:
        return f"{said} matches nothing: there are no parameters"
    if term.kind == "class":
        layers = ", ".join(islice(dict.fromkeys(p.layer for p in params if p.layer), 8))
        return f"{said} is the layer of none of {_parameters(len(params))}; layers that own some: {layers or 'unknown'}"
    if term.kind == "role":
        return f"{said} takes nothing away: none of {_parameters(len(params))} has that role"
    pattern = term.text[1:-1]
    return f"{said} matches none of {_parameters(len(params))}; {_advice(params, pattern)}"


def _advice(params: Sequence[Param], pattern: str) -> str:
    mark, pattern = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    longer = f"{pattern.rstrip('./')}.*"
    if count := sum(matches(longer, p) for p in params):
        return f"a pattern reaches to the end of a name: {mark + longer!r} matches {count}"
    lower = [replace(p, name=p.name.lower(), aliases=tuple(a.lower() for a in p.aliases)) for p in params]
    if found := next((p.name for p, q in zip(params, lower, strict=True) if matches(pattern.lower(), q)), None):
        return f"case counts: it would match {found} in other letters"
    if word := next(iter(get_close_matches(pattern, WORDS, 1, 0.75)), None):
        return f"did you mean the role {word!r}?"
    if close := _close_names(params, pattern):
        return f"close names: {', '.join(close)}"
    return f"names are such as {', '.join(p.name for p in params[:3])}"


def _close_names(params: Sequence[Param], pattern: str) -> list[str]:
    """Up to three names with a stretch of as many segments as the pattern's that is close to the pattern."""
    stem = pattern.replace("/", ".").replace("*", "").strip(".")
    length = stem.count(".") + 1
    stretches: dict[str, str] = {}
    for param in params:
        segments = param.name.replace("/", ".").split(".")
        for i in range(len(segments) - length + 1):
            stretches.setdefault(".".join(segments[i : i + length]), param.name)
    return list(dict.fromkeys(stretches[s] for s in get_close_matches(stem, stretches, 3, 0.6)))


def _parameters(count: int) -> str:
    return "1 parameter" if count == 1 else f"{count} parameters"


def _all(count: int) -> str:
    return "and it is" if count == 1 else "all"
