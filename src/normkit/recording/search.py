"""Which recording a resumed run goes on with, and who else may be writing it."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from normkit.errors import ArgumentError, FileError, NormkitError, StateError, in_brief
from normkit.readers.recording import Recording
from normkit.recording.past import Past
from normkit.store.file import is_live
from normkit.store.paths import FOLDER, SUFFIX, planned, script_name, shown

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
DONE = ("finished", "interpreter exit", "dropped")  # ends of a run that did not break off
FRESH = 120.0  # seconds in which another host's file was written, so that it may still be: nobody can ask its processes


def find(resume: Resume, to: str | Path | None, folder: str | Path = ".") -> Past | None:
    """The recording to go on with; None where a new one is to be begun. `folder` is the one that holds `runs`.

    True      the one at `to`, or else the newest of this script; there must be one
    "auto"    the one at `to` if it is there; or else the newest one of this job, or outside of a batch system the
              newest of this command that broke off; where there is none, a new one is begun
    """
    if resume is False:
        return None
    if resume is not True and resume != "auto":
        raise ArgumentError(f"resume={in_brief(resume)}: expected True, False or 'auto'")
    past = _at(planned(to)) if to is not None else _newest(resume, Path(folder, FOLDER))
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
    """What tells this writer from all others, as far as its host can say."""
    return {"pid": os.getpid(), "born": _born(os.getpid()), "job": this_job(), "claim": uuid.uuid4().hex}


def writer_of(recording: Recording) -> str | None:
    """Who is writing the file now, in words; None where nobody is, as far as this host can know."""
    if is_live(recording.path):
        return "this very process"
    meta = recording.meta
    pid, born, host = meta.get("pid"), meta.get("born"), meta.get("host")
    if meta.get("finished") or not isinstance(pid, int):
        return None
    if host != socket.gethostname():
        walls = recording.walls
        fresh = len(walls) > 0 and time.time() - float(walls[-1]) < FRESH
        return f"process {pid} of {host}" if fresh and meta.get("job") is None else None
    return f"process {pid}" if born is not None and _born(pid) == born and pid != os.getpid() else None


def _at(path: Path) -> Past | None:
    if _stat(path) is None:
        return None
    recording = Recording(path)
    if (writer := writer_of(recording)) is not None:
        raise StateError(f"{shown(path)!r} is still being written by {writer}; close that one first")
    return Past(recording)


def _newest(resume: Resume, folder: Path) -> Past | None:
    """The newest recording of this script, or of this very job or command, by the date in its name."""
    named = re.compile(rf"{re.escape(script_name())}-(\d{{8}}-\d{{4}})(?:-(\d+))?{re.escape(SUFFIX)}")
    matches = [(match, path) for path in folder.glob(f"*{SUFFIX}") if (match := named.fullmatch(path.name))]
    files = [(match[1], int(match[2] or 1), path) for match, path in matches if _stat(path)]
    for *_, path in sorted(files, reverse=True):
        try:
            recording = Recording(path)
        except NormkitError:
            continue
        if writer_of(recording) is None and (resume is True or _is_ours(recording.meta)):
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
    return meta.get("argv") == sys.argv[:100] and meta.get("end") not in DONE


def _born(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; None where there is none, or no way to know."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
