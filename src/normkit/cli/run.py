"""`normkit run`: a script or a module as Python would run it, recorded."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path

import click

from normkit.cli.module import Module
from normkit.cli.outlet import put
from normkit.cli.script import Interrupted, Outcome, Program, prepare
from normkit.cli.watch import Watch
from normkit.errors import ArgumentError, NormkitError
from normkit.store.paths import FOLDER, planned, script_name, shown


class WhenType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A number of optimizer steps, or "auto"."""

    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """`value` as an int of at least 1, or "auto"; anything else is a usage error that names it."""
        text = str(value)
        if text == "auto":
            return "auto"
        if not text.isdecimal() or int(text) < 1:
            self.fail(f"{text!r} is neither a number of steps of at least 1 nor 'auto'", param, ctx)
        return int(text)


class Run(click.Command):
    """Says where the script's own options belong, when one stands before the script."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            option = error.option_name
            ctx.fail(f"No such option {option!r}; options of the script stand behind it: run train.py {option} ...")


@click.command(cls=Run, context_settings={"allow_interspersed_args": False})
@click.option("--to", metavar="PATH", help="The recording to make. Default: runs/<script>-<date>-<time>.norms")
@click.option(
    "--every",
    type=WhenType(),
    metavar="N|auto",
    default="auto",
    help="Record each N-th optimizer step. Default: auto, the first 100 and then every 10th, under 1 % of the time.",
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-m", "as_module", is_flag=True, help="SCRIPT is the name of a module or package, as for python -m.")
@click.argument("script", metavar="SCRIPT")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENTS]...", type=click.UNPROCESSED)
def command(
    *, to: str | None, every: int | str, quiet: bool, as_module: bool, script: str, arguments: tuple[str, ...]
) -> None:
    """Run a training script and record its weight norms.

    The script needs no change: any PyTorch optimizer is noticed. What stands behind SCRIPT is the script's own;
    options of normkit stand before it. The exit code is the script's; what normkit says goes to stderr.
    """
    program = Module(script, arguments) if as_module else prepare(script, arguments)
    outcome = recorded(program, to=to, every=every, quiet=quiet)
    if outcome.interrupted:
        raise Interrupted
    sys.exit(outcome.code)


def recorded(script: Program, *, to: str | None, every: int | str, quiet: bool) -> Outcome:
    """Run the script with every optimizer watched. Raises: ArgumentError, before it, for a `to` that cannot be made."""
    path, here, owner = place(to, script), Path.cwd(), os.getpid()  # before the script moves elsewhere
    watch = Watch(to=path, every=every, quiet=quiet)
    outcome = script.run()
    if os.getpid() == owner:  # a child that the script forked comes by here as well
        made = watch.close(outcome.end)
        if not quiet or (made is None and watch.refused):
            with contextlib.suppress(OSError, ValueError):  # nobody listens: the exit code is still the script's
                put(farewell(made, outcome, watch.refused, here), err=True)
    return outcome


def place(to: str | None, script: Program) -> Path:
    """The file to record into. Raises: ArgumentError in the words of the command line."""
    try:
        return planned(to, script_name(script.called))
    except NormkitError as error:
        raise ArgumentError(str(error).replace("to=", "--to=")) from None


def farewell(path: Path | None, outcome: Outcome, refused: str | None, here: Path) -> str:
    """What to type next in the folder `here`, or why there is nothing to look at."""
    if path is not None:
        return f"Next:  normkit show{argument(path, here)}"
    if refused is not None:
        return f"normkit: nothing was recorded: {' '.join(refused.split())}"
    when = "the script ended before" if outcome.code else "in this process no"
    optimizer = "an optimizer took a step" if outcome.code else "PyTorch optimizer took a step"
    return f"normkit: nothing was recorded: {when} {optimizer}"


def argument(path: Path, here: Path) -> str:
    """The argument that `normkit show` needs for this file: none where it finds it by itself."""
    return "" if path.parent == here / FOLDER else f" {shlex.quote(shown(path, here))}"
