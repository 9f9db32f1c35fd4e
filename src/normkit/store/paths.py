"""Where a new recording goes: a name of its own, reserved at once, never an existing file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

from normkit.errors import ArgumentError, FileError, in_brief

SUFFIX = ".norms"
FOLDER = "runs"


class NewPath(NamedTuple):
    """The reserved `path`, and the one that was `wanted`; two where the wanted name was taken. Both absolute."""

    path: Path
    wanted: Path


def new_path(to: str | os.PathLike[str] | None = None, script: str | None = None) -> NewPath:
    """Reserve a new file for a recording and say whether its name had to change.

    `to` may lack the suffix and its folders; without `to` it is `runs/<script>-<YYYYmmdd-HHMM>.norms`. An existing file
    is left alone and `mine-2.norms` taken instead. The file exists, empty, when this returns, so that of several
    processes asking for one name each gets its own. Paths are absolute: a program may change its folder at any time.

    Raises: ArgumentError if `to` is no path. FileError if it is a directory, or its folder cannot be made or written.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> [new_path(f"{folder}/mine").path.name for _ in range(3)]
    ['mine.norms', 'mine-2.norms', 'mine-3.norms']
    """
    wanted = _wanted(to, script)
    _make_folder(wanted.parent)
    for number in count(1):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        if _reserve(path):
            return NewPath(path, wanted)
    raise AssertionError("unreachable")


def planned(to: str | os.PathLike[str] | None = None, script: str | None = None) -> Path:
    """The absolute path that `new_path` would try first, once it is sure that a file can be made there.

    Nothing is made that stays: neither the file nor its folders.

    Raises: as `new_path`.
    """
    path = _wanted(to, script)
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    with _or_refused(path):
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)  # a name that is too long is noticed here
        tempfile.TemporaryFile(dir=folder).close()
    return path


def shown(path: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> str:
    """The path as one would type it: relative to `folder` (the current one) where that is shorter, with "/".

    >>> shown(Path.cwd() / "runs" / "mine.norms")
    'runs/mine.norms'
    """
    whole = Path(path).as_posix()
    try:
        near = Path(os.path.relpath(path, folder)).as_posix()
    except (OSError, ValueError):  # the current folder is gone, or on another drive
        return whole
    return min(near, whole, key=len)


def _wanted(to: str | os.PathLike[str] | None, script: str | None) -> Path:
    if to is None:
        return _absolute(default_name(script))
    given = os.fspath(to) if isinstance(to, str | os.PathLike) else to
    example = f"{FOLDER}/mine{SUFFIX}"
    if not isinstance(given, str):
        raise ArgumentError(f"to={in_brief(to)}: expected the path of a file, such as {example!r}")
    if not given.strip():
        raise ArgumentError(f"to={given!r} is empty; give the name of a file, such as {example!r}, or leave it out")
    path = Path(os.path.expanduser(given))
    if os.path.isdir(path) or given.endswith(("/", os.sep)) or not path.name:
        inside = path / f"mine{SUFFIX}"
        raise FileError(f"to={given!r} is a directory; give the name of a file, such as {str(inside)!r}")
    return _absolute(path if path.suffix.lower() == SUFFIX else path.with_name(path.name + SUFFIX))


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.abspath(path))
    except OSError as error:  # the current folder is gone
        raise FileError(f"{str(path)!r} leads nowhere ({_cause(error)}); give an absolute path by to=") from None


def default_name(script: str | None = None) -> Path:
    """Where a recording goes that was given no path: `runs/<script>-<date>-<time>.norms`."""
    return Path(FOLDER, f"{script or script_name()}-{time.strftime('%Y%m%d-%H%M')}{SUFFIX}")


def script_name(given: str | None = None) -> str:
    """What the program `given`, or the running one, is called: the script's stem, "notebook", or "python" for none."""
    called = Path(given if given is not None else sys.argv[0] if sys.argv else "")
    if "ipykernel" in sys.modules or "ipykernel" in called.name:
        return "notebook"
    if called.name in ("", "-c", "-", "-m"):
        return "python"
    return called.parent.name or "python" if called.stem == "__main__" else called.stem


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise FileError(
            f"the folder {shown(folder)!r} for the recording cannot be made ({_cause(error)}); give another path by to="
        ) from None


def _reserve(path: Path) -> bool:
    if any(os.path.lexists(f"{path}{end}") for end in ("-wal", "-journal")):
        return False  # of a recording that was removed, perhaps still being written
    with _or_refused(path):
        try:
            made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
    with contextlib.suppress(OSError):  # it is made, and closed whatever this says
        os.close(made)
    return True


@contextlib.contextmanager
def _or_refused(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise FileError(
            f"the recording {shown(path)!r} cannot be made ({_cause(error)}); give another path by to="
        ) from None


def _cause(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
