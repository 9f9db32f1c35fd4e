"""What one record of a Keras model costs on each backend, against the ways that are usual, in the middle of `fit`.

    python benchmarks/backends.py            a minute
    python benchmarks/backends.py --tiny     seconds: does it run? Its ratios mean nothing.

48 variables with 6.3 M parameters. Each backend has a process of its own. The step before has ended when the time
begins, so that nobody's time holds it; ours is until the numbers are there.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratios import Row, print_table

BACKENDS = {"jax": 8.0, "tensorflow": 3.0, "torch": 2.0}  # times faster than get_weights() and numpy
HISTOGRAMS = 200.0
ONE = "--backend"


def main() -> None:
    tiny = "--tiny" in sys.argv[1:]
    if ONE in sys.argv[1:]:
        print(json.dumps(measured(tiny)))
        return
    rows = []
    for backend, target in BACKENDS.items():
        ours, arrays, histograms = of(backend, tiny)
        rows.append(Row(f"Keras on {backend}", ours, arrays, "get_weights() and numpy", target, faster=True))
        rows.append(Row(f"Keras on {backend}", ours, histograms, "TensorBoard histograms", HISTOGRAMS, faster=True))
    print_table("one record of the weights of a Keras model", rows)


def of(backend: str, tiny: bool) -> list[float]:
    """Median seconds of our record and of its peers, on this backend."""
    command = [sys.executable, __file__, ONE, backend, *(["--tiny"] if tiny else [])]
    env = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


def measured(tiny: bool) -> list[float]:
    """The three medians, in this process."""
    import keras
    import numpy as np

    import normkit.keras as nk

    warnings.simplefilter("ignore")
    width, layers, steps = (8, 3, 3) if tiny else (512, 24, 21)
    model = keras.Sequential([keras.Input((width,)), *(keras.layers.Dense(width) for _ in range(layers))])
    model.compile("sgd", "mse")
    with tempfile.TemporaryDirectory() as name:
        watcher = InTurn(nk.record(to=Path(name) / "run.norms", quiet=True), Path(name), 1 if tiny else 3)
        data = np.zeros((8 * steps, width), np.float32)
        model.fit(data, data, batch_size=8, verbose=0, callbacks=[watcher.recording, watcher.callback()])
    return [statistics.median(seen) for seen in watcher.times]


class InTurn:
    """After each step: our record, the peers', one after the other; the first step warms up."""

    def __init__(self, recording: Any, folder: Path, histograms: int) -> None:
        self.recording, self._folder, self._histograms = recording, folder, histograms
        self.times: list[list[float]] = [[], [], []]

    def callback(self) -> Any:
        import keras

        turn = self

        class Watcher(keras.callbacks.Callback):  # type: ignore[misc]
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                keras.ops.convert_to_numpy(self.model.weights[0])  # the step has ended
                turn.after(self, batch)

        return Watcher()

    def after(self, callback: Any, batch: int) -> None:
        import keras
        import numpy as np

        def record() -> None:
            recorder = self.recording.recorder
            recorder._present().reading()

        def arrays() -> None:
            [np.linalg.norm(array) for array in callback.model.get_weights()]

        def histograms() -> None:
            board = keras.callbacks.TensorBoard(str(self._folder / "logs"), histogram_freq=1)
            board.set_model(callback.model)
            board._log_weights(batch)

        ways: list[Callable[[], None]] = [record, arrays, *([histograms] if batch <= self._histograms else [])]
        for way, seen in zip(ways, self.times, strict=False):
            start = time.perf_counter()
            way()
            if batch:
                seen.append(time.perf_counter() - start)


if __name__ == "__main__":
    main()
