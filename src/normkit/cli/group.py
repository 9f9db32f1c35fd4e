"""The list of commands, and the only place where an error becomes an exit code."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module

import click

from normkit.cli.script import Interrupted
from normkit.errors import FileError, NormkitError

COMMANDS = ("run", "show", "export", "compare")
USAGE, UNREADABLE, PIPE = 2, 3, 141


class Group(click.Group):
    """Commands by name, each imported from its file when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"normkit.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        close = get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and close:
            ctx.fail(f"No such command {args[0]!r}; did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; say our own errors in one line."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except NormkitError as error:
            sentence = " ".join(str(error).split())
            click.echo(f"normkit: {sentence}", err=True)
            ctx.exit(UNREADABLE if isinstance(error, FileError) else USAGE)
        except KeyboardInterrupt:
            raise Interrupted from None
        except BrokenPipeError:
            leave_the_pipe()
            ctx.exit(PIPE)
        return result


def leave_the_pipe() -> None:
    """Whoever read our output has gone: write the rest to nowhere, so that the interpreter's last flush is quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="normkit", prog_name="normkit", message="%(prog)s %(version)s")
def group() -> None:
    """Record the weight norms of a training run, and look at them.

    \b
    normkit run train.py --lr 0.1     records it; the script needs no change
    normkit show                      the newest recording: findings, then a table
    """
