"""The watch over a script: a framework's door is armed when the script imports that framework, and not before."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from normkit.recording.imports import when_imported

DOORS: Mapping[str, str] = MappingProxyType({"torch": "normkit.torch.run"})  # framework -> what arms its door


class Session(Protocol):
    """The recordings of one framework, as its door gives them."""

    refused: str | None

    def close(self, end: str) -> Path | None: ...


class Watch:
    """Every door whose framework the script imports; `close` gives the first recording made, or None."""

    def __init__(self, *, to: Path, every: int | str, quiet: bool) -> None:
        self._sessions: list[Session] = []
        for framework, module in DOORS.items():
            when_imported(framework, lambda module=module: self._arm(module, to, every, quiet))  # type: ignore[misc]

    @property
    def refused(self) -> str | None:
        """Why a recording that was to begin did not; None where nothing stood in the way."""
        return next((session.refused for session in self._sessions if session.refused), None)

    def close(self, end: str) -> Path | None:
        paths = [session.close(end) for session in self._sessions]
        return next((path for path in paths if path is not None), None)

    def _arm(self, module: str, to: Path, every: int | str, quiet: bool) -> None:
        self._sessions.append(import_module(module).arm(to=to, every=every, quiet=quiet))
