"""What `normkit run` was told, in a form that other processes can be told as well."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, Self

from normkit.store.paths import default_name


@dataclass(frozen=True)
class Options:
    """How the recordings of one `normkit run` are made, in each of its processes.

    to      the file, absolute; None for runs/<script>-<date>-<time>.norms in `folder`
    every   a number of optimizer steps, or "auto"
    quiet   say nothing but errors
    resume  go on with the recording at `to`, or with the newest one of this job or command that did not finish
    budget  what a recording may take on disk, such as "256 MB"; None for no limit
    planned where a new recording of this process goes without `to`, absolute
    folder  where the command was given, absolute; a program may change its own at any time
    ledger  the file in which the other processes note what they record, or None
    teller  the process that reads it, and says at the end what was recorded
    """

    to: str | None = None
    every: int | Literal["auto"] = "auto"
    quiet: bool = False
    resume: bool = False
    budget: str | None = "256 MB"
    planned: str | None = None
    folder: str = "."
    ledger: str | None = None
    teller: int = 0

    @property
    def path(self) -> Path:
        """Where a recording of this process goes, unless something is there already."""
        return Path(self.to or self.planned or Path(self.folder, default_name()))

    def text(self) -> str:
        """All of them on one line, for an environment variable."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Self:
        """The options that `text()` gave; what another version of normkit put there besides is left out."""
        given = json.loads(text)
        return cls(**{field.name: given[field.name] for field in fields(cls) if field.name in given})
