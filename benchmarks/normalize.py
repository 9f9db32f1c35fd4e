"""What a weight-normed weight costs beside torch's own: `module.weight` and its backward pass, time and memory.

    python benchmarks/normalize.py            a minute
    python benchmarks/normalize.py --tiny     seconds: does it run? Its ratios mean nothing.

torch's is `torch.nn.utils.parametrizations.weight_norm`: a fused kernel where the kept axis is the first or the last,
differentiable once; a composition of operations where it is another. Ours is differentiable as often as one likes. Both
are parametrizations of the same layer, and take turns; times are of one thread.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import normkit.torch as nk
from ratios import Row, medians, print_table

Layer = Callable[[], nn.Module]
Per = int | str
SMALL, LARGE, UNFUSED = 2.5, 1.5, 1.0  # targets: below 1e5 entries, above, and where torch has no fused kernel
CASES: tuple[tuple[str, Layer, Per, float], ...] = (
    ("Linear 64x64", lambda: nn.Linear(64, 64), 0, SMALL),
    ("Linear 256x256", lambda: nn.Linear(256, 256), 0, SMALL),
    ("Conv2d 64x64x3x3", lambda: nn.Conv2d(64, 64, 3), 0, SMALL),
    ("Linear 512x512", lambda: nn.Linear(512, 512), 0, LARGE),
    ("Linear 1024x1024", lambda: nn.Linear(1024, 1024), 0, LARGE),
    ("Linear 1024x1024, per=1", lambda: nn.Linear(1024, 1024), 1, LARGE),
    ("Conv2d 256x256x3x3", lambda: nn.Conv2d(256, 256, 3), 0, LARGE),
    ("Linear 4096x1024", lambda: nn.Linear(1024, 4096), 0, LARGE),
    ("Linear 64x64, per='tensor'", lambda: nn.Linear(64, 64), "tensor", UNFUSED),
    ("Linear 1024x1024, per='tensor'", lambda: nn.Linear(1024, 1024), "tensor", UNFUSED),
    ("ConvTranspose2d 64x64x3x3", lambda: nn.ConvTranspose2d(64, 64, 3), 1, UNFUSED),
    ("ConvTranspose2d 256x256x3x3", lambda: nn.ConvTranspose2d(256, 256, 3), 1, UNFUSED),
)


def main() -> None:
    tiny = "--tiny" in sys.argv[1:]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    cases = CASES[:1] + CASES[-2:-1] if tiny else CASES
    print_table("weight and backward, weight-normed", [timed(*case, tiny=tiny) for case in cases])
    print_table("memory alive at most during the same", [weighed(*case) for case in cases])


def pair(layer: Layer, per: Per) -> tuple[nn.Module, nn.Module]:
    """The same layer with our weight normalization, and with torch's."""
    module = layer()
    return nk.weight_norm(copy.deepcopy(module), per=per), weight_norm(
        module, dim=per if isinstance(per, int) else None
    )


def timed(title: str, layer: Layer, per: Per, target: float, *, tiny: bool) -> Row:
    ours, theirs = (step_of(module) for module in pair(layer, per))
    entries = sum(each.numel() for each in layer().parameters())
    calls = 2 if tiny else max(2, int(2e6 / entries))
    ours_seconds, peer_seconds = medians([ours, theirs], repeats=2 if tiny else 11, calls=calls, warmup=3)
    return Row(title, ours_seconds, peer_seconds, "torch's weight_norm", target)


def weighed(title: str, layer: Layer, per: Per, _: float) -> Row:
    """Bytes that the step has alive at its peak, beyond those that were there before."""
    ours, theirs = (peak_of(step_of(module)) for module in pair(layer, per))
    return Row(title, ours, theirs, "torch's weight_norm", 1.0, unit="B")


def step_of(module: nn.Module) -> Callable[[], None]:
    """`module.weight` and its backward pass; the gradients are let go of."""
    like = torch.randn_like(module.weight.detach())  # type: ignore[arg-type, union-attr]
    parameters = list(module.parameters())

    def step() -> None:
        module.weight.backward(like)  # type: ignore[operator, union-attr]
        for parameter in parameters:
            parameter.grad = None

    return step


def peak_of(step: Callable[[], None]) -> float:
    step()
    recording = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with silence(), recording as profile:
        step()
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    alive, peak = 0, 0
    for event in sorted(changes, key=lambda each: each.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return float(peak)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """The profiler greets on stderr, past Python."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    main()
