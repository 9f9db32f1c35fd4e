"""`record`: where a recording of a PyTorch model begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from normkit.recording.board import TensorBoard
from normkit.recording.search import Resume
from normkit.recording.terms import Terms
from normkit.torch.arguments import Models, sort_out
from normkit.torch.describe import rank
from normkit.torch.recorder import TorchRecorder
from normkit.types import QUANTITIES, When


def record(
    model: Models | torch.optim.Optimizer | None = None,
    optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None = None,
    *,
    to: str | Path | None = None,
    every: When = "auto",
    select: Any = None,
    what: Sequence[str] = QUANTITIES,
    per: str | Mapping[str, str] = "tensor",
    overhead: float = 0.01,
    quiet: bool = False,
    resume: Resume = False,
    step: int | None = None,
    budget: int | str | None = "256 MB",
    ranks: Literal["first", "all"] = "first",
    csv: str | Path | None = None,
    tensorboard: str | Path | TensorBoard | None = None,
    wandb: Any = None,
    mlflow: Any = None,
) -> TorchRecorder:
    """Record the norms of `model` while `optimizer` trains it, into one file.

    Attaches to the optimizer's own step hooks; the training loop stays as it is. A record of step t holds, for
    every chosen tensor w, the sums (`types.SUMS`) of

        weight   w_t, just after step t (t = 0: before training)
        grad     g_t as the step used it: clipped, unscaled; `dot` is <w_{t-1}, g_t>, where updates are recorded too
        update   w_t - w_{t-1}, taken in float64; `dot` is <w_{t-1}, w_t - w_{t-1}>

    model      a module, several ({"G": g, "D": d} or a list), or none when the optimizer is given alone
    optimizer  one or several; the first one given counts the steps. Without one, call `rec.step()` after each step.
    to         the file; default runs/<script>-<date>-<time>.norms. An existing file is never written to: mine-2.norms
    every      "auto" (each of the first 100 steps, then every 10, stretched to stay under `overhead`), a number of
               steps, an `Every`, or a function of the step. Step 0 and the last step are there in any case.
    select     which tensors (docs: select); default: everything trainable
    what       quantities; updates need one copy of the weights
    per        "out" (or "in") stores the same sums also for each row of a matrix, each filter of a convolution: one
               group per index of the axes that are the layer's outputs. A dict says for which: {"head.*": "out"}
    overhead   what "auto" may cost, as a share of the training time; the first 20 ms in all are free
    quiet      say nothing at start and end
    resume     True goes on with the recording at `to`, or with the newest one of this script, as a further attempt:
               what it repeats replaces what was there. "auto", for jobs that may be started again, does so where such a
               recording exists (of the same batch job, or outside of one of the same command that did not finish).
               Load the checkpoint first
    step       the optimizer step at which a resumed run stands. Without it: the newest record with the present
               weights, else what the optimizer's state says, else the last step recorded
    budget     bytes, or a text such as "1 GB", that the file is kept under: older records are thinned, and seen in
               the envelope only. None is no limit
    ranks      of a distributed run the first process records; "all" makes a file for each (mine.rank3.norms), for
               models that are cut in stages or pieces; `normkit.merge` joins them
    csv        a file that grows while training goes on: a row per step, tensor and quantity, as of `normkit export`
    tensorboard   a folder for curves: the l2 norms of the 200 largest tensors (conv1/weight/l2, conv1/weight/grad/l2,
               conv1/weight/update/l2), what `rec.log` is given, and `rec.figures()`; of a long run not each step.
               A `TensorBoard(folder, norms=..., select=..., most=...)` says which
    wandb      True (the active run) or a run: `rec.figures()` and what `rec.log` is given, at most 20 curves, as
               normkit/weight_l2 over normkit/step. They join the row that the script logs next, so that its own steps
               stay as they are; a script that logs none has all rows at the end
    mlflow     True (the active run), a run or its id: the same numbers, at the optimizer step

    These four are written by the first process only, from threads of their own; what fails there is said once. A name
    that is taken is left alone (mine-2.csv), unless the run is resumed and the file its own.

    Recording changes no parameter, buffer, gradient, optimizer state or random state. On accelerators results are
    copied asynchronously and written some records later.

    Raises: ArgumentError (a rule that matches nothing, a bad `every`), ModelError (an optimizer that holds none of
    the model's parameters, a sharded parameter), FileError (a path that cannot be written). After the start, nothing.
    """
    joined, optimizers = sort_out(model, optimizer)
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
    return begin(joined, optimizers, terms, select=select)


def begin(
    model: torch.nn.Module | None,
    optimizers: Sequence[torch.optim.Optimizer],
    terms: Terms,
    *,
    select: Any = None,
) -> TorchRecorder:
    """A recorder at work, for arguments that `record` has sorted out."""
    recorder = TorchRecorder(terms.for_rank(rank()), enabled=rank() == 0 or terms.ranks == "all")
    try:
        recorder._start(model, list(optimizers), select)
    except BaseException:
        recorder._give_up()
        raise
    return recorder
