"""`record`: where a recording of a PyTorch model begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

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
    overhead: float = 0.01,
    quiet: bool = False,
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
    overhead   what "auto" may cost, as a share of the training time; the first 20 ms in all are free
    quiet      say nothing at start and end

    Recording changes no parameter, buffer, gradient, optimizer state or random state. On accelerators results are
    copied asynchronously and written some records later. Only rank 0 of a distributed run records.

    Raises: ArgumentError (a rule that matches nothing, a bad `every`), ModelError (an optimizer that holds none of
    the model's parameters, a sharded parameter), FileError (a path that cannot be written). After the start, nothing.
    """
    joined, optimizers = sort_out(model, optimizer)
    return begin(joined, optimizers, to=to, every=every, select=select, what=what, overhead=overhead, quiet=quiet)


def begin(
    model: torch.nn.Module | None,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    to: str | Path | None,
    every: When,
    select: Any = None,
    what: Sequence[str] = QUANTITIES,
    overhead: float = 0.01,
    quiet: bool = False,
) -> TorchRecorder:
    """A recorder at work, for arguments that `record` has sorted out."""
    enabled = rank() == 0
    recorder = TorchRecorder(to=to, every=every, overhead=overhead, what=what, quiet=quiet, enabled=enabled)
    try:
        recorder._start(model, list(optimizers), select)
    except BaseException:
        recorder._give_up()
        raise
    return recorder
