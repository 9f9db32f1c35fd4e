"""The three Keras examples run, and what they write is what NumPy says of the weights that training left."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from board import curves

EXAMPLES = Path(__file__).parents[1] / "examples"
KINDS = {
    "l1": lambda w: np.abs(w).sum(),
    "l2": lambda w: np.sqrt(np.square(w).sum()),
    "linf": lambda w: np.abs(w).max(),
    "mean": np.mean,
    "std": np.std,
    "zeros": lambda w: (w == 0).sum(),
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs an example in an empty folder for some epochs; gives its module and the model that it trained."""
    pytest.importorskip("keras", reason="the examples train in Keras")
    pytest.importorskip("sklearn", reason="the examples read scikit-learn's digits")

    def running(name, epochs):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, "--epochs", str(epochs)])
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module, module.main()

    return running


def table():
    return list(csv.DictReader(Path("weight_norms.csv").read_text().splitlines()))


def arrays(model):
    """{layer/weight: float64 array} of everything trainable, with the layers' own names in front of each other."""
    found = {}
    for weight in model.trainable_weights:
        found["/".join(weight.path.split("/")[-2:])] = np.array(weight.numpy(), dtype=np.float64)
    return found


def test_epochs_to_csv(run):
    module, model = run("keras_epochs_to_csv", 2)
    rows = table()
    steps = sorted({int(row["step"]) for row in rows})
    assert steps == [0, 57, 114]  # 1797 images in batches of 32
    assert {(row["layer"], row["weight"]) for row in rows} == {
        ("dense", "kernel"),
        ("dense", "bias"),
        ("dense_1", "kernel"),
        ("dense_1", "bias"),
    }
    last = [row for row in rows if row["step"] == "114"]
    for row, weight in zip(last, model.trainable_weights, strict=True):
        expected = np.array(weight.numpy(), dtype=np.float64)
        assert (row["tensor"], row["quantity"]) == (f"{row['layer']}.{row['weight']}", "weight")
        for kind, formula in KINDS.items():
            assert float(row[kind]) == pytest.approx(formula(expected), rel=1e-12, abs=1e-15)
    module.keras.utils.set_random_seed(0)
    untrained = [np.array(weight.numpy(), dtype=np.float64) for weight in module.build().trainable_weights]
    first = [float(row["l2"]) for row in rows if row["step"] == "0"]
    assert first == pytest.approx([KINDS["l2"](weight) for weight in untrained], rel=1e-12)


def test_every_100_steps_to_tensorboard(run):
    _, model = run("keras_steps_to_tensorboard", 4)
    found = curves(Path("logs/steps"))
    assert {tag for tag in found if tag.startswith("head/")} == {
        f"head/{weight}/{kind}" for weight in ("kernel", "bias") for kind in ("l1", "l2")
    }
    for name, array in arrays(model).items():
        for kind in ("l1", "l2"):
            seen = {point.step: point.value for point in found[f"{name}/{kind}"]}
            assert list(seen) == [*range(11), 100, 200, 228]  # the first ten, each hundredth, the last
            assert seen[228] == pytest.approx(KINDS[kind](array), rel=1e-6)  # TensorBoard keeps float32


def test_all_of_a_convnet(run):
    _, model = run("keras_all_of_a_convnet", 1)
    found = curves(Path("logs/convnet"))
    expected = {
        "conv1/kernel": "conv1/kernel",
        "conv1/bias": "conv1/bias",
        "block/conv2/kernel": "conv2/kernel",
        "block/bn2/gamma": "bn2/gamma",
        "block/bn2/beta": "bn2/beta",
        "head/kernel": "head/kernel",
        "head/bias": "head/bias",
    }
    tags = {tag.removesuffix("/l2") for tag in found if tag.endswith("/l2")}
    assert tags == set(expected)
    weights = arrays(model)
    for tag, name in expected.items():
        assert found[f"{tag}/l2"][-1].value == pytest.approx(KINDS["l2"](weights[name]), rel=1e-6)
