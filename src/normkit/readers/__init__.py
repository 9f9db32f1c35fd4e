"""Files back into readings: recordings now, checkpoints with `scan`."""

from normkit.readers.recording import Event, Recording, latest, load

__all__ = ["Event", "Recording", "latest", "load"]
