"""What a recorder says of itself: in a line at the start and at the end, and in the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from normkit.errors import NormkitError
from normkit.readers.recording import load
from normkit.recording.about import now
from normkit.store.paths import shown

if TYPE_CHECKING:
    from normkit.recording.recorder import Recorder


def beginning(recorder: Recorder, attempt: int) -> str:
    """The line said at the start: what is recorded, where and when."""
    again = f", attempt {attempt}" if attempt > 1 else ""
    where = shown(recorder.path or "no file")
    return f"recording {recorder.tensors} tensors to {where}{again} ({recorder.schedule.text()})"


def summary(recorder: Recorder) -> str:
    """The line said at the end: how much was recorded, and where."""
    steps = max(recorder.records - 1, 0)  # step 0 is a record, and no step
    where = shown(recorder.path or "no file")
    line = f"recorded {steps} of {recorder.steps} steps x {recorder.tensors} tensors in {where}"
    if recorder.schedule.passed_over:
        line += f" (stretched to stay under {100 * recorder.schedule.overhead:g} % of the time)"
    return line if recorder.broken is None else f"{line}; what went wrong: {recorder.broken}"


def readable(path: Path) -> int:
    """How many records the file holds that others can read."""
    try:
        return len(load(path))
    except (NormkitError, OSError):  # what went wrong with the disk goes wrong here too
        return 0


def failure(recorder: Recorder) -> str:
    """The warning of a recorder that something stopped."""
    return (
        f"normkit stopped recording at step {recorder.steps} ({recorder.broken}); training goes on, "
        f"and {shown(recorder.path or 'no file')} keeps the records made so far"
    )


def final_meta(recorder: Recorder, end: str) -> dict[str, Any]:
    """What the file says of the run as a whole, once it has ended as `end` says."""
    return {
        "finished": now(),
        "end": end,
        "steps": recorder.steps,
        "records": recorder.records,
        "every": recorder.schedule.text(),
        "overhead": recorder.schedule.overhead,
        "passed_over": recorder.schedule.passed_over,
    }
