"""The command line: one file per command, opened when it is called for.

Exit codes: 0 all is well, 1 findings at or above what was asked for, 2 the command was used wrongly, 3 an input
cannot be read, 141 the reader of the output left; interrupted, it dies of SIGINT (130 to a shell). `normkit run` gives
its script's own.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The program `normkit`. Interrupted, it dies as Python does: of the signal, so that a shell's loop stops too.

    Inside IPython (`%run -m normkit ...`) it just returns: what there is to say has been said.
    """
    from normkit.cli.group import group
    from normkit.cli.script import Interrupted
    from normkit.cli.shell import inside_shell

    try:
        group(prog_name="normkit", windows_expand_args=False)
    except SystemExit as stop:
        if inside_shell():
            return
        if not isinstance(stop, Interrupted):
            raise
        sys.excepthook = lambda *_: None  # the script's traceback has been shown
        raise KeyboardInterrupt from None
