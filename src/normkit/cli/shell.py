"""Inside a live IPython shell or notebook (`%run -m normkit.cli run train.py`), which goes on afterwards."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


def inside_shell() -> bool:
    """Is this process an IPython shell that somebody sits at?"""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython, "get_ipython", lambda: None)() is not None


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    """In a shell: afterwards it finds its `__main__`, arguments and import path as they were."""
    if not inside_shell():
        yield
        return
    main, arguments, path = sys.modules["__main__"], sys.argv[:], sys.path[:]
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        sys.argv[:], sys.path[:] = arguments, path
