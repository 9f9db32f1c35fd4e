"""`record`: where a recording of a JAX training run begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from normkit.errors import ArgumentError
from normkit.jax.arguments import check_path
from normkit.jax.recorder import JaxRecorder
from normkit.recording.search import Resume
from normkit.recording.terms import Terms
from normkit.types import QUANTITIES, When


def record(
    to: str | Path | None = None,
    *,
    params: Any = None,
    every: When = "auto",
    select: Any = None,
    what: Sequence[str] = QUANTITIES,
    per: str | int | Mapping[str, str | int] = "tensor",
    overhead: float = 0.01,
    quiet: bool = False,
    resume: Resume = False,
    step: int | None = None,
    budget: int | str | None = "256 MB",
    ranks: Literal["first", "all"] = "first",
    csv: str | Path | None = None,
    tensorboard: str | Path | None = None,
    wandb: Any = None,
    mlflow: Any = None,
) -> JaxRecorder:
    """Record the norms of a training run into one file; the recorder is called after each step.

        recorder = nk.record("runs/mine.norms", params=params)
        for batch in batches:
            params, opt_state, stats = train_step(params, opt_state, batch)    # returns nk.stats(...) besides
            recorder(stats)                                                    # or recorder(step, stats)
        recorder.close()                                                       # or: with nk.record(...) as recorder:

    Nothing waits for the device: numbers are written when they have arrived. A record of step t holds, for every chosen
    tensor, the sums (`types.SUMS`) of the weight after step t, of the gradient and of the update, as `nk.stats` says.

    to         the file; default runs/<script>-<date>-<time>.norms. An existing file is never written to: mine-2.norms
    params     the weights before training, recorded as step 0; a tree of dicts, a flax or equinox module. Without them
               the file begins with the first call, and there is no step 0
    every      "auto" (each of the first 100 steps, then every 10, stretched to stay under `overhead`), a number of
               steps, an `Every` (epochs end where `recorder.epoch()` is called), or a function of the step. The last
               step that the recorder was given is there besides, where its stats or arrays are still there at the
               end: stats are; trees that the loop has donated or dropped by then are not, and a line says so
    select     which tensors (docs: select); default: everything trainable. Of stats, those that they hold
    what       quantities
    per        where trees are given to the recorder, what `nk.stats(per=...)` is for stats: {"blocks.*": 0} stores the
               same sums also for each layer of a scanned stack, "out" for each output unit
    overhead   what "auto" may cost, as a share of the training time, as far as the calls take it
    quiet      say nothing at start and end
    resume     True goes on with the recording at `to`, or with the newest one of this script, as a further attempt;
               "auto" does so where there is one. Needs params
    step       the step at which a resumed run stands. Without it: the newest record with the present weights, else the
               last step recorded
    budget     bytes, or a text such as "1 GB", that the file is kept under; None is no limit
    ranks      of several processes the first one records; "all" makes a file for each (mine.rank3.norms)
    csv        a file that grows while training goes on: a row per step, tensor and quantity
    tensorboard   a folder for TensorBoard's event files
    wandb      True for the active run of Weights & Biases, or a run
    mlflow     True for the active MLflow run, or a run's id

    Raises: ArgumentError (a rule that matches nothing, a bad `every`, no path first), FileError (a path that cannot be
    written). Once recording, only for calls that make no sense; else nothing of it reaches the training.
    """
    check_path(to)
    if resume and params is None:
        raise ArgumentError(
            f"record(resume={resume!r}): a resumed run is known by its weights; give those loaded as params="
        )
    terms = Terms(
        to=to,
        every=every,
        what=what,
        per=per,
        overhead=overhead,
        quiet=quiet,
        resume=resume,
        step=step,
        budget=budget,
        ranks=ranks,
        csv=csv,
        tensorboard=tensorboard,
        wandb=wandb,
        mlflow=mlflow,
    )
    rank = jax.process_index()
    recorder = JaxRecorder(terms.for_rank(rank), select, enabled=rank == 0 or ranks == "all")
    try:
        recorder._start(params)
    except BaseException:
        recorder._give_up()
        raise
    return recorder
