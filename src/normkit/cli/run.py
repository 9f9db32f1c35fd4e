"""`normkit run`: a script, a module or any command, recorded."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from normkit.cli.below import told
from normkit.cli.command import die_of
from normkit.cli.farewell import farewell
from normkit.cli.module import Module
from normkit.cli.outlet import put
from normkit.cli.program import Runnable, program_of
from normkit.cli.script import Interrupted, Outcome
from normkit.cli.shell import inside_shell, put_back
from normkit.cli.telling import telling
from normkit.cli.watch import Watch
from normkit.errors import ArgumentError, NormkitError
from normkit.recording.checks import check_budget
from normkit.recording.imports import forget_imports
from normkit.recording.ledger import Notes, ledger, noted
from normkit.recording.options import Options
from normkit.recording.rank import told_rank
from normkit.store.paths import planned, script_name


class WhenType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A number of optimizer steps, or "auto"."""

    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["auto"]:
        """`value` as an int of at least 1, or "auto"; anything else is a usage error that names it."""
        text = str(value)
        if text == "auto":
            return "auto"
        if not text.isdecimal() or int(text) < 1:
            self.fail(f"{text!r} is neither a number of steps of at least 1 nor 'auto'", param, ctx)
        return int(text)


class BudgetType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A size on disk, or "none"."""

    name = "SIZE|none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str | None:
        """`value` as it was given, None for "none"; anything else is a usage error that names it."""
        text = str(value)
        if text.lower() == "none":
            return None
        try:
            check_budget(text)
        except ArgumentError as error:
            self.fail(str(error).replace("budget=", "").replace("None", "none"), param, ctx)
        return text


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
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the recording at --to, or with the newest one of this batch job, or of this command if it did not "
    "finish; where there is none, begin one.",
)
@click.option(
    "--budget",
    type=BudgetType(),
    default="256 MB",
    help="Keep the file under this size by thinning older records: a size such as '1 GB', or none. Default: 256 MB.",
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-m", "as_module", is_flag=True, help="SCRIPT is the name of a module or package, as for python -m.")
@click.argument("script", metavar="[--] SCRIPT|COMMAND")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENTS]...", type=click.UNPROCESSED)
def command(
    *,
    to: str | None,
    every: int | Literal["auto"],
    resume: bool,
    budget: str | None,
    quiet: bool,
    as_module: bool,
    script: str,
    arguments: tuple[str, ...],
) -> None:
    """Run a training script and record its weight norms.

    The script needs no change: any PyTorch optimizer and any `fit` of a Keras model is noticed, in the Python processes
    that the script starts too.
    What stands behind SCRIPT is the script's own; options of normkit stand before it. The exit code is the script's;
    what normkit says goes to stderr.

    \b
    normkit run train.py --lr 0.1
    normkit run -m package.train --lr 0.1
    normkit run -- torchrun --nproc-per-node 2 train.py

    What neither ends in .py nor is a plain file is a command, run as a child process. Of a distributed run rank 0
    records.
    """
    program = Module(script, arguments) if as_module else program_of(script, arguments)
    path = place(to, program)
    options = Options(
        to=str(path) if to else None, every=every, quiet=quiet, resume=resume, budget=budget, folder=os.getcwd()
    )
    if resume and to:
        check_resumable(path)
    outcome = recorded(program, path, options)
    if inside_shell():
        return
    if outcome.signal:
        die_of(outcome.signal)
    if outcome.interrupted:
        raise Interrupted
    sys.exit(outcome.code)


def place(to: str | None, program: Runnable) -> Path:
    """The file to record into. Raises: ArgumentError in the words of the command line."""
    try:
        return planned(to, script_name(program.called))
    except NormkitError as error:
        raise ArgumentError(str(error).replace("to=", "--to=")) from None


def check_resumable(path: Path) -> None:
    """Before anything is trained: can this recording be gone on with? Raises: NormkitError."""
    from normkit.recording.search import find

    find("auto", path)


def recorded(program: Runnable, path: Path, options: Options) -> Outcome:
    """Run the program with every optimizer watched, in this process and in those below it; this one records to `path`.

    A run further up may watch this process too: then the nearer one records, and the upper one speaks at the end.
    """
    here, owner, above = Path.cwd(), os.getpid(), told()
    forget_imports()
    with ledger() if above is None else nullcontext(above.ledger) as notes, put_back():
        options = replace(options, ledger=notes, teller=above.teller if above else owner)
        with telling(options):
            watch = Watch(lambda: replace(options, planned=str(path)))
            outcome = program.run()
        if os.getpid() == owner:  # a child that the script forked comes by here as well
            made = watch.close(outcome.end)
            if not (above or watch.silent or told_rank()):
                speak(noted(notes).after(made, watch.refused), program, outcome, here, quiet=options.quiet)
    return outcome


def speak(notes: Notes, program: Runnable, outcome: Outcome, here: Path, *, quiet: bool) -> None:
    """Say the last line, where it is wanted and somebody listens; the exit code is the program's in any case."""
    if not quiet or (notes.refused and not notes.recorded):
        with suppress(OSError, ValueError):
            put(farewell(notes, program, outcome, here), err=True)
