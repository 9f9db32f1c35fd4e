"""Writes the pages of docs/ that are made from the code: the commands' help and the file format.

    python tools/generated.py

A test compares them with what this would write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click

DOCS = Path(__file__).parents[1] / "docs"


def commands() -> str:
    """The help of every command, as the terminal shows it."""
    from normkit.cli.group import group

    sections = "\n".join(f"## {name}\n\n```text\n{text}\n```\n" for name, text in helps(group, "normkit", None))
    return f"# Commands\n\nWhat the terminal answers to `normkit --help` and to `normkit COMMAND --help`.\n\n{sections}"


def helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """Name and help of a command and of those below it."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=100, max_content_width=100, **command.context_settings
    )
    yield context.command_path, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            if found := command.get_command(context, inner):
                yield from helps(found, inner, context)


def file_format() -> str:
    """The schema, from its own comments."""
    from normkit.store import schema

    return schema.page()


PAGES: dict[str, Callable[[], str]] = {"commands.md": commands, "file-format.md": file_format}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"wrote docs/{name}")
