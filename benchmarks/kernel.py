"""The kernel against its peers, medians of interleaved repeats in one run.

    python benchmarks/kernel.py [--tiny]

`--tiny` runs every line once on small arrays, to see that it runs; its ratios mean nothing.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch

from normkit.ops import cpu
from normkit.ops import torch as ops
from ratios import Row, medians, print_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small arrays, one repeat")
    tiny = parser.parse_args().tiny
    print(f"{cpu.threads()} threads; torch {torch.__version__} with {torch.get_num_threads()}; {blas()}")
    entries = 2**16 if tiny else 2**26
    repeats = 1 if tiny else 15
    x = torch.randn(entries)
    with torch.no_grad():
        rows = large_array(x, repeats) + against_torch(x, 1 if tiny else 3)
        rows += small_tensors(20 if tiny else 2000, repeats)
        rows.append(gpt(2**8 if tiny else 200_000, repeats))
    print_table(f"kernel ({entries:,} entries in the large array)", rows)


def large_array(x: torch.Tensor, repeats: int) -> list[Row]:
    array, half = x.numpy(), x.bfloat16()
    dot, both, half_both, one, half_one = medians(
        [lambda: np.dot(array, array), six(x), six(half), on_one_thread(six(x)), on_one_thread(six(half))], repeats
    )
    return [
        Row("six statistics, float32", both, dot, "np.dot", 1.6),
        Row("six statistics, float32, one thread", one, dot, "np.dot", 2.8),
        Row("six statistics, bfloat16", half_both, both, "the same, float32", 0.9),
        Row("six statistics, bfloat16, one thread", half_one, one, "the same, float32", 0.9),
    ]


def against_torch(x: torch.Tensor, repeats: int) -> list[Row]:
    half = x.bfloat16()
    ours, theirs = medians([six(x), six_calls(x)], repeats)
    half_ours, half_theirs = medians([six(half), six_calls(half)], repeats)
    return [
        Row("six statistics, float32", ours, theirs, "six torch calls", 20, faster=True),
        Row("six statistics, bfloat16", half_ours, half_theirs, "six torch calls", 30, faster=True),
    ]


def small_tensors(count: int, repeats: int) -> list[Row]:
    rows = []
    for size in (64, 1024):
        tensors = [torch.nn.Parameter(torch.randn(size)) for _ in range(count)]
        ours, theirs = medians([recorded(tensors), lambda t=tensors: torch._foreach_norm(t)], 2 * repeats)
        rows.append(Row(f"{count} tensors of {size}, pointer check", ours, theirs, "_foreach_norm l2", 0.2))
    return rows


def gpt(size: int, repeats: int) -> Row:
    tensors = [torch.nn.Parameter(torch.randn(size)) for _ in range(99)]
    ours, theirs = medians([recorded(tensors), lambda: torch._foreach_norm(tensors)], 2 * repeats)
    return Row(f"99 tensors, {99 * size / 1e6:.3g} M entries", ours, theirs, "_foreach_norm l2", 1.2)


def six(x: torch.Tensor) -> Callable[[], object]:
    return lambda: ops.sums([x]).wait()


def six_calls(x: torch.Tensor) -> Callable[[], object]:
    """What a user calls for the same six numbers; not all of them are as exact."""
    return lambda: [
        torch.linalg.vector_norm(x, 1).item(),
        torch.linalg.vector_norm(x, 2).item(),
        torch.linalg.vector_norm(x, math.inf).item(),
        x.sum().item(),
        (x == 0).sum().item(),
        (~torch.isfinite(x)).sum().item(),
    ]


def recorded(tensors: list[torch.nn.Parameter]) -> Callable[[], object]:
    """What a record of the weights costs: the addresses are compared at each call."""
    cache = ops.Cache()
    return lambda: ops.sums(tensors, cache).wait()


def on_one_thread(call: Callable[[], object]) -> Callable[[], object]:
    def alone() -> None:
        with threads(1):
            call()

    return alone


@contextmanager
def threads(count: int):
    before = os.environ.get("NORMKIT_THREADS")
    os.environ["NORMKIT_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["NORMKIT_THREADS"]
        if before is not None:
            os.environ["NORMKIT_THREADS"] = before


def blas() -> str:
    """Which BLAS runs `np.dot`, where threadpoolctl can tell: its kernel is half the ratio."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "install threadpoolctl to see which BLAS np.dot uses"
    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    names = [f"{info['internal_api']} {info['version']} {info.get('architecture', '')}".strip() for info in found]
    return f"np.dot by {', '.join(names) or 'an unknown BLAS'}"


if __name__ == "__main__":
    main()
