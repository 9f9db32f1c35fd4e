"""What a framework's door gives to its recorder."""

from __future__ import annotations

from typing import Any

from normkit.recording.checks import plain_scalar
from normkit.recording.packet import Packet


class Door:
    """The half of a recorder that each framework writes for itself."""

    def _record_weights(self) -> None:
        """Record the weights as they are now."""
        raise NotImplementedError

    def _present(self) -> Packet:
        """The weights now, for nobody but the recorder."""
        raise NotImplementedError

    def _counted(self) -> int | None:
        """How many steps were made before the recorder looked, where the optimizer says so."""
        return None

    def _detach(self) -> None:
        """Take the hooks away."""
        raise NotImplementedError

    def _complete(self) -> bool:
        """Does the newest record show the weights as they are now?"""
        return True

    def _skipped(self) -> int:
        """How many of the counted steps a gradient scaler turned out to have skipped."""
        return 0

    def _kept(self, value: Any) -> Any:
        """A logged value in a form that keeps nothing else alive."""
        return value

    def _scalar(self, name: str, value: Any) -> Any:
        """A float, or a Late of one number."""
        return plain_scalar(name, value)
