"""`normkit run`: a script as Python would run it, recorded."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import click

from normkit.cli.outlet import put
from normkit.cli.script import Outcome, Script, prepare


class Session(Protocol):
    """The watch over optimizers, as the door gives it."""

    def close(self, end: str) -> Path | None: ...


class When(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A number of optimizer steps, or "auto"."""

    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """`value` as an int of at least 1, or "auto"; anything else is a usage error that names it."""
        text = str(value)
        if text == "auto":
            return text
        if not text.isdecimal() or int(text) < 1:
            self.fail(f"{text!r} is neither a number of steps of at least 1 nor 'auto'", param, ctx)
        return int(text)


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--to", metavar="PATH", help="The recording to make. Default: runs/<script>-<date>-<time>.norms")
@click.option(
    "--every",
    type=When(),
    default="auto",
    help="Record each N-th optimizer step. Default: auto, the first 100 and then every 10th, under 1 % of the time.",
)
@click.argument("script", metavar="SCRIPT")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENTS]...", type=click.UNPROCESSED)
def command(to: str | None, every: int | str, script: str, arguments: tuple[str, ...]) -> None:
    """Run a training script and record the weight norms of the model it trains.

    The script needs no change: any PyTorch optimizer is noticed. What stands behind SCRIPT is the script's own;
    options of normkit stand before it. The exit code is the script's; what normkit says goes to stderr.
    """
    sys.exit(recorded(prepare(script, arguments), to=to, every=every))


def recorded(script: Script, *, to: str | None, every: int | str) -> int:
    """Run the script with every optimizer watched; its exit code."""
    session = armed(to=to, every=every)
    owner = os.getpid()
    outcome = script.run()
    if os.getpid() == owner:  # a child that the script forked comes by here as well
        put(farewell(session.close(outcome.end) if session else None, outcome), err=True)
    return outcome.code


def armed(*, to: str | None, every: int | str) -> Session | None:
    """The watch over optimizers; None where PyTorch is not installed, for the script may do without."""
    if find_spec("torch") is None:
        return None
    from normkit.torch.run import arm

    session: Session = arm(to=to, every=every)
    return session


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
