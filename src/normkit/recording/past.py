"""What was recorded before: which recording a resumed run goes on with, and at which step it stands."""

from __future__ import annotations

import glob
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from normkit.errors import ArgumentError, FileError, NormkitError, StateError, in_brief
from normkit.readers.recording import Recording
from normkit.recording.about import now
from normkit.store.file import is_live
from normkit.store.paths import FOLDER, SUFFIX, planned, script_name, shown

if TYPE_CHECKING:
    from normkit.store.writer import Writer
    from normkit.types import Matrix

Resume = bool | Literal["auto"]

# What batch systems call a job; a job that they start again keeps its number.
JOBS = {
    "slurm": ("SLURM_JOB_ID",),
    "pbs": ("PBS_JOBID",),
    "lsf": ("LSB_JOBID", "LSB_JOBINDEX"),
    "oar": ("OAR_JOB_ID",),
    "flux": ("FLUX_JOB_ID",),
    "cobalt": ("COBALT_JOBID",),
    "sagemaker": ("TRAINING_JOB_NAME",),
    "aws batch": ("AWS_BATCH_JOB_ID",),
}
SAME = 1e-11  # relative: sums of equal weights, which another number of threads may add in another order


class Start(NamedTuple):
    """Where a resumed run stands: the optimizer steps done, and how that is known."""

    step: int
    known: str


class Past:
    """The recording that a run goes on with."""

    def __init__(self, recording: Recording) -> None:
        self.path = recording.path.absolute()
        self._recording = recording

    def settle(self, writer: Writer, weights: Mapping[str, float], *, told: int | None, counted: int | None) -> Start:
        """Find the step at which training stands, and note in the file that it goes on there."""
        start = self.start(weights, told=told, counted=counted)
        writer.update_meta({"attempts": self._attempts(start.step)})
        writer.event("resumed", f"goes on at step {start.step}, {start.known}", step=start.step)
        return start

    def start(self, weights: Mapping[str, float], *, told: int | None, counted: int | None) -> Start:
        """The step at which training stands now.

        told     what the user says
        weights  name -> sum of squares now: the newest record with the same ones is that of this moment
        counted  steps that the optimizer says it has made in its life, or None
        """
        if told is not None:
            return Start(told, "as step= says")
        found = self._found(weights)
        if found is not None:
            return Start(found, "whose weights are the present ones")
        before = int(self._recording.meta.get("counted_before", 0))
        if counted is not None and counted > before:
            return Start(counted - before, "as the optimizer's state says")
        steps = self._recording.steps
        last = int(steps[-1]) if len(steps) else 0
        return Start(last, "the last one recorded, as neither the weights nor the optimizer tell")

    def before(self, step: int) -> int:
        """How many of its records are of earlier steps."""
        return int((self._recording.steps < step).sum())

    def _attempts(self, step: int) -> list[dict[str, Any]]:
        """The list of attempts, with the one that begins now at `step`."""
        meta = self._recording.meta
        first = {"began": 0, "started": meta.get("started"), "end": meta.get("end", "killed")}
        known = [*meta.get("attempts", [first])]
        known[-1] = {**known[-1], "end": meta.get("end", "killed")}
        return [*known, {"began": step, "started": now()}]

    def _found(self, weights: Mapping[str, float]) -> int | None:
        columns = [column for column, name in enumerate(self._recording.tensors) if name in weights]
        if not columns:
            return None
        now = np.array([weights[self._recording.tensors[column]] for column in columns])
        then: Matrix = self._recording.sums("sq")[:, columns]
        same = np.isclose(then, now, rtol=SAME, atol=0.0) | np.isnan(then)
        rows = np.flatnonzero(same.all(axis=1) & ~np.isnan(then).all(axis=1))
        return int(self._recording.steps[rows[-1]]) if rows.size else None


def find(resume: Resume, to: str | Path | None, folder: str | Path = ".") -> Past | None:
    """The recording to go on with; None where a new one is to be begun. `folder` is the one that holds `runs`.

    True      the one at `to`, or else the newest of this script; there must be one
    "auto"    the one at `to` if it is there; or else the newest one of this job, or outside of a batch system the
              newest of this command that did not come to its end; where there is none, a new one is begun
    """
    if resume is False:
        return None
    if resume is not True and resume != "auto":
        raise ArgumentError(f"resume={in_brief(resume)}: expected True, False or 'auto'")
    past = _at(planned(to), resume) if to is not None else _newest(resume, Path(folder, FOLDER))
    if past is None and resume is True:
        where = repr(shown(planned(to))) if to is not None else f"of {script_name()!r} in {FOLDER!r}"
        raise FileError(f"there is no recording {where} to resume; leave resume= out, or say resume='auto'")
    return past


def this_job() -> str | None:
    """The batch system's name for this job, or None."""
    for system, variables in JOBS.items():
        if os.environ.get(variables[0]):
            return " ".join([system, *(os.environ.get(each, "") for each in variables)]).rstrip()
    return None


def this_process() -> dict[str, Any]:
    """What tells this process from all others, as far as its host can say."""
    return {"pid": os.getpid(), "born": _born(os.getpid()), "job": this_job()}


def _at(path: Path, resume: Resume) -> Past | None:
    if _stat(path) is None:
        return None
    recording = Recording(path)
    if (writer := _writer_of(recording)) is not None:
        raise StateError(f"{shown(path)!r} is still being written by {writer}; close that one first")
    return Past(recording)


def _newest(resume: Resume, folder: Path) -> Past | None:
    """The newest recording of this script, or of this very job or command."""
    dated = "[0-9]" * 8 + "-" + "[0-9]" * 4
    names = folder.glob(f"{glob.escape(script_name())}-{dated}*{SUFFIX}")
    files = [(found.st_mtime, path) for path in names if (found := _stat(path))]
    for _, path in sorted(files, reverse=True):
        try:
            recording = Recording(path)
        except NormkitError:
            continue
        if _writer_of(recording) is None and (resume is True or _is_ours(recording.meta)):
            return Past(recording)
    return None


def _stat(path: Path) -> os.stat_result | None:
    """What is known of a file that holds something; None for no such file. Raises: FileError where nobody knows."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"{shown(path)!r} cannot be looked at ({error.strerror}); is its folder there?") from None
    return found if found.st_size else None


def _is_ours(meta: Mapping[str, Any]) -> bool:
    job = this_job()
    if job is not None or meta.get("job") is not None:
        return bool(job == meta.get("job"))
    return meta.get("argv") == sys.argv[:100] and meta.get("end") != "finished"


def _writer_of(recording: Recording) -> str | None:
    """Who is writing the file now, in words; None where nobody on this host is."""
    if is_live(recording.path):
        return "this very process"
    meta = recording.meta
    pid, born = meta.get("pid"), meta.get("born")
    if meta.get("finished") or meta.get("host") != socket.gethostname() or not isinstance(pid, int):
        return None
    return f"process {pid}" if born is not None and _born(pid) == born and pid != os.getpid() else None


def _born(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; None where there is none, or no way to know."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
