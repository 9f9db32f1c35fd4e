"""One meaning: the same twelve arrays in every framework, recorded through its door, give the same numbers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import twelve
from reference import norm_of

KERAS = ("tensorflow", "jax", "torch")
IN_PROCESS = ("numpy", "torch", "nnx", "equinox", "tensorflow")
WITHIN = 1e-6


def oracle() -> dict[str, dict[str, float]]:
    return {n: {kind: float(norm_of(w, kind)) for kind in twelve.KINDS} for n, w in twelve.arrays().items()}


def through_keras(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """The figures of each backend, all three at the same time: each needs a process of its own."""
    started = {}
    for backend in KERAS:
        (folder / backend).mkdir()
        command = [sys.executable, twelve.__file__, "keras", str(folder / backend / "out.json")]
        env = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        started[backend] = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    for backend, process in started.items():
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, f"{backend}: {said}"
    return {f"keras on {name}": json.loads((folder / name / "out.json").read_text()) for name in KERAS}


def largest_difference(found: dict[str, dict[str, float]], kind: str) -> float:
    """Relative to the oracle, the largest of the twelve; infinite where a tensor is missing."""
    return max(apart(found.get(name, {}).get(kind, math.nan), right[kind]) for name, right in oracle().items())


def apart(a: float, b: float) -> float:
    if math.isnan(a):
        return math.inf
    return abs(a - b) / abs(b) if b else abs(a)


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    head = f"{'largest relative difference':28}" + "".join(f"{kind:>9}" for kind in twelve.KINDS)
    rows = [
        f"{door:28}" + "".join(f"{largest_difference(figures, kind):9.1e}" for kind in twelve.KINDS)
        for door, figures in found.items()
    ]
    return "\n".join([head, *rows])


def test_twelve_arrays_mean_the_same_through_every_door(tmp_path, capsys):
    for framework in ("torch", "keras", "jax", "flax", "equinox", "tensorflow"):
        pytest.importorskip(framework, reason="every framework is compared")
    found = {door: twelve.DOORS[door](tmp_path) for door in IN_PROCESS} | through_keras(tmp_path)
    with capsys.disabled():
        print(f"\n{table(found)}")
    wrong = [
        f"{door} {kind}"
        for door, figures in found.items()
        for kind in twelve.KINDS
        if largest_difference(figures, kind) > WITHIN
    ]
    assert wrong == []
    assert {len(figures) for figures in found.values()} == {12}


def test_the_comparison_sees_a_small_difference_and_a_missing_tensor():
    right = oracle()
    assert largest_difference(right, "l2") == 0
    off = {name: {kind: value * (1 + 1e-5) for kind, value in each.items()} for name, each in right.items()}
    assert largest_difference(off, "l2") > WITHIN
    assert largest_difference({name: each for name, each in right.items() if name != "fc2.b"}, "l2") == math.inf
