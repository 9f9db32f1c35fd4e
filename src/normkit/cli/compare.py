"""`normkit compare`: where two recordings part, and the ratio of their norms."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from normkit.cli.outlet import look, put
from normkit.errors import ArgumentError

if TYPE_CHECKING:
    from normkit.readers.recording import Recording


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--all", "all_", is_flag=True, help="Show every tensor. Default: the 25 whose ratio is farthest from 1.")
@click.option(
    "--select",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Compare these tensors only: a role (bias), a name pattern ('conv*'), '!pattern' to take away. "
    "May be repeated.",
)
@click.option("--norm", "kind", metavar="NORM", default="l2", help="The norm of the table, such as rms. Default: l2.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    metavar="SHARE",
    help="The runs part where a sum of weights differs by more than this share. Default: 0, by any bit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, for programs.")
def command(
    *, a: Path, b: Path, all_: bool, patterns: tuple[str, ...], kind: str, tolerance: float, as_json: bool
) -> None:
    """Compare two recordings: where they part, then how far.

    First the step and the tensor at which A and B are no longer the same, then each tensor's norm in B divided by that
    in A, at the steps that were recorded in both. Runs may still be going on.
    """
    from normkit.norms import canonical
    from normkit.readers.recording import load
    from normkit.report.compare import compare, compare_json
    from normkit.report.pair import Pair

    first, second = load(a), load(b)
    if os.path.samefile(a, b):
        raise ArgumentError(f"A and B are the same recording, {str(b)!r}; give two")
    pair, kind = Pair(first, second, select=chosen(first, second, patterns)), canonical(kind)
    if as_json:
        put(json.dumps(compare_json(pair, kind=kind, tolerance=tolerance), indent=1, allow_nan=False))
    else:
        put(compare(pair, look(sys.stdout), kind=kind, tolerance=tolerance, all=all_))


def chosen(a: Recording, b: Recording, patterns: tuple[str, ...]) -> set[str] | None:
    """Names of the tensors of both that the patterns reach; None where there are no patterns."""
    if not patterns:
        return None
    from normkit.select import select

    params = {param.name: param for param in (*b.params, *a.params)}
    return {param.name for param in select(tuple(params.values()), list(patterns), default="all").chosen}
