"""A module run inside this process as `python -m package.module` would run it."""

from __future__ import annotations

import builtins
import os
import runpy
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

from normkit.cli.script import NoProgramError, Program


class _NotFoundError(Exception):
    """What Python says of a module that cannot be run."""


@dataclass(frozen=True)
class Module(Program):
    """A module or a package by its dotted name, and the arguments behind it."""

    name: str
    arguments: tuple[str, ...]

    @property
    def called(self) -> str:  # type: ignore[override]  # read only, as everything here
        """The last part of the name; of `package.__main__` the package's."""
        return self.name.removesuffix(".__main__").rpartition(".")[2]

    def _loaded(self) -> tuple[CodeType, ModuleType]:
        sys.argv[:] = ["-m", *self.arguments]  # what the packages around the module see
        if not sys.flags.safe_path:
            sys.path[0] = os.getcwd()
        spec, code = self._found()
        sys.argv[0] = str(spec.origin)
        return code, _become_main(spec)

    def _found(self) -> tuple[ModuleSpec, CodeType]:
        """As Python finds it, which imports the packages around it.

        `runpy.run_module` would take `__main__` away again at the end; pdb looks modules up by the same function.
        """
        try:
            _, spec, code = runpy._get_module_details(self.name, _NotFoundError)  # type: ignore[attr-defined]
        except _NotFoundError as error:
            raise NoProgramError(self._sentence(error)) from None
        return spec, code

    def _sentence(self, error: _NotFoundError) -> str:
        if self.name.endswith(".py"):
            return f"{self.name!r} is a file, and -m takes the name of a module; leave -m out to run it"
        reason = " ".join(str(error).split()).rstrip(".")
        return f"the module {self.name!r} cannot be run in {os.getcwd()!r} ({reason}); check the name and the folder"


def _become_main(spec: ModuleSpec) -> ModuleType:
    main = ModuleType("__main__")
    main.__dict__.update(
        __file__=spec.origin,
        __builtins__=builtins,
        __loader__=spec.loader,
        __cached__=spec.cached,
        __annotations__={},
        __package__=spec.parent,
        __spec__=spec,
    )
    sys.modules["__main__"] = main
    return main
