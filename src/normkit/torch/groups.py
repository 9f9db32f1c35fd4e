"""`decay_groups`: parameter groups for an optimizer that decays weights by itself, each trainable parameter in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from normkit.errors import ArgumentError, in_brief
from normkit.select import Explanation
from normkit.select import select as select_params
from normkit.select.selection import Row
from normkit.torch.aim import Aim, reached
from normkit.torch.arguments import Models, joined
from normkit.torch.decay_terms import checked_weight_decay
from normkit.torch.groups_depth import depths
from normkit.torch.groups_rules import NO_RULE, Rule, checked_rules, refuse_ties, refuse_unmet
from normkit.torch.walk import Located, memory_key, walk


class DecayGroups(list[dict[str, Any]]):
    """Parameter groups; `explain()` is the table of every parameter, the rule it met, its decay, rate and group."""

    def __init__(self, groups: Sequence[dict[str, Any]], rows: Sequence[Row]) -> None:
        super().__init__(groups)
        self._rows = tuple(rows)

    def explain(self) -> Explanation:
        """Which parameters decay and by how much, which do not and why; at the end how many, in how many groups."""
        decaying = sum(group["weight_decay"] > 0 for group in self)
        return Explanation(self._rows, f"decay, in {decaying} of {len(self)} group{'s' * (len(self) > 1)}")


def decay_groups(
    model: Models,
    weight_decay: float,
    *,
    select: Any = None,
    rules: Sequence[tuple[Any, Any]] = (),
    lr: float | None = None,
    layer_decay: float | None = None,
) -> DecayGroups:
    """Parameter groups for any optimizer of torch.optim, as `AdamW(decay_groups(model, 0.1), lr=1e-3)`.

    What `select` takes (default: kernels) gets `weight_decay`, everything else trainable gets 0: biases, scales of
    normalization layers, embeddings, single numbers, class tokens, A_log, ... Each trainable parameter stands in
    exactly one group, tied ones once, with its name; frozen ones in none. Of a weight-normed weight g decays and v does
    not.

    Units: as the optimizer's own `weight_decay`, which is times lr in AdamW and goes through the gradient in SGD and
    Adam.

    rules         [(select, weight_decay), (select, {"weight_decay": ..., "lr_scale": ..., ...}), ...]: the first that
                  reaches a parameter decides. A rule reaches all roles: its options hold for the biases of a layer,
                  too; but a weight decay above 0 only for what `select` takes or the rule names by its role, as in
                  (["bias", "head.*"], 0.1). Other keys are options of the optimizer. `lr_scale` multiplies lr
    lr            the rate that `lr_scale` and `layer_decay` multiply; then each group has its own
    layer_decay   lr * layer_decay^(depth below the head), blocks counted in the order in which the model holds them:
                  what stands after the last numbered block has depth 0, the last block 1, ..., what stands before the
                  first one most (as timm's)

    Raises: ArgumentError for a rule that matches nothing or only what earlier ones took, for a misspelt option, and for
        `lr_scale` or `layer_decay` without lr; ModelError for a tied parameter to which two rules say different things;
        StateError for a lazy layer before its first batch.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 1))
    >>> groups = decay_groups(model, 0.1, rules=[("2.*", {"lr_scale": 0.5})], lr=1e-3)
    >>> for group in groups:
    ...     print([name for name, _ in group["params"]], group["weight_decay"], group["lr"])
    ['0.weight'] 0.1 0.001
    ['0.bias', '1.weight', '1.bias'] 0.0 0.001
    ['2.weight'] 0.1 0.0005
    ['2.bias'] 0.0 0.0005
    """
    base, found = checked_weight_decay(weight_decay), checked_rules(rules)
    _check_rates(lr, layer_decay, found)
    everything = walk(joined(model), uninitialized="error")
    chosen = _chosen(everything, select, "kernel")
    usual = {target.name for target in chosen.targets}
    met = _first_matches(everything, found, usual)
    refuse_ties([item.param for item in everything], found)
    deep = depths([item.param.name for item in everything])
    groups: dict[Any, dict[str, Any]] = {}
    rows = []
    for item, row in zip(everything, chosen.rows, strict=True):
        if item.param.role == "buffer":
            continue  # no optimizer has it
        if item.tensor is None or not item.param.trainable:
            rows.append(row)
            continue
        name = item.param.name
        rule, decays = met.get(name, (NO_RULE, name in usual))
        options: dict[str, Any] = {"weight_decay": rule.weight_decay(base) if decays else 0.0}
        if lr is not None:
            options["lr"] = lr * (layer_decay or 1.0) ** deep[name] * rule.lr_scale
        options |= rule.options
        key = repr(sorted(options.items()))
        groups.setdefault(key, {"params": [], **options})["params"].append((name, item.tensor))
        rows.append(_told(row, options, rule, list(groups).index(key)))
    if not groups:
        raise ArgumentError(f"model={type(model).__name__} has no trainable parameter; there is nothing to group")
    return DecayGroups(list(groups.values()), rows)


def _told(row: Row, options: dict[str, Any], rule: Rule, number: int) -> Row:
    told = ", ".join(f"{name} {_short(value)}" for name, value in options.items())
    why = f"rule {rule.text}, {row.why}" if rule.text else row.why
    return replace(row, chosen=options["weight_decay"] > 0, why=why, told=f"{told}, group {number}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else in_brief(value)


def _chosen(everything: Sequence[Located], rule: Any, default: str) -> Aim:
    selection = select_params([item.param for item in everything], rule, default=default)
    held: dict[Any, tuple[Tensor, int]] = {
        memory_key(item.tensor): (item.tensor, 0) for item in everything if item.tensor is not None
    }
    return reached(everything, selection.verdicts, selection.explain().rows, held)


def _first_matches(
    everything: Sequence[Located], rules: Sequence[Rule], usual: set[str]
) -> dict[str, tuple[Rule, bool]]:
    """For each parameter that a rule reaches, the first such rule, and whether it decays.

    By a rule with a decay above 0 what `select` takes does, and what the rule names by its role; if it takes nothing of
    the one, it must say the other.
    """
    met: dict[str, tuple[Rule, bool]] = {}
    params = [item.param for item in everything]
    for rule in rules:
        try:
            mine, named = _parts(everything, select_params(params, rule.select, default="trainable")), set()
            if rule.own and (rule.has_role or not mine & usual):
                named = {target.name for target in _chosen(everything, rule.select, "kernel").targets}
        except ArgumentError as error:
            raise ArgumentError(f"{rule.place}: {error}") from None
        refuse_unmet(rule, mine, met)
        met |= {name: (rule, name in usual or name in named) for name in mine if name not in met}
    return met


def _parts(everything: Sequence[Located], selection: Any) -> set[str]:
    """The tensors that were chosen, and the parts of a chosen weight that is worked out from them."""
    names = {param.name for param in selection.chosen}
    whole = [item.param.name for item in everything if item.param.part == "effective" and item.param.name in names]
    return {
        item.param.name
        for item in everything
        if item.tensor is not None
        and item.param.trainable
        and (item.param.name in names or any(item.param.name.startswith(f"{name}.") for name in whole))
    }


def _check_rates(lr: Any, layer_decay: Any, rules: Sequence[Rule]) -> None:
    for name, value, most, expected in (
        ("lr", lr, math.inf, "a number above 0, such as 1e-3"),
        ("layer_decay", layer_decay, 1.0, "a factor above 0 and at most 1, such as 0.75"),
    ):
        number = not isinstance(value, bool) and isinstance(value, int | float)
        if value is not None and not (number and 0 < value <= most and value < math.inf):
            raise ArgumentError(f"{name}={in_brief(value)}: expected {expected}")
    scaled = next((rule for rule in rules if rule.lr_scale != 1.0), None)
    if lr is None and (layer_decay is not None or scaled is not None):
        what = f"layer_decay={layer_decay}" if scaled is None else f"{scaled.place}: lr_scale={scaled.lr_scale:g}"
        raise ArgumentError(f"{what} multiplies lr, and none was given; add lr= to decay_groups, the optimizer's own")
