"""`normkit show`: findings and a table of a recording."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from normkit.cli.outlet import look, put
from normkit.errors import ArgumentError

if TYPE_CHECKING:
    from normkit.readers.recording import Recording

SORTS = ("name", "change", "l2", "update")


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--all", "all_", is_flag=True, help="Show each tensor by itself: nothing folded, no bias left out.")
@click.option("--sort", type=click.Choice(SORTS), help="By name, or the largest first. Default: the model's order.")
@click.option(
    "--select",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Show these tensors only: a role (bias), a name pattern ('conv*'), '!pattern' to take away. May be repeated.",
)
@click.option("--at", "step", type=int, metavar="STEP", help="Show this one recorded step, each tensor by itself.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, for programs.")
def command(  # noqa: PLR0917  # click gives them by name
    path: Path | None, all_: bool, sort: str | None, patterns: tuple[str, ...], step: int | None, as_json: bool
) -> None:
    """Show what a recording says: findings first, then a table.

    PATH is a .norms file; without it the newest one in the folder runs is shown.
    """
    from normkit import report
    from normkit.readers.recording import load

    if step is not None and (as_json or sort):
        raise ArgumentError(
            f"--at {step} shows one step in the model's order; leave {'--json' if as_json else '--sort'} out"
        )
    recording = load(path)
    names = chosen(recording, patterns)
    if step is not None:
        put(at(recording, step, names))
    elif as_json:
        put(json.dumps(report.to_json(recording, select=names), indent=1, allow_nan=False))
    else:
        put(report.show(recording, look(sys.stdout), all=all_, sort=sort, select=names))


def at(recording: Recording, step: int, names: set[str] | None) -> str:
    """The table of one step."""
    from normkit import norms
    from normkit.report.moment import moment

    return moment(recording, step, measure=norms.norm, look=look(sys.stdout), select=names)


def chosen(recording: Recording, patterns: tuple[str, ...]) -> set[str] | None:
    """Names of the tensors that the patterns reach; None where there are no patterns."""
    if not patterns:
        return None
    from normkit.select import select

    return {param.name for param in select(recording.params, list(patterns), default="all").chosen}
