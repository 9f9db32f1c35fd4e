"""`normkit run`: a script as Python would run it, recorded."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path

import click

from normkit.cli.outlet import put
from normkit.cli.script import Outcome, Script, prepare
from normkit.cli.watch import Watch


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
@click.argument("script", metavar="SCRIPT")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENTS]...", type=click.UNPROCESSED)
def command(to: str | None, every: int | str, script: str, arguments: tuple[str, ...]) -> None:
    """Run a training script and record its weight norms.

    The script needs no change: any PyTorch optimizer is noticed. What stands behind SCRIPT is the script's own;
    options of normkit stand before it. The exit code is the script's; what normkit says goes to stderr.
    """
    sys.exit(recorded(prepare(script, arguments), to=to, every=every))


def recorded(script: Script, *, to: str | None, every: int | str) -> int:
    """Run the script with every optimizer watched; its exit code."""
    watch = Watch(to=to, every=every)
    owner = os.getpid()
    outcome = script.run()
    if os.getpid() == owner:  # a child that the script forked comes by here as well
        words = farewell(watch.close(outcome.end), outcome)
        with contextlib.suppress(OSError, ValueError):  # nobody listens: the exit code is still the script's
            put(words, err=True)
    return outcome.code


def farewell(path: Path | None, outcome: Outcome) -> str:
    """What to type next, or why there is nothing to look at."""
    if path is None:
        when = "the script ended before" if outcome.code else "in this process no"
        optimizer = "an optimizer took a step" if outcome.code else "PyTorch optimizer took a step"
        return f"normkit: nothing was recorded: {when} {optimizer}"
    return f"Next:  normkit show{shown(path)}"


def shown(path: Path) -> str:
    """The argument that `normkit show` needs for this file: none where it finds it by itself."""
    return "" if path.absolute().parent == Path("runs").absolute() else f" {shlex.quote(str(path))}"
