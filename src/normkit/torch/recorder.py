"""`record`: the weights, gradients and updates of a PyTorch model, taken around each optimizer step."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from normkit.errors import ArgumentError, StateError
from normkit.ops.announce import quietly
from normkit.recording.checks import plain_scalar
from normkit.recording.grouped import described_groups, grouped
from normkit.recording.packet import Packet
from normkit.recording.recorder import Recorder
from normkit.recording.scalars import sorted_out
from normkit.select import select as select_params
from normkit.torch.columns import Columns, check_readable, split, warm_up
from normkit.torch.describe import capturing, described, group_rates, named_rates, rates, steps_made, untraced
from normkit.torch.late import Fetched, path_of_sums
from normkit.torch.look import tensor_of
from normkit.torch.signature import Signature
from normkit.torch.walk import walk
from normkit.types import Param

RECORDED: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()  # those that some recorder has been attached to


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
            self._sample_after(self._rest)
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
        self._lost: torch.Tensor | None = None
        self._rates: dict[str, Any] = {}
        self._latest: list[Any] = []
        self._others: dict[int, list[Any]] = {}
        self._sampling: dict[int, int] = {}
        self._follows: dict[int, bool] = {}
        if self.path is None:
            return
        self._build()
        check_readable(self._located)
        with quietly() if self._terms.quiet else nullcontext():
            warm_up(self._located)
        self._open(self._params, self._meta(), described_groups(self._params, self._groups))
        for number, optimizer in enumerate(optimizers):
            RECORDED.add(optimizer)
            # a compiled training step must not trace into the recorder
            before, after = (untraced(hook) for hook in (self._pre_hook(number), self._post_hook(number)))
            self._handles.append(optimizer.register_step_pre_hook(before))
            hooks: Any = optimizer._optimizer_step_pre_hooks
            hooks.move_to_end(self._handles[-1].id, last=False)  # a decay's hook changes the weights
            self._handles.append(optimizer.register_step_post_hook(after))
        if not optimizers:
            self._begin()
            if self.schedule.samples(self.steps + 1):
                self._sample_before(self._rest, closure=True)

    def _build(self, *, again: bool = False) -> None:
        """Look at the model: which tensors there are, which are recorded, who steps them."""
        everything = walk(self._model, self._optimizers)
        try:
            chosen = select_params([item.param for item in everything], self._rule, default="trainable").chosen
        except ArgumentError:
            if not again:
                raise
            chosen = ()  # what the rule meant has left the model: that is no reason to stop
        names = {param.name for param in chosen}
        self._everything = everything
        self._located = [item for item in everything if item.param.name in names]
        self._params: list[Param] = [item.param for item in self._located]
        self._groups = grouped(self._params, self._terms.per, again=again)
        self._owned, self._rest = split(everything, self._located, self._optimizers, self._groups)
        self._shape = Signature(self._model, self._optimizers)

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def close(self, end: str = "finished") -> None:
        super().close(end)
        if self._writer is None:  # a closed recorder keeps no model alive
            self._model, self._optimizers, self._owned, self._others = None, [], [], {}
            self._everything, self._located, self._rest, self._inbox.newest = [], [], Columns([], []), None
            self._shape = Signature(None)

    # -- around a step ---------------------------------------------------------------------------------------------
    #
    # The first optimizer counts. Another one's step belongs to the same record, whether it comes before the counted
    # step in each round or after it (`_follows`); for the latter the record is held until the next counted step.

    def _pre_hook(self, number: int) -> Callable[..., None]:
        def before(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._writer is None or capturing():
                return
            if number == 0:
                self._latest = group_rates(optimizer)  # a scheduler changes them before the step can be asked
                if self._inbox.held is not None:
                    with self._guard():
                        self._inbox.release(self._writer)
            follows = self._follows.setdefault(number, number > 0 and self.steps > self._first)
            if follows:
                if self._inbox.held is None or self._inbox.held.step != self.steps:
                    return
            elif self._begun and not self.schedule.samples(self.steps + 1):
                return
            with self._guard():
                if not self._begun:
                    self._begin()
                with self.schedule.clock():
                    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
                    self._refresh()
                    scale = getattr(optimizer, "grad_scale", None)
                    self._sample_before(self._owned[number], closure=closure is not None, scale=scale)
                    self._sampling[number] = self.steps + (not follows)
                    if number == 0:
                        self._rates = rates(self._optimizers, self._rates)

        return before

    def _post_hook(self, number: int) -> Callable[..., None]:
        def after(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._writer is None or capturing():
                return
            found = getattr(optimizer, "found_inf", None)
            sampled = self._sampling.get(number) == self.steps + (not self._follows.get(number))
            if not sampled and found is None and number == 0 and self.schedule.asked is None:
                self.steps += 1  # the usual case by far: nothing else to do
                return
            with self._guard(), self.schedule.clock():
                if found is not None and self._reads(found) and found.item():
                    return  # the gradient scaler made the fused step do nothing: it is no step
                if number == 0:
                    self._sample_after(self._owned[0], found)
                elif not sampled or (self._follows[number] and self._inbox.held is None):
                    self._stale = True
                elif self._follows[number] and self._inbox.held is not None:
                    self._inbox.held.pieces = [*self._inbox.held.pieces, *self._measure_after(self._owned[number])]
                else:
                    self._stale = True
                    self._others[number] = self._measure_after(self._owned[number])

        return after

    @staticmethod
    def _reads(found: torch.Tensor) -> bool:
        """Can `found` be read without waiting for a device?"""
        return found.device.type == "cpu"

    def _begin(self) -> None:
        """Just before the first step: record the weights as training finds them."""
        self._begun = True
        if not self._settle():
            self._record_weights()
        self.schedule.start()

    @torch.no_grad()
    def _sample_before(self, columns: Columns, *, closure: bool, scale: Any = None) -> None:
        columns.before(self.what, closure=closure, scale=scale)

    @torch.no_grad()
    def _measure_after(self, columns: Columns) -> list[Any]:
        return columns.after(self.what)

    def _sample_after(self, columns: Columns, found: torch.Tensor | None = None) -> None:
        self.steps += 1
        measured = self._sampling.get(0) == self.steps or not self._optimizers
        fate = self._fate(found, wanted=measured)
        if not self.schedule.records(self.steps) or not measured:
            return
        pieces = [piece for others in self._others.values() for piece in others]
        self._others.clear()
        pieces += self._measure_after(columns)
        if columns is not self._rest and len(self._rest.index):
            pieces += self._rest.measure()
        packet = self._packet(pieces, fate)
        packet.scalars, packet.late_scalars = sorted_out(self._rates, self._scalar)
        self._emit(packet, hold=len(self._optimizers) > 1)

    @torch.no_grad()
    def _record_weights(self) -> None:
        """The weights now; what the newest record says of this same step besides is kept."""
        self._refresh()
        fresh = [piece for columns in (self._rest, *self._owned[:1]) for piece in columns.measure()]
        newest = self._inbox.newest
        if newest is not None and newest.step == self.steps and newest.layout == self._layout:
            packet = self._packet([*newest.pieces, *fresh])
            packet.scalars = dict(newest.scalars)
        else:
            packet = self._packet(fresh)
            latest = [None if isinstance(rate, torch.Tensor) else rate for rate in self._latest]
            packet.scalars, packet.late_scalars = sorted_out(named_rates(latest, self._rates), self._scalar)
        self._emit(packet)

    @torch.no_grad()
    def _present(self) -> Packet:
        return self._packet([piece for columns in (self._rest, *self._owned[:1]) for piece in columns.measure()])

    def _counted(self) -> int | None:
        return steps_made(self._optimizers)

    def _packet(self, pieces: list[Any], fate: Any = None) -> Packet:
        self._stale = False
        fate = fate or self._fate(None)
        return Packet(self.steps, self._layout, self._columns, time.time(), pieces, fate=fate)

    def _skipped(self) -> int:
        return 0 if self._lost is None else round(self._lost.item())

    def _complete(self) -> bool:
        return not self._stale

    def _refresh(self) -> None:
        """A model that changed its parameters gets a new layout."""
        if self._shape.changed() and self._writer is not None:
            self._inbox.release(self._writer)  # a record of the old layout takes no columns of the new one
            self._build(again=True)
            self._sampling.clear()
            self._others.clear()
            self._set_params(self._params, described_groups(self._params, self._groups))
            self._writer.update_meta(described(self._everything, self._optimizers))
            self._writer.event("parameters", f"from here on {self.tensors} tensors are recorded", step=self.steps)

    def _fate(self, found: torch.Tensor | None, *, wanted: bool = True) -> Any:
        """Which steps a gradient scaler skipped is known on the device only: it travels with the record."""
        lost = self._lost
        if found is None:
            return None if lost is None else Fetched(torch.stack([torch.zeros_like(lost), lost]))
        found = found.detach().reshape(())
        lost = torch.zeros_like(found) if lost is None else lost
        self._lost = lost + found
        return Fetched(torch.stack([found, lost])) if wanted else None

    def _kept(self, value: Any) -> Any:
        return value.detach() if isinstance(value, torch.Tensor) else value

    def _scalar(self, name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return plain_scalar(name, value)
        value = value.detach()
        if value.numel() == 1 and value.device.type != "cpu":
            return Fetched(value)
        return plain_scalar(name, value.reshape(()) if value.numel() == 1 else value)

    def _meta(self) -> dict[str, Any]:
        return {
            **described(self._everything, self._optimizers),
            "every": self.schedule.text(),
            "overhead": self.schedule.overhead,
            "path_of_sums": path_of_sums(tensor_of(item) for item in self._located),
        }
