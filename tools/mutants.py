"""Puts the mistakes of this field into a copy of the code, one by one; some test must catch each.

    python tools/mutants.py              all of them (make test-slow)
    python tools/mutants.py --list       what they are
    python tools/mutants.py --only 3     one of them

A row of tools/mistakes.py names the mistake, the file, the text it replaces (which must stand there exactly once) and
the tests that must fail. The selected tests must pass on the unchanged copy first: a red baseline proves nothing.
Ends with 0 when every mistake was caught, 1 when one survived or a row is out of date, 2 on a red baseline.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".git", ".venv", "__pycache__", "_build", "runs", "dist", "build", ".*_cache", ".hypothesis", "*.norms")
LONGEST = 600  # seconds for the tests of one mistake; an endless loop counts as caught

CAUGHT, SURVIVED, OUTDATED, BROKEN = "caught", "SURVIVED", "OUTDATED", "BROKEN"
VERDICTS = {0: SURVIVED, 1: CAUGHT}  # by pytest's exit code; others say that the tests could not run


@dataclass(frozen=True)
class Mutant:
    """One mistake: what it is, where, how, and the tests (pytest arguments) that must catch it."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def is_current(self, root: Path) -> bool:
        """Does the text to replace stand exactly once in its file?"""
        path = root / self.file
        return path.is_file() and path.read_text("utf-8").count(self.old) == 1 and self.old != self.new


class Copy:
    """A copy of the project's tree in which tests run; its compiled numba code is kept apart from the user's."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = folder / "tree"
        self.caches = folder / "numba"
        shutil.copytree(root, self.root, ignore=shutil.ignore_patterns(*LEFT_OUT))

    def test(self, tests: Sequence[str], *, cache: str) -> tuple[int, str]:
        """Exit code and output of pytest on the copy; `cache` names the folder of compiled code."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        env = os.environ | {
            "PYTHONPATH": str(self.root / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NUMBA_CACHE_DIR": str(self.caches / cache),
        }
        try:
            done = subprocess.run(
                command, cwd=self.root, env=env, capture_output=True, text=True, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            return 1, f"no end after {LONGEST} s"
        return done.returncode, done.stdout + done.stderr

    def imports_itself(self) -> bool:
        """Do the packages of the copy come from the copy, whatever is installed?"""
        names = [path.parent.name for path in (self.root / "src").glob("*/__init__.py")]
        code = f"import {', '.join(names)}; print(*[m.__file__ for m in ({', '.join(names)},)], sep='\\n')"
        env = os.environ | {"PYTHONPATH": str(self.root / "src")}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        return all(Path(line).is_relative_to(self.root) for line in done.stdout.split())

    @contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """The copy with the mistake in it; afterwards as before, to the time stamp, which numba's cache goes by."""
        path = self.root / mutant.file
        text, stat = path.read_text("utf-8"), path.stat()
        path.write_text(text.replace(mutant.old, mutant.new), "utf-8")
        try:
            yield
        finally:
            path.write_text(text, "utf-8")
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cache_for(number: int, mutant: Mutant) -> str:
    """Compiled code is trusted while its own file is unchanged, even where a function it inlined is not: start anew."""
    return f"only-{number}" if "/ops/" in mutant.file else "shared"


def run_one(copy: Copy, number: int, mutant: Mutant) -> str:
    """Put one mistake in, run its tests, print and return the verdict."""
    start = time.perf_counter()
    verdict, output = OUTDATED, ""
    if mutant.is_current(copy.root):
        with copy.changed(mutant):
            code, output = copy.test(mutant.tests, cache=cache_for(number, mutant))
        verdict = VERDICTS.get(code, BROKEN)
    print(
        f"{number:3d}  {verdict:8s}  {time.perf_counter() - start:5.1f} s  {mutant.what}  ({mutant.file})", flush=True
    )
    if verdict == BROKEN:
        print("\n".join(output.splitlines()[-15:]))
    return verdict


def run(chosen: dict[int, Mutant], root: Path) -> int:
    """Baseline, then every mistake; the exit code."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(root, Path(folder).resolve())
        if not copy.imports_itself():
            print("the tests would not see the copy: is another version ahead of PYTHONPATH?")
            return 2
        tests = sorted({test for mutant in chosen.values() for test in mutant.tests})
        code, output = copy.test(tests, cache="shared")
        if code:
            print(output, "\nThe baseline is red: nothing can be learned from mistakes before these tests pass.")
            return 2
        verdicts = [run_one(copy, number, mutant) for number, mutant in chosen.items()]
    caught = verdicts.count(CAUGHT)
    print(f"{caught} of {len(verdicts)} mistakes caught")
    return 0 if caught == len(verdicts) else 1


def main(argv: Sequence[str] | None = None, *, mutants: Sequence[Mutant], root: Path = ROOT) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--list", action="store_true", help="say what the mistakes are and stop")
    parser.add_argument("--only", type=int, action="append", metavar="N", help="this one; can be given again")
    args = parser.parse_args(argv)
    numbered = dict(enumerate(mutants, 1))
    if unknown := [number for number in args.only or () if number not in numbered]:
        parser.error(f"--only {unknown[0]}: there are mistakes 1 to {len(numbered)}")
    chosen = {number: numbered[number] for number in args.only or numbered}
    if args.list:
        for number, mutant in chosen.items():
            print(f"{number:3d}  {mutant.what}  ({mutant.file}: {' '.join(mutant.tests)})")
        return 0
    return run(chosen, root)


if __name__ == "__main__":
    from mistakes import MISTAKES

    sys.exit(main(mutants=[Mutant(*row) for row in MISTAKES]))
