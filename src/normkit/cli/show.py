"""`normkit show`: findings and a table of a recording."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normkit.cli.outlet import look, put
from normkit.errors import ArgumentError
from normkit.store.paths import shown

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
@click.option("--watch", is_flag=True, help="Follow a run that is going on, until it ends; Ctrl-C leaves earlier.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, for programs.")
def command(
    *,
    path: Path | None,
    all_: bool,
    sort: str | None,
    patterns: tuple[str, ...],
    step: int | None,
    watch: bool,
    as_json: bool,
) -> None:
    """Show what a recording says: findings first, then a table.

    PATH is a .norms file; without it the newest one in the folder runs is shown. A run that is going on is shown as
    far as it has come.
    """
    if step is not None and sort:
        raise ArgumentError(f"--at {step} shows one step in the model's order; leave --sort {sort} out")
    if watch and (as_json or step is not None):
        other = "--json" if as_json else f"--at {step}"
        raise ArgumentError(f"--watch follows a whole run on the screen; leave {other} out")
    if watch:
        from normkit.cli.follow import follow

        follow(path, lambda recording: whole(recording, patterns, all_=all_, sort=sort))
        return
    from normkit.readers.recording import load

    recording = load(path)
    if as_json:
        put(json.dumps(plain(recording, patterns, step), indent=1, allow_nan=False))
        return
    put(whole(recording, patterns, all_=all_, sort=sort) if step is None else moment(recording, patterns, step))
    if sys.stdout.isatty():
        put(next_(recording, path))


def whole(recording: Recording, patterns: tuple[str, ...], *, all_: bool, sort: str | None) -> str:
    """Findings and a table of the run."""
    from normkit import report

    names = chosen(recording, patterns) if recording.params else None  # a run has no tensors before its first record
    return report.show(recording, look(sys.stdout), all=all_, sort=sort, select=names)


def moment(recording: Recording, patterns: tuple[str, ...], step: int) -> str:
    """The table of one step."""
    from normkit import norms
    from normkit.report import moment

    return moment.text(recording, step, measure=norms.norm, look=look(sys.stdout), select=chosen(recording, patterns))


def plain(recording: Recording, patterns: tuple[str, ...], step: int | None) -> dict[str, Any]:
    """Either of the two as plain values."""
    from normkit import norms, report
    from normkit.report import moment

    names = chosen(recording, patterns)
    if step is None:
        return report.to_json(recording, select=names)
    return moment.to_json(recording, step, measure=norms.norm, select=names)


def next_(recording: Recording, path: Path | None) -> str:
    """What to type next, as wide as the terminal."""
    from normkit.report.text import wrapped

    going_on = not recording.meta.get("finished")
    commands = ["show --watch", "show --all"] if going_on else ["show --all", "export --to csv"]
    where = "" if path is None else f" {shlex.quote(shown(path))}"
    line = "    ".join(f"normkit {command}{where}" for command in commands)
    return "\n".join(wrapped(f"Next:  {line}", look(sys.stdout).width))


def chosen(recording: Recording, patterns: tuple[str, ...]) -> set[str] | None:
    """Names of the tensors that the patterns reach; None where there are no patterns."""
    if not patterns:
        return None
    from normkit.readers.tables import reached

    return reached(recording, list(patterns))
