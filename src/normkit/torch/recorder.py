"""`record`: the weights, gradients and updates of a PyTorch model, taken around each optimizer step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from normkit.errors import StateError
from normkit.recording.packet import Packet
from normkit.recording.recorder import Recorder, plain_scalar
from normkit.select import select as select_params
from normkit.torch.arguments import Models, sort_out
from normkit.torch.columns import Columns, split, warm_up
from normkit.torch.describe import described, rank, rates
from normkit.torch.late import Fetched, path_of_sums
from normkit.torch.look import tensor_of
from normkit.torch.signature import Signature
from normkit.torch.walk import walk
from normkit.types import QUANTITIES, Param, When


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
        grad     g_t as the step used it: clipped, unscaled; `dot` is <w_{t-1}, g_t>
        update   w_t - w_{t-1}, taken in float64; `dot` is <w_{t-1}, w_t - w_{t-1}>

    model      a module, several ({"G": g, "D": d} or a list), or none when the optimizer is given alone
    optimizer  one or several; the first one given counts the steps. Without one, call `rec.step()` after each step.
    to         the file; default runs/<script>-<date>-<time>.norms. An existing file is never written to: mine-2.norms
    every      "auto" (each of the first 100 steps, then every 10, stretched to stay under `overhead`), a number of
               steps, an `Every`, or a function of the step. Step 0 and the last step are there in any case.
    select     which tensors (docs: select); default: everything trainable
    what       quantities; gradients and updates need one copy of the weights
    overhead   what "auto" may cost, as a share of the training time
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
    recorder = TorchRecorder(to=to, every=every, overhead=overhead, what=what, quiet=quiet, enabled=rank() == 0)
    try:
        recorder._start(model, list(optimizers), select)
    except BaseException:
        recorder._give_up()
        raise
    return recorder


class TorchRecorder(Recorder):
    """A recording under way; made by `record`."""

    _optimizers: list[torch.optim.Optimizer]

    def step(self) -> None:
        """Say that a step was made, in a loop without a torch.optim optimizer; call it while gradients are there.

        Raises: StateError where an optimizer was given, since that one counts the steps.
        """
        if self._optimizers:
            raise StateError(
                f"rec.step() is for loops without an optimizer: {type(self._optimizers[0]).__name__} counts the steps"
            )
        if self._writer is None:
            return
        with self._guard(), self.schedule.clock():
            self._refresh()
            self._sample_after(self._rest, counts=True)
            if self._writer is not None and self.schedule.samples(self.steps + 1):
                self._sample_before(self._rest, closure=True)

    def counts(self, optimizer: torch.optim.Optimizer) -> bool:
        """Is `optimizer` the one whose steps are counted?"""
        return bool(self._optimizers) and self._optimizers[0] is optimizer

    # -- start and end ---------------------------------------------------------------------------------------------

    def _start(self, model: torch.nn.Module | None, optimizers: list[torch.optim.Optimizer], rule: Any) -> None:
        self._model, self._optimizers, self._rule = model, optimizers, rule
        self._handles: list[Any] = []
        self._begun = False
        self._stale = False
        self._pid = os.getpid()
        self._lost: torch.Tensor | None = None
        self._rates_now: dict[str, Any] = {}
        self._others: dict[int, list[Any]] = {}
        self._sampling: dict[int, int] = {}
        if self.path is None:
            return
        self._build()
        warm_up(self._located)
        self._open(self._params, self._meta())
        for number, optimizer in enumerate(optimizers):
            self._handles.append(optimizer.register_step_pre_hook(self._pre_hook(number)))
            self._handles.append(optimizer.register_step_post_hook(self._post_hook(number)))
        if not optimizers:
            self._begin()
            if self.schedule.samples(1):
                self._sample_before(self._rest, closure=True)

    def _build(self) -> None:
        """Look at the model anew: which tensors there are, which are recorded, who steps them."""
        everything = walk(self._model, self._optimizers)
        chosen = select_params([item.param for item in everything], self._rule, default="trainable").chosen
        names = {param.name for param in chosen}
        self._everything = everything
        self._located = [item for item in everything if item.param.name in names]
        self._params: list[Param] = [item.param for item in self._located]
        self._owned, self._rest = split(everything, self._located, self._optimizers)
        self._shape = Signature(self._model, self._optimizers)

    def _give_up(self) -> None:
        """The start failed: leave no empty file behind."""
        self._detach()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def close(self, end: str = "finished") -> None:
        if os.getpid() == self._pid:
            super().close(end)

    # -- around a step ---------------------------------------------------------------------------------------------

    def _pre_hook(self, number: int) -> Callable[..., None]:
        def before(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._writer is None or (self._begun and not self.schedule.samples(self.steps + 1)):
                return
            with self._guard():
                if not self._begun:
                    self._begin()
                with self.schedule.clock():
                    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
                    self._refresh()
                    scale = getattr(optimizer, "grad_scale", None)
                    self._sample_before(self._owned[number], closure=closure is not None, scale=scale)
                    self._sampling[number] = self.steps + 1
                    if number == 0:
                        self._rates_now = rates(optimizer)

        return before

    def _post_hook(self, number: int) -> Callable[..., None]:
        def after(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._writer is None:
                return
            with self._guard(), self.schedule.clock():
                found = getattr(optimizer, "found_inf", None)
                if found is not None and self._reads(found) and found.item():
                    return  # the gradient scaler made the fused step do nothing: it is no step
                if number == 0:
                    self._sample_after(self._owned[0], counts=True, found=found)
                else:
                    self._stale = True
                    if self._sampling.get(number) == self.steps + 1:
                        self._others[number] = self._owned[number].after(self.what)

        return after

    @staticmethod
    def _reads(found: torch.Tensor) -> bool:
        """Can `found` be read without waiting for a device?"""
        return found.device.type == "cpu"

    def _begin(self) -> None:
        """Just before the first step: record the weights as training finds them."""
        self._begun = True
        self._record_weights()
        self.schedule.start()

    @torch.no_grad()
    def _sample_before(self, columns: Columns, *, closure: bool, scale: Any = None) -> None:
        columns.before(self.what, closure=closure, scale=scale)

    @torch.no_grad()
    def _sample_after(self, columns: Columns, *, counts: bool, found: torch.Tensor | None = None) -> None:
        self.steps += counts
        fate = self._fate(found)
        measured = self._sampling.get(0) == self.steps or not self._optimizers
        if not self.schedule.records(self.steps) or not measured:
            return
        pieces = [piece for others in self._others.values() for piece in others]
        self._others.clear()
        pieces += columns.after(self.what)
        if columns is not self._rest and len(self._rest.index):
            pieces.append(self._rest.measure())
        packet = self._packet(pieces, fate)
        packet.scalars, packet.late_scalars = self._scalars()
        self._emit(packet)

    @torch.no_grad()
    def _record_weights(self) -> None:
        """The weights now; what the newest record says of this same step besides is kept."""
        self._refresh()
        fresh = [columns.measure() for columns in (self._rest, *self._owned[:1])]
        newest = self._newest
        if newest is not None and newest.step == self.steps and newest.layout == self._layout:
            packet = self._packet([*newest.pieces, *fresh])
            packet.scalars = dict(newest.scalars)
        else:
            packet = self._packet(fresh)
        self._emit(packet)

    def _packet(self, pieces: list[Any], fate: Any = None) -> Packet:
        self._stale = False
        fate = fate or self._fate(None)
        return Packet(self.steps, self._layout, self.tensors, time.time(), pieces, fate=fate)

    def _skipped(self) -> int:
        return 0 if self._lost is None else round(self._lost.item())

    def _complete(self) -> bool:
        return not self._stale

    def _refresh(self) -> None:
        """A model that changed its parameters gets a new layout."""
        if self._shape.changed():
            self._build()
            self._sampling.clear()
            self._others.clear()
            self._set_params(self._params)

    def _fate(self, found: torch.Tensor | None) -> Any:
        """Which steps a gradient scaler skipped is known on the device only: it travels with the record."""
        if found is None:
            lost = self._lost
            return None if lost is None else Fetched(torch.stack([torch.zeros_like(lost), lost]))
        lost = torch.zeros_like(found) if self._lost is None else self._lost
        fate = Fetched(torch.stack([found.reshape(()), lost.reshape(())]))
        self._lost = (lost + found).reshape(())
        return fate

    def _scalars(self) -> tuple[dict[str, float], dict[str, Any]]:
        values = {name: self._scalar(name, value) for name, value in self._rates_now.items()}
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        return numbers, {name: value for name, value in values.items() if name not in numbers}

    def _scalar(self, name: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.numel() == 1 and value.device.type != "cpu":
            return Fetched(value.detach())
        return plain_scalar(name, value.detach() if isinstance(value, torch.Tensor) else value)

    def _meta(self) -> dict[str, Any]:
        return {
            **described(self._everything, self._optimizers),
            "every": self.schedule.text(),
            "overhead": self.schedule.overhead,
            "path_of_sums": path_of_sums(tensor_of(item) for item in self._located),
        }
