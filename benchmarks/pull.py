"""What a penalty and a decay cost, beside the loops that are pasted for them and beside SGD's own decay.

    python benchmarks/pull.py            a minute
    python benchmarks/pull.py --tiny     seconds: does it run? Its ratios mean nothing.

The loop for l2 adds up `w.norm(2)**2`, for l1 and l2 besides `w.abs().sum()`, tensor by tensor. Timed is the term and
its backward pass alone, the loss's own left out. A decay is timed as a step of SGD with it beside a step of SGD with
`weight_decay=`, on the same gradients. Times are of one thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import torch
from torch import Tensor

import normkit.torch as nk
from models import GPT
from normkit.decay import KINDS
from ratios import Row, medians, print_table

Sizes = tuple[int, tuple[int, ...]]
PENALTIES: tuple[tuple[str, Sizes, float, float], ...] = (
    ("400 of 16x16", (400, (16, 16)), 4.0, 1.0),
    ("300 of 256x256", (300, (256, 256)), 1.3, 1.0),
)
DECAY = 1.5


def main() -> None:
    tiny = "--tiny" in sys.argv[1:]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    os.environ["NORMKIT_THREADS"] = "1"
    cases = PENALTIES[:1] if tiny else PENALTIES
    print_table("a penalty and its backward pass", [row for case in cases for row in penalties(*case, tiny=tiny)])
    held = [parameters((20, (16, 16)))] if tiny else [parameters((400, (16, 16))), list(GPT().parameters())]
    print_table("a step of SGD with decay", [row for params in held for row in decays(params, tiny=tiny)])


def parameters(sizes: Sizes) -> list[Tensor]:
    count, shape = sizes
    return [torch.randn(shape).requires_grad_() for _ in range(count)]


def penalties(title: str, sizes: Sizes, l2_target: float, both_target: float, *, tiny: bool) -> list[Row]:
    params = parameters((20, (16, 16)) if tiny else sizes)
    l2, both = nk.penalty(params, l2=0.1), nk.penalty(params, l1=0.1, l2=0.1)
    pairs: list[tuple[str, Callable[[], Tensor], Callable[[], Tensor], float]] = [
        (f"l2, {title}", l2, lambda: l2_by_hand(params), l2_target),
        (f"l1 + l2, {title}", both, lambda: l2_by_hand(params) + l1_by_hand(params), both_target),
    ]
    return [timed(what, params, ours, loop, target, tiny=tiny) for what, ours, loop, target in pairs]


def l2_by_hand(params: list[Tensor]) -> Tensor:
    found: Tensor = 0.05 * params[0].norm(2) ** 2
    for w in params[1:]:
        found = found + 0.05 * w.norm(2) ** 2
    return found


def l1_by_hand(params: list[Tensor]) -> Tensor:
    found: Tensor = 0.1 * params[0].abs().sum()
    for w in params[1:]:
        found = found + 0.1 * w.abs().sum()
    return found


def timed(
    what: str,
    params: list[Tensor],
    ours: Callable[[], Tensor],
    loop: Callable[[], Tensor],
    target: float,
    *,
    tiny: bool,
) -> Row:
    steps = [lambda term=term: backward(term, params) for term in (ours, loop)]
    found, peer = medians(steps, repeats=2 if tiny else 11, calls=1 if tiny else 3, warmup=2)
    return Row(what, found, peer, "the loop", target, faster=True)


def backward(term: Callable[[], Tensor], params: list[Tensor]) -> None:
    term().backward()
    for w in params:
        w.grad = None


def decays(params: list[Tensor], *, tiny: bool) -> list[Row]:
    """Each kind beside SGD's own decay; the rate is so small that weights stay what they are."""
    for w in params:
        w.grad = torch.randn_like(w) * 1e-3
    steps = [step_of(params, kind) for kind in (None, *KINDS)]
    own, *times = medians(steps, repeats=2 if tiny else 15, calls=1 if tiny else 5, warmup=3)
    entries = sum(w.numel() for w in params)
    what = f"{len(params)} tensors, {entries / 1e6:.2g} M"
    return [
        Row(f"{kind}, {what}", seconds, own, "SGD's weight_decay", DECAY)
        for kind, seconds in zip(KINDS, times, strict=True)
    ]


def step_of(params: list[Tensor], kind: str | None) -> Callable[[], object]:
    """A step of an optimizer of its own on the same tensors; without a kind with SGD's decay."""
    copies = [w.detach().clone().requires_grad_() for w in params]
    for copy, w in zip(copies, params, strict=True):
        copy.grad = w.grad
    optimizer = torch.optim.SGD(copies, lr=1e-6, weight_decay=0.0 if kind else 0.1)
    if kind:
        nk.decay(optimizer, 0.1, kind=kind, select="all", reference="initial" if kind == "toward" else None)
    return optimizer.step


if __name__ == "__main__":
    main()
