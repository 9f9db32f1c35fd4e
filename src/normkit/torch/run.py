"""Record a script that knows nothing of normkit: watch every torch optimizer, and find the models they train."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from normkit.recording.about import warn_once
from normkit.recording.ending import at_end
from normkit.recording.ledger import note
from normkit.recording.options import Options
from normkit.recording.search import Resume, find
from normkit.recording.terms import Terms
from normkit.torch.arguments import Holder, joined
from normkit.torch.describe import rank, untraced
from normkit.torch.entry import begin
from normkit.torch.recorder import RECORDED, TorchRecorder

ALONE = 200  # steps of one optimizer while the one that counts makes none

Owners = weakref.WeakKeyDictionary[torch.optim.Optimizer, Callable[[], TorchRecorder | None]]


def nobody() -> None:
    """The recorder of an optimizer that is not recorded."""


def arm(options: Options) -> Session:
    """From now on the first step of any optimizer starts a recording; `close` the result at the end."""
    return Session(options)


class Session:
    """The recordings of one process of a run.

    The first optimizer that steps begins one, together with all others that exist by then: it counts the steps. An
    optimizer made later begins another, and so does one that steps `ALONE` times while the counting one rests, as
    where several models were made first and are then trained one after the other. Optimizers that were there before
    the session are not joined. Nothing here keeps a model alive: what the script drops is finished by the recorder
    itself. A forked child begins afresh, and closes its recordings when it ends.

    paths    the recordings, in the order of their beginning
    refused  why an optimizer was not recorded, or None
    silent   did this process train as one whose recording another rank makes?
    """

    def __init__(self, options: Options) -> None:
        self._options, self._to = options, options.path
        self._older = weakref.WeakSet(alive(torch.optim.Optimizer))
        self._begin_afresh()
        self._hook = register_optimizer_step_pre_hook(untraced(self._before))

    def _begin_afresh(self) -> None:
        self.paths: list[Path] = []
        self.refused: str | None = None
        self.silent = False
        self._process = os.getpid()
        self._recorders: list[weakref.ref[TorchRecorder]] = []
        self._owner: Owners = weakref.WeakKeyDictionary()
        self._alone: weakref.WeakKeyDictionary[torch.optim.Optimizer, tuple[int, int]] = weakref.WeakKeyDictionary()
        self._forget_end: Callable[[], None] | None = None

    def close(self, end: str = "finished") -> Path | None:
        """Close every recording; the first one's path, or None where nothing was recorded."""
        self._hook.remove()
        for recorder in self._alive():
            recorder.close(end)
        if self._forget_end is not None:
            self._forget_end()
        return self.paths[0] if self.paths else None

    def _alive(self) -> list[TorchRecorder]:
        return [recorder for ref in self._recorders if (recorder := ref()) is not None]

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._process != os.getpid():
            self._leave_to_parent()
        known = optimizer in self._owner
        owner = self._owner[optimizer]() if known else None
        if known and (owner is None or not self._left_alone(optimizer, owner)):
            return
        try:
            if not known and optimizer in RECORDED:
                self._owner[optimizer] = nobody
                self._refuse("the script records itself")
            else:
                self._begin(optimizer, with_others=not known)
        except Exception as error:  # a recorder never breaks training
            self._owner[optimizer] = nobody
            self._refuse(str(error))
            warn_once(f"normkit does not record {type(optimizer).__name__} ({error}); the script goes on")

    def _refuse(self, why: str) -> None:
        self.refused = why
        self._note("refused", why)

    def _note(self, kind: Literal["recorded", "refused"], text: str) -> None:
        if os.getpid() != self._options.teller:
            note(self._options.ledger, kind, text)

    def _leave_to_parent(self) -> None:
        """In a forked child: what the parent records is the parent's."""
        for recorder in self._alive():
            recorder._detach()
        RECORDED.difference_update(list(self._owner))
        self._begin_afresh()

    def _left_alone(self, optimizer: torch.optim.Optimizer, owner: TorchRecorder) -> bool:
        if owner.counts(optimizer):
            return False
        steps, alone = self._alone.get(optimizer, (owner.steps, 0))
        self._alone[optimizer] = (owner.steps, alone + 1 if steps == owner.steps else 0)
        return alone >= ALONE

    def _begin(self, first: torch.optim.Optimizer, *, with_others: bool) -> None:
        found = [first]
        if with_others:
            gc.collect()  # those of a model that is gone must not come back
            found += [other for other in alive(torch.optim.Optimizer) if other is not first and self._is_new(other)]
        optimizers = apart(found)
        recorder = begin(models_of(optimizers), optimizers, self._terms())
        self._recorders.append(weakref.ref(recorder))
        self._owner.update(dict.fromkeys(found, weakref.ref(recorder)))
        if recorder.path is None:
            self.silent = True
            return
        self.paths.append(recorder.path)
        self._note("recorded", str(recorder.path))
        self._forget_end = self._forget_end or at_end(self.close)

    def _terms(self) -> Terms:
        """Only the first recording of a process goes on with an older one."""
        asked, to = self._options, self._to
        first = asked.resume and not self._recorders and rank() == 0
        past = find("auto", asked.to, asked.folder) if first else None
        resume: Resume = "auto" if past is not None else False
        to = past.path if past is not None else to
        return Terms(to=to, every=asked.every, quiet=asked.quiet, resume=resume, budget=asked.budget)

    def _is_new(self, optimizer: torch.optim.Optimizer) -> bool:
        return not any(optimizer in known for known in (self._owner, self._older, RECORDED))


