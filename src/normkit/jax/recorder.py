"""`record`: what a JAX training loop hands over after each step, written without waiting for the device."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from normkit.errors import ArgumentError, NormkitError
from normkit.jax.arguments import refuse_leap, refuse_stats, sorted_call, stacked, step_number
from normkit.jax.late import Fetched
from normkit.jax.listing import Listing, listed
from normkit.jax.measure import Kept, Plans, Taken
from normkit.jax.traced import StepStats
from normkit.jax.walk import walk
from normkit.ops.jax import is_key
from normkit.recording.checks import plain_scalar
from normkit.recording.grouped import described_groups
from normkit.recording.packet import Packet
from normkit.recording.recorder import Recorder
from normkit.recording.terms import Terms


class JaxRecorder(Recorder):
    """A recording under way; made by `record`. Call it after each step."""

    def __init__(self, terms: Terms, rule: Any = None, *, enabled: bool = True) -> None:
        super().__init__(terms, enabled=enabled)
        self._rule = rule
        self._begun = False  # is the file open
        self._listing = Listing(())
        self._plans = Plans(self._listing)
        self._columns_of: dict[Listing, list[int]] = {}  # of another listing's columns in this one's
        self._everything: set[str] = set()  # names of the tensors that there were at the start, recorded or not
        self._unrecorded: Taken | Kept | None = None  # of the newest step, where that was not wanted
        self._started = False

    def __call__(
        self,
        step: Any = None,
        stats: StepStats | None = None,
        *,
        params: Any = None,
        grads: Any = None,
        updates: Any = None,
        before: Any = None,
    ) -> None:
        """Say that step `step` was made, and what its numbers are; does not wait for the device.

        step    how many steps were made by now, a Python int: 1 after the first. Left out, it is counted
        stats   what `nk.stats` returned from the jitted step; those of several steps, stacked by `lax.scan`, are
                recorded one by one: `step` is the last of them, as many steps after the one given before
        params, grads, updates, before   in place of stats, the trees themselves, as `nk.stats` takes them. They may
                be donated to the next step; arrays of NumPy's are copied
        Without anything the step is counted and nothing is recorded. Where the schedule does not want this step
        (`wants`), what is given is dropped.

        Raises: ArgumentError for a step on a device or one that does not follow, stats of other tensors, inside jit.
        """
        step, stats = sorted_call(step, stats)
        trees = {"params": params, "grads": grads, "updates": updates, "before": before}
        trees = {what: tree for what, tree in trees.items() if tree is not None}
        count = refuse_stats(stats, trees)
        number = step_number(step, self.steps, count, weights_only=not stats and set(trees) == {"params"})
        if stacked(stats):
            refuse_leap(number, self.steps, count, told=step is not None)
        if self.closed:
            self.steps = number
            return
        if not self._started:
            self._started = True
            self.schedule.start()
        with self.schedule.clock(), self._sense():
            if not self._begun and (stats is not None or trees):
                self._begin(stats.listing if stats is not None else None, trees)
            if stats is not None:
                self._places(stats.listing)
            for each in range(number - count + 1, number + 1):
                self._take(each, stats, trees, each - number - 1 if stacked(stats) else None)
        self.steps = number

    def wants(self, step: int | None = None) -> bool:
        """Will step `step` (the next one, where left out) be recorded? So that the others need no stats.

        train = step_with_stats if recorder.wants() else step_without
        """
        number = self.steps + 1 if step is None else step_number(step, -1, 1, weights_only=True)
        if self.path is None or (self._begun and self._writer is None):
            return False
        return self.schedule.samples(number) if self.schedule.asked is None else bool(self.schedule.asked(number))

    @property
    def closed(self) -> bool:
        """True after `close()`, on processes that record nothing, and after a failure."""
        return self.path is None or (self._begun and self._writer is None)

    # -- start and end ---------------------------------------------------------------------------------------------

    def _start(self, params: Any) -> None:
        """Open the file and record the weights before training, where these are given."""
        if self.path is None or params is None:
            return
        self._begin(None, {"params": params})
        given = Kept({"params": params}, self._plans)
        with self._sense():
            found = given.found()
        with self._guard():
            self._unrecorded = given
            settled = self._settle()
            self._unrecorded = None
            if not settled:
                self._emit(self._packet(found))

    def _begin(self, listing: Listing | None, trees: Mapping[str, Any]) -> None:
        """Open the file for the tensors of a listing, or of the first of the trees."""
        if listing is None:
            what = next(iter(trees))
            located = walk(trees[what], what)
            self._everything = {item.param.name for item in located}
            self._listing = listed(located, self._rule, self._terms.per)
        else:
            self._everything = set(listing.places)
            self._listing = listing.narrowed(self._rule, self._terms.per)
        self._plans = Plans(self._listing)
        meta = {
            "framework": f"jax {jax.__version__}",
            "every": self.schedule.text(),
            "overhead": self.schedule.overhead,
            "path_of_sums": path_of_sums(),
        }
        self._open(self._listing.params, meta, described_groups(self._listing.params, self._listing.groups))
        self._begun = True

    def close(self, end: str = "finished") -> None:
        if not self._begun and self.path is not None:
            self._begun = True
            self._give_up()
            self._say("nothing was recorded: the recorder was never called with stats or params")
        super().close(end)
        self._unrecorded = None

    def __del__(self) -> None:
        if getattr(self, "_begun", True) or self.path is None or os.getpid() != self._pid:
            super().__del__()
        else:
            self._give_up()

    def _detach(self) -> None:
        """There are no hooks."""

    # -- a step ----------------------------------------------------------------------------------------------------

    def _take(self, number: int, stats: StepStats | None, trees: Mapping[str, Any], place: int | None) -> None:
        """One step: of a stack of them the one at `place`."""
        self.steps, self._unrecorded = number, None
        wanted = False
        with self._guard():
            wanted = self.wants(number)
        if wanted and self.schedule.asked is None:
            self.schedule.records(number)
        if stats is None and not trees:
            return
        given = Kept(trees, self._plans) if stats is None else Taken(stats, place)
        if not wanted:
            self._unrecorded = given
            return
        found = given.found()
        with self._guard():
            self._emit(self._packet(found))

    @contextlib.contextmanager
    def _sense(self) -> Iterator[None]:
        """As `_guard`; only what says that the call makes no sense comes through."""
        refused = None
        with self._guard():
            try:
                yield
            except NormkitError as error:
                refused = error
        if refused is not None:
            raise refused
        self._begun = self._begun or self.broken is not None

    def _packet(self, found: Sequence[Taken]) -> Packet:
        pieces = [piece for taken in found for piece in taken.pieces(self.what, self._places(taken.stats.listing))]
        return Packet(self.steps, self._layout, self._columns, time.time(), pieces)

    def _places(self, listing: Listing) -> list[int]:
        """For each column of `listing` the column in the recording, -1 for none.

        Raises: ArgumentError for a tensor that was not there at the start, or had another shape.
        """
        if listing not in self._columns_of:
            self._columns_of[listing] = self._listing.columns_for(listing, self._everything)
        return self._columns_of[listing]

    def _record_weights(self) -> None:
        """What the newest step left, where that was not recorded and is there still; a line where it is gone."""
        given, self._unrecorded = self._unrecorded, None
        if given is None:
            return
        if given.alive():
            self._emit(self._packet(given.found()))
        else:
            self._say(
                f"step {self.steps:,} is not recorded: what it was called with has been donated or dropped since; give "
                "nk.stats, or keep the last arrays until close()"
            )

    def _present(self) -> Packet:
        assert self._unrecorded is not None  # `record` asks for the weights where a run is resumed
        return self._packet(self._unrecorded.found())

    def _scalar(self, name: str, value: Any) -> Any:
        if isinstance(value, jax.core.Tracer):
            raise ArgumentError(
                f"log({name}=...): it is being traced; return it from the jitted step and log it outside"
            )
        if not isinstance(value, jax.Array):
            return plain_scalar(name, value)
        if value.size != 1 or is_key(value) or value.dtype.kind == "c":
            raise ArgumentError(f"log({name}=...): expected one number, got shape {value.shape} of {value.dtype}")
        if value.is_deleted():
            raise ArgumentError(f"log({name}=...): it is deleted, as it was donated; log it before, or copy it")
        return Fetched(value)


def path_of_sums() -> str:
    """How the sums are taken, for the file's metadata."""
    kind = jax.default_backend()
    return "cpu: compiled kernel, float64" if kind == "cpu" else f"{kind}: XLA, float64"
