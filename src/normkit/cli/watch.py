"""The watch over a program: a framework's door is armed when the program imports that framework, and not before."""

from __future__ import annotations

from importlib import import_module

from normkit.recording.imports import forget_imports, when_imported

TYPE_CHECKING = False  # nothing is imported here that takes time: a process may never need it
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Protocol

    from normkit.recording.options import Options

    class Session(Protocol):
        """The recordings of one framework, as its door gives them."""

        refused: str | None
        silent: bool

        def close(self, end: str) -> Path | None: ...


DOORS: Mapping[str, str] = {  # framework -> what arms its door
    "torch": "normkit.torch.run",
    "keras": "normkit.keras.run",
}


class Watch:
    """Every door whose framework the program imports; `close` gives the first recording made, or None.

    `told` gives the options, when they are needed. A door that cannot be armed is a warning and no more: it is the
    program's own import that brought it about.
    """

    def __init__(self, told: Callable[[], Options]) -> None:
        self._told = told
        self._sessions: list[Session] = []
        self._failed: str | None = None
        for framework, module in DOORS.items():
            when_imported(framework, lambda module=module: self._arm(module))  # type: ignore[misc]

    @property
    def refused(self) -> str | None:
        """Why a recording that was to begin did not; None where nothing stood in the way."""
        return next((session.refused for session in self._sessions if session.refused), self._failed)

    @property
    def silent(self) -> bool:
        """Did the program train as one of several processes, of which another one records?"""
        return any(session.silent for session in self._sessions)

    def close(self, end: str) -> Path | None:
        forget_imports()
        paths = [session.close(end) for session in self._sessions]
        return next((path for path in paths if path is not None), None)

    def _arm(self, module: str) -> None:
        try:
            self._sessions.append(import_module(module).arm(self._told()))
        except Exception as error:
            from normkit.recording.about import warn_once

            self._failed = f"{type(error).__name__}: {error}"
            warn_once(f"normkit does not record this process ({self._failed}); it goes on")
