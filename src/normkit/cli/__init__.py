"""The command line: one file per command, opened when it is called for.

Exit codes: 0 all is well, 1 findings at or above what was asked for, 2 the command was used wrongly, 3 an input
cannot be read, 130 interrupted, 141 the reader of the output left. `normkit run` gives its script's own.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The program `normkit`."""
    from normkit.cli.group import group

    group(prog_name="normkit", windows_expand_args=False)
