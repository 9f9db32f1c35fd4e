"""The store against an Arrow IPC stream: CPU of one step, what the training thread pays, what reading takes.

    python benchmarks/store.py [--tiny]

An Arrow IPC stream is the cheapest file format that others can read; it has no index, and a killed process leaves it
without an end. Rows whose peer is "a limit" are held to a time of their own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from normkit.readers import Recording
from normkit.store.retention import BUDGET
from normkit.store.writer import Writer
from normkit.types import Param, Reading
from ratios import Row, print_table

SPEED = 0.004  # seconds between two steps where the caller's time is measured: as in training, the disk keeps up


def params(count: int) -> tuple[Param, ...]:
    return tuple(Param(f"blocks.{i}.weight", (64, 64), "float32", "kernel") for i in range(count))


def sums(count: int, quantities: tuple[str, ...]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.random((6 if name == "weight" else 7, count)) for name in quantities}


def write(
    path: Path, values: dict[str, np.ndarray], steps: int, pause: float = 0.0, budget: int | None = BUDGET
) -> list[float]:
    """A whole recording of the same values; the seconds of each put()."""
    writer = Writer(path, {}, budget=budget)
    layout = writer.layout(params(next(iter(values.values())).shape[1]))
    times = []
    for step in range(steps):
        reading = Reading(step, layout, 0.0, values, scalars={"lr": 0.1})
        start = time.perf_counter()
        writer.put(reading)
        times.append(time.perf_counter() - start)
        if pause:
            time.sleep(pause)
    writer.close()
    if writer.error or writer.dropped:
        raise SystemExit(f"{writer.error}, {writer.dropped} records dropped")
    return times


def write_arrow(path: Path, values: dict[str, np.ndarray], steps: int, batch: int = 20) -> None:
    """The same numbers as record batches of `batch` steps, one fixed-size list column per quantity."""
    import pyarrow as pa

    kinds = {name: pa.list_(pa.float64(), matrix.size) for name, matrix in values.items()}
    schema = pa.schema([("step", pa.int64()), *kinds.items()])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for first in range(0, steps, batch):
            count = min(batch, steps - first)
            columns = [pa.array(np.arange(first, first + count))]
            for name, matrix in values.items():
                flat = np.concatenate([matrix.ravel() for _ in range(count)])
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kinds[name]))
            stream.write_batch(pa.record_batch(columns, schema=schema))


def cpu_medians(calls: list[Callable[[Path], object]], steps: int, repeats: int) -> list[float]:
    """Medians of the process's CPU seconds a step, the calls taken in turn, each on a new file."""
    seen: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, times in zip(calls, seen, strict=True):
            with folder() as path:
                start = time.process_time()
                call(path / "a.norms")
                times.append((time.process_time() - start) / steps)
    return [statistics.median(times) for times in seen]


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def seconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def arrow_rows(steps: int, repeats: int, cases: dict[str, dict[str, np.ndarray]]) -> list[Row]:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        print("Arrow IPC stream: skipped: pyarrow not installed")
        return []
    rows = []
    for what, values in cases.items():
        ours, peer = cpu_medians(
            [lambda path, v=values: write(path, v, steps), lambda path, v=values: write_arrow(path, v, steps)],
            steps,
            repeats,
        )
        rows.append(Row(f"CPU of a step, {what}", ours, peer, "Arrow IPC stream", 8.0))
    return rows


def put_rows(steps: int, cases: dict[str, dict[str, np.ndarray]]) -> list[Row]:
    rows = []
    for what, values in cases.items():
        with folder() as path:
            times = write(path / "a.norms", values, steps, SPEED)
        rows.append(Row(f"put(), median, {what}", statistics.median(times), 100e-6, "a limit", 1.0))
    return rows


def read_rows(steps: int, count: int, repeats: int, values: dict[str, np.ndarray]) -> list[Row]:
    with folder() as path:
        write(path / "a.norms", values, steps)
        recording = Recording(path / "a.norms")

        def matrix() -> object:
            return recording.refresh().matrix()

        opening = seconds(lambda: Recording(path / "a.norms"), repeats)
        one_step = seconds(lambda: recording.at(steps // 2), repeats)
        whole = seconds(matrix, repeats)
    size = f"{steps} records x {count} tensors"
    return [
        Row(f"one step of {count} tensors, one quantity", one_step, 5e-3, "a limit", 1.0),
        Row(f"matrix of one norm, opening included, {size}", whole, 0.3, "a limit", 1.0),
        Row(f"opening, {size}", opening, 1.0, "a limit", 1.0),
    ]


def pyramid_rows(steps: int, repeats: int, values: dict[str, np.ndarray]) -> list[Row]:
    """What a long run is looked at by, with every record kept: nothing is thinned."""
    (quantity,) = values
    with folder() as path:
        write(path / "a.norms", values, steps, budget=None)
        recording = Recording(path / "a.norms")
        heat = seconds(lambda: recording.envelope("l2", quantity, spans=1000), repeats)
        series = seconds(lambda: recording.envelope("l2", quantity, spans=2000).mean[:, 0], repeats)
    size = f"{steps} records x {len(recording.tensors)} tensors"
    return [
        Row(f"heat map of 1000 columns, {size}", heat, 60e-3, "a limit", 1.0),
        Row(f"one tensor's series by the pyramid, {size}", series, 110e-3, "a limit", 1.0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="the store's figures")
    parser.add_argument("--tiny", action="store_true", help="a few records only, to see that it runs")
    tiny = parser.parse_args().tiny
    count, steps, repeats = (20, 20, 1) if tiny else (1000, 2000, 5)
    cases = {
        "8 x 1000 sums": sums(count * 8 // 7, ("grad",)),  # seven rows of a few more tensors: as many numbers
        "20 x 1000 sums (weight, grad, update)": sums(count, ("weight", "grad", "update")),
    }
    rows = arrow_rows(steps // 2, repeats, cases)
    rows += put_rows(steps // 4, cases)
    rows += read_rows(steps, count, repeats, sums(count, ("grad",)))
    rows += pyramid_rows(10 * steps, repeats, cases["8 x 1000 sums"])
    reached = print_table("store", rows)
    return 0 if reached or tiny else 1


if __name__ == "__main__":
    sys.exit(main())
