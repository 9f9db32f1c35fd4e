"""Files back into readings: recordings now, checkpoints with `scan`."""

from normkit.readers.envelope import Envelope
from normkit.readers.newest import latest
from normkit.readers.recording import Event, Recording, load

__all__ = ["Envelope", "Event", "Recording", "latest", "load"]