def apart(optimizers: Sequence[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
    """Those that train tensors of their own, the first ones first.

    One that shares tensors with another is a wrapper around it, as `accelerate` makes them, or replaces it; a wrapper
    may even lack what an optimizer has.
    """
    taken: list[torch.optim.Optimizer] = []
    covered: set[int] = set()
    for optimizer in optimizers:
        if "_optimizer_step_pre_hooks" in vars(optimizer) and not (tensors := _trained([optimizer])) & covered:
            taken.append(optimizer)
            covered |= tensors
    return taken


def _trained(optimizers: Sequence[torch.optim.Optimizer]) -> set[int]:
    return {id(tensor) for optimizer in optimizers for group in optimizer.param_groups for tensor in group["params"]}


def alive(kind: type) -> Iterator[Any]:
    """Every object of a class that exists in this process."""
    return (found for found in gc.get_objects() if issubclass(type(found), kind))


def models_of(optimizers: Sequence[torch.optim.Optimizer]) -> torch.nn.Module | None:
    """The outermost module that owns what the optimizers train; several are joined under their names."""
    wanted = _trained(optimizers)
    taken: list[torch.nn.Module] = []
    covered: set[int] = set()
    for root in sorted(_roots(wanted), key=lambda root: -len(_held(root) & wanted)):
        if _held(root) & wanted - covered:
            taken.append(root)
            covered |= _held(root)
    if len(taken) <= 1:
        return taken[0] if taken else None
    return joined(dict(zip(_names(taken), taken, strict=True)))


def _roots(wanted: set[int]) -> list[torch.nn.Module]:
    modules: list[torch.nn.Module] = [found for found in alive(torch.nn.Module) if type(found) is not Holder]
    parents: dict[int, list[torch.nn.Module]] = {}
    for module in modules:
        for child in _inside(module, "_modules"):
            parents.setdefault(id(child), []).append(module)
    ahead = [module for module in modules if any(id(tensor) in wanted for tensor in _inside(module, "_parameters"))]
    seen: set[int] = set()
    roots = []
    while ahead:
        module = ahead.pop()
        if id(module) not in seen:
            seen.add(id(module))
            above = parents.get(id(module), [])
            ahead.extend(above)
            roots += [] if above else [module]
    return roots


def _inside(module: torch.nn.Module, kind: str) -> Iterable[Any]:
    """Parameters or children of a module; one that was made without `__init__` has none."""
    return [item for item in module.__dict__.get(kind, {}).values() if item is not None]


def _held(module: torch.nn.Module) -> set[int]:
    return {id(tensor) for tensor in module.parameters()}


def _names(modules: Sequence[torch.nn.Module]) -> list[str]:
    """What the script calls them: the variable's name where one is found, else the class's."""
    names: list[str] = []
    for module in modules:
        name = plain = _variable(module) or type(module).__name__.lower()
        number = 1
        while name in names:
            number += 1
            name = f"{plain}{number}"
        names.append(name)
    return names


def _variable(module: torch.nn.Module) -> str | None:
    """The name under which the outermost frame knows the module: nearest to what the script calls it."""
    found = None
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(("normkit.", "torch.")):
            names = (name for name, value in frame.f_locals.items() if value is module and not name.startswith("_"))
            found = next(names, found)
        frame = frame.f_back
    return found
