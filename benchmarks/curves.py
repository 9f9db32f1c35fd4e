"""Curves for TensorBoard against torch's SummaryWriter: a step of 1000 scalars, and the export of a whole recording.

    python benchmarks/curves.py            a minute
    python benchmarks/curves.py --tiny     seconds: does it run? Its ratios mean nothing.

Both ways write the same numbers, and TensorBoard's own reader must read the same ones back from either.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from normkit.cli.curves import parts, to_folder
from normkit.readers import Recording
from normkit.sinks.tensorboard import EventFile
from normkit.store.writer import Writer
from normkit.types import Param, Reading
from ratios import Row, print_table

TARGET = 100


def main() -> None:
    tiny = "--tiny" in sys.argv[1:]
    tensors, steps, few, repeats = (20, 6, 3, 1) if tiny else (1000, 1000, 10, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording = made(folder / "run.norms", tensors, steps)
        pieces = list(parts(recording, None, ("l2",)))

        def theirs(to: Path) -> None:
            from torch.utils.tensorboard import SummaryWriter

            with SummaryWriter(to) as writer:
                for piece in pieces[:few]:
                    for param, value in zip(piece.params, piece.norms["weight"]["l2"], strict=True):
                        writer.add_scalar(param.name.replace(".", "/") + "/l2", value, piece.step, walltime=piece.wall)

        def ours(to: Path) -> None:
            sink = EventFile(to, thinned=False)
            for piece in pieces:
                sink.put(piece)
            sink.close()

        def exported(to: Path) -> None:
            to_folder(Recording(recording.path), None, to, ("l2",))

        peer, live, whole = in_turn({theirs: few, ours: steps, exported: steps}, folder, repeats)
        expected = scalars(folder / "theirs0")
        for written in ("ours0", "exported0"):
            found = scalars(folder / written)
            if any(found[tag][:few] != values for tag, values in expected.items()):
                raise SystemExit(f"{written}: other numbers than add_scalar wrote")
    rows = [
        Row("events of a step", live, peer, "add_scalar, one by one", TARGET, faster=True),
        Row("export of a recording, a step", whole, peer, "add_scalar, one by one", TARGET, faster=True),
    ]
    print_table(f"TensorBoard, {tensors} scalars a step, {steps} steps ({few} by add_scalar)", rows)


def made(path: Path, tensors: int, steps: int) -> Recording:
    """A recording of weights alone, made of random numbers."""
    random = np.random.default_rng(0)
    writer = Writer(path, {})
    params = [Param(f"blocks.{n}.mlp.weight", (64, 64), "float32", "kernel") for n in range(tensors)]
    layout = writer.layout(params)
    for step in range(steps):
        writer.put(Reading(step, layout, 1.7e9 + step, {"weight": random.random((6, tensors))}))
    writer.close()
    return Recording(path)


def in_turn(ways: dict[Callable[[Path], None], int], folder: Path, repeats: int) -> list[float]:
    """Median seconds of a step, until the file is closed; of each way, how many steps it writes."""
    seen: list[list[float]] = [[] for _ in ways]
    for repeat in range(repeats):
        for (way, steps), times in zip(ways.items(), seen, strict=True):
            start = time.perf_counter()
            way(folder / f"{way.__name__}{repeat}")
            times.append((time.perf_counter() - start) / steps)
    return [statistics.median(times) for times in seen]


def scalars(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """What TensorBoard's own reader finds: tag -> step, time and value of each event."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    tags = reader.Tags()["scalars"]
    return {tag: [(event.step, event.wall_time, event.value) for event in reader.Scalars(tag)] for tag in tags}


if __name__ == "__main__":
    main()
