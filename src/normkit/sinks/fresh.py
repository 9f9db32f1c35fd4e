"""A file that was not there before: never one overwritten, never half of one left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from normkit.errors import ArgumentError, FileError, NormkitError


@contextmanager
def fresh(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """The new file at `path`, open for bytes; whatever ends the writing early takes it away again.

    Raises: ArgumentError if there is something at `path`. FileError if it cannot be written.
    """
    handle = _made(Path(path))
    try:
        with handle:
            yield handle
    except BaseException as error:
        with suppress(OSError):
            Path(path).unlink()
        if isinstance(error, OSError) and not isinstance(error, NormkitError | BrokenPipeError):
            raise FileError(f"cannot write {os.fspath(path)!r}: {error.strerror or error}") from None
        raise


def _made(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except FileExistsError:
        raise ArgumentError(f"{str(path)!r} is there already and stays as it is; give another name with -o") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        cause = getattr(error, "strerror", None) or error
        raise FileError(f"cannot write {str(path)!r}: {cause}") from None
