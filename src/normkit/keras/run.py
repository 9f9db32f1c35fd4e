"""Record a Keras script that knows nothing of normkit: every `fit` gets a callback more."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import keras

from normkit.keras.callback import RecordNorms
from normkit.keras.recorder import KerasRecorder
from normkit.recording.about import warn_once
from normkit.recording.ending import at_end
from normkit.recording.ledger import note
from normkit.recording.options import Options
from normkit.recording.rank import told_rank
from normkit.recording.search import Resume, find

OWN = "the script records itself"


def arm(options: Options) -> Session:
    """From now on the first `fit` of any model starts a recording; `close` the result at the end."""
    return Session(options)


class Watching(RecordNorms):
    """The callback that a `fit` of an unchanged script is given: its recording stays open from one `fit` to the next.

    `begun` is told of each recording that begins, `failed` why none does.
    """

    _logged = ()  # what the script prints stays as it is

    def watch(self, begun: Callable[[KerasRecorder], None], failed: Callable[[str], None]) -> None:
        """Whom to tell."""
        self._begun, self._failed, self._refused = begun, failed, False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Begin with the first `fit` of the model; go on with the others."""
        if self.recorder is None:
            super().on_train_begin(logs)
        elif not self._refused:
            self._enter()
            self.recorder.go_on(self.model, self.params)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Record the weights that this `fit` leaves."""
        if self.recorder is not None:
            self.recorder.end_fit()

    def leave(self) -> None:
        """The `fit` is over, one way or another: keep no model alive."""
        self.on_train_end()
        self.set_model(None)

    def _begin(self) -> None:
        if self._refused:
            return
        try:
            super()._begin()
        except Exception as error:  # a recorder never breaks training
            self._refused = True
            self._failed(str(error))
            warn_once(f"normkit does not record this fit ({error}); the script goes on")
        else:
            if self.recorder is not None:
                self._begun(self.recorder)


class Session:
    """The recordings of one process of a run: the first `fit` of a model begins one, its later ones go on in it.

    Nothing here keeps a model alive between its `fit`s: what the script drops is finished by the recorder itself. A
    forked child begins afresh, and closes its recordings when it ends.

    paths    the recordings, in the order of their beginning
    refused  why a `fit` was not recorded, or None
    silent   did this process train as one whose recording another rank makes?
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._begin_afresh()
        self._inherited = "fit" not in vars(keras.Model)
        self._plain = keras.Model.fit
        keras.Model.fit = self._watched(self._plain)

    def _begin_afresh(self) -> None:
        self.paths: list[Path] = []
        self.refused: str | None = None
        self.silent = False
        self._process = os.getpid()
        self._recorders: list[weakref.ref[KerasRecorder]] = []
        self._of_model: weakref.WeakKeyDictionary[Any, Watching] = weakref.WeakKeyDictionary()
        self._forget_end: Callable[[], None] | None = None

    def close(self, end: str = "finished") -> Path | None:
        """Close every recording; the first one's path, or None where nothing was recorded."""
        if self._inherited:
            with contextlib.suppress(AttributeError):  # closed before
                del keras.Model.fit
        else:
            keras.Model.fit = self._plain
        for ref in self._recorders:
            if (recorder := ref()) is not None:
                recorder.close(end)
        if self._forget_end is not None:
            self._forget_end()
        return self.paths[0] if self.paths else None

    def _watched(self, fit: Callable[..., Any]) -> Callable[..., Any]:
        form = inspect.signature(fit)

        @functools.wraps(fit)
        def watched(*args: Any, **kwargs: Any) -> Any:
            try:
                given = form.bind(*args, **kwargs).arguments
            except TypeError:
                return fit(*args, **kwargs)  # which says what is wrong
            callback = self._callback_for(given["self"], given.get("callbacks"))
            if callback is None:
                return fit(*args, **kwargs)
            with joined(given.get("callbacks"), callback, given["self"]) as callbacks:
                return fit(**{**given, "callbacks": callbacks})

        return watched

    def _callback_for(self, model: Any, callbacks: Any) -> Watching | None:
        if self._process != os.getpid():  # in a forked child: what the parent records is the parent's
            self._begin_afresh()
        if any(isinstance(each, RecordNorms) for each in listed(callbacks)):
            if self.refused is None:
                self._refuse(OWN)
            return None
        if told_rank() != 0:
            self.silent = True
            return None
        callback = self._of_model.get(model)
        if callback is None:
            callback = self._of_model[model] = self._made()
        return None if callback.busy else callback

    def _made(self) -> Watching:
        """Only the first recording of a process goes on with an older one."""
        asked, to = self._options, self._options.path
        past = find("auto", asked.to, asked.folder) if asked.resume and not self._recorders else None
        resume: Resume = "auto" if past is not None else False
        callback = Watching(
            past.path if past is not None else to,
            every=asked.every,
            quiet=asked.quiet,
            resume=resume,
            budget=asked.budget,
        )
        callback.watch(self._begun, self._refuse)
        return callback

    def _begun(self, recorder: KerasRecorder) -> None:
        self._recorders.append(weakref.ref(recorder))
        if recorder.path is not None:
            self.paths.append(recorder.path)
            self._note("recorded", str(recorder.path))
        self._forget_end = self._forget_end or at_end(self.close)

    def _refuse(self, why: str) -> None:
        self.refused = why
        self._note("refused", why)

    def _note(self, kind: Literal["recorded", "refused"], text: str) -> None:
        if os.getpid() != self._options.teller:
            note(self._options.ledger, kind, text)


def listed(callbacks: Any) -> list[Any]:
    """The callbacks of a `fit`, in whatever form it was given them."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return keras.tree.flatten(callbacks) if callbacks else []


@contextlib.contextmanager
def joined(callbacks: Any, one: Watching, model: Any) -> Iterator[Any]:
    """These callbacks, and `one` behind them, for the time of a `fit`."""
    try:
        if isinstance(callbacks, keras.callbacks.CallbackList):
            one.set_model(model)
            one.set_params(callbacks.params)
            callbacks.callbacks.append(one)
            yield callbacks
        else:
            yield [*listed(callbacks), one]
    finally:
        if isinstance(callbacks, keras.callbacks.CallbackList) and one in callbacks.callbacks:
            callbacks.callbacks.remove(one)
        one.leave()
