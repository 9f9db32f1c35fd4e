"""What TensorBoard's own reader finds in a folder, read without TensorFlow."""

from __future__ import annotations

import sys
import types
import warnings
from typing import NamedTuple

NO_TENSORFLOW = "tensorboard.compat.notf"  # TensorBoard looks for this module, and then brings its own stub


class Point(NamedTuple):
    """One value of a curve."""

    step: int
    wall: float
    value: float


sys.modules.setdefault(NO_TENSORFLOW, types.ModuleType(NO_TENSORFLOW))


def accumulator(folder):
    """TensorBoard's EventAccumulator, with every event of the folder read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        reader.Reload()
    return reader


def parsed(event):
    """The event that these bytes are."""
    from tensorboard.compat.proto.event_pb2 import Event

    return Event.FromString(event)


def curves(folder):
    """Tag -> its points."""
    reader = accumulator(folder)
    return {
        tag: [Point(event.step, event.wall_time, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }
