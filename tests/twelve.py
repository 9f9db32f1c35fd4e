"""The same twelve arrays in a model of every framework, recorded through its door: `python twelve.py keras out.json`.

Each `in_*` builds the model, puts the arrays into it and returns the recording made through that framework's door.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

KINDS = ("l1", "l2", "linf", "rms", "mean", "std", "zeros")
SHAPES = {  # by the names here; filters as [height][width][in][out], matrices as [in][out]
    "conv1.w": (3, 3, 1, 16),
    "conv1.b": (16,),
    "norm.w": (16,),
    "norm.b": (16,),
    "conv2.w": (3, 3, 16, 8),
    "conv2.b": (8,),
    "table.w": (50, 12),
    "layer.w": (12,),
    "fc1.w": (12, 40),
    "fc1.b": (40,),
    "fc2.w": (40, 10),
    "fc2.b": (10,),
}


def arrays() -> dict[str, np.ndarray]:
    """Twelve float32 arrays of very different sizes, with zeros among them."""
    rng = np.random.default_rng(4)
    scales = dict(zip(SHAPES, (1, 1e-3, 1, 1e-20, 30, 1e-8, 0.02, 1e15, 1e19, 1, 1e-25, 5), strict=True))
    made = {name: (scales[name] * (rng.standard_normal(shape) + 0.1)) for name, shape in SHAPES.items()}
    for values in made.values():
        values[rng.random(values.shape) < 0.2] = 0.0
    return {name: values.astype(np.float32) for name, values in made.items()}


def in_numpy(folder: Path) -> dict[str, dict[str, float]]:
    """No recording: `normkit.norm` of each array."""
    import normkit

    return {name: {kind: float(normkit.norm(values, kind)) for kind in KINDS} for name, values in arrays().items()}


def in_torch(folder: Path) -> dict[str, dict[str, float]]:
    import torch
    from torch import nn

    import normkit.torch as nk

    layers = {
        "conv1": nn.Conv2d(1, 16, 3),
        "norm": nn.BatchNorm2d(16),
        "conv2": nn.Conv2d(16, 8, 3),
        "table": nn.Embedding(50, 12),
        "layer": nn.RMSNorm(12),
        "fc1": nn.Linear(12, 40),
        "fc2": nn.Linear(40, 10),
    }
    orders = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    with torch.no_grad():
        for name, values in arrays().items():
            layer, which = name.split(".")
            place = getattr(layers[layer], {"w": "weight", "b": "bias"}[which])
            order = (0, 1) if layer == "table" else orders[values.ndim]
            place.copy_(torch.tensor(values.transpose(order)))
    recorder = nk.record(nn.ModuleDict(layers), to=folder / "torch.norms", quiet=True)
    recorder.close()
    return read(folder / "torch.norms", {"weight": "w", "bias": "b"})


def in_keras(folder: Path) -> dict[str, dict[str, float]]:
    import keras

    import normkit.keras as nk

    inputs = keras.Input((12, 12, 1))
    words = keras.Input((1,))
    layers = {
        "conv1": keras.layers.Conv2D(16, 3, name="conv1"),
        "norm": keras.layers.BatchNormalization(name="norm"),
        "conv2": keras.layers.Conv2D(8, 3, name="conv2"),
        "table": keras.layers.Embedding(50, 12, name="table"),
        "layer": keras.layers.LayerNormalization(center=False, name="layer"),
        "fc1": keras.layers.Dense(40, name="fc1"),
        "fc2": keras.layers.Dense(10, name="fc2"),
    }
    pixels = layers["conv2"](layers["norm"](layers["conv1"](inputs)))
    meaning = layers["fc2"](layers["fc1"](layers["layer"](layers["table"](words))))
    model = keras.Model([inputs, words], [pixels, meaning])
    for name, values in arrays().items():
        layer, which = name.split(".")
        of = layers[layer]
        names = {"w": ("kernel", "gamma", "embeddings"), "b": ("bias", "beta")}[which]
        next(getattr(of, each) for each in names if getattr(of, each, None) is not None).assign(values)
    model.compile("sgd", loss=["mse", "mse"])
    callback = nk.record(to=folder / "keras.norms", quiet=True)
    callback.set_params({})
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_train_end()
    return read(folder / "keras.norms", {"kernel": "w", "gamma": "w", "embeddings": "w", "bias": "b", "beta": "b"})


def in_nnx(folder: Path) -> dict[str, dict[str, float]]:
    import jax.numpy as jnp
    from flax import nnx

    import normkit.jax as nk

    rngs = nnx.Rngs(0)

    class Net(nnx.Module):
        def __init__(self) -> None:
            self.conv1 = nnx.Conv(1, 16, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(16, rngs=rngs)
            self.conv2 = nnx.Conv(16, 8, (3, 3), rngs=rngs)
            self.table = nnx.Embed(50, 12, rngs=rngs)
            self.layer = nnx.RMSNorm(12, rngs=rngs)
            self.fc1 = nnx.Linear(12, 40, rngs=rngs)
            self.fc2 = nnx.Linear(40, 10, rngs=rngs)

    net = Net()
    for name, values in arrays().items():
        layer, which = name.split(".")
        names = {"w": ("kernel", "scale", "embedding"), "b": ("bias",)}[which]
        place = next(getattr(getattr(net, layer), each) for each in names if hasattr(getattr(net, layer), each))
        place[...] = jnp.asarray(values)
    recorder = nk.record(folder / "nnx.norms", params=net, quiet=True)
    recorder.close()
    return read(folder / "nnx.norms", {"kernel": "w", "scale": "w", "embedding": "w", "bias": "b"})


def in_equinox(folder: Path) -> dict[str, dict[str, float]]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import normkit.jax as nk

    class Affine(eqx.Module):
        weight: jax.Array
        bias: jax.Array | None

    key = jax.random.key(0)
    given = {name: jnp.asarray(values) for name, values in arrays().items()}
    conv1, conv2 = eqx.nn.Conv2d(1, 16, 3, key=key), eqx.nn.Conv2d(16, 8, 3, key=key)
    net = {
        "conv1": filled(eqx, conv1, given["conv1.w"].transpose(3, 2, 0, 1), given["conv1.b"][:, None, None]),
        "norm": Affine(given["norm.w"], given["norm.b"]),
        "conv2": filled(eqx, conv2, given["conv2.w"].transpose(3, 2, 0, 1), given["conv2.b"][:, None, None]),
        "table": eqx.nn.Embedding(weight=given["table.w"]),
        "layer": Affine(given["layer.w"], None),
        "fc1": filled(eqx, eqx.nn.Linear(12, 40, key=key), given["fc1.w"].T, given["fc1.b"]),
        "fc2": filled(eqx, eqx.nn.Linear(40, 10, key=key), given["fc2.w"].T, given["fc2.b"]),
    }
    recorder = nk.record(folder / "equinox.norms", params=net, quiet=True)
    recorder.close()
    return read(folder / "equinox.norms", {"weight": "w", "bias": "b"})


def filled(eqx, layer, weight, bias):
    """An equinox layer with other arrays in it."""
    return eqx.tree_at(lambda of: (of.weight, of.bias), layer, (weight, bias))


def in_tensorflow(folder: Path) -> dict[str, dict[str, float]]:
    import tensorflow as tf

    import normkit.tensorflow as nk

    variables = {name: tf.Variable(values) for name, values in arrays().items()}
    recorder = nk.record(variables, to=folder / "tensorflow.norms", quiet=True)
    recorder.close()
    return read(folder / "tensorflow.norms", {"w": "w", "b": "b"})


def read(path: Path, words: dict[str, str]) -> dict[str, dict[str, float]]:
    """What a recording says of its first record, by the names here."""
    import normkit

    recording = normkit.load(path)
    columns = {kind: recording.matrix(kind)[0] for kind in KINDS}
    found = {}
    for place, param in enumerate(recording.params):
        layer, _, leaf = param.name.rpartition(".")
        found[f"{layer}.{words[leaf]}"] = {kind: float(columns[kind][place]) for kind in KINDS}
    return found


DOORS = {
    "numpy": in_numpy,
    "torch": in_torch,
    "keras": in_keras,
    "nnx": in_nnx,
    "equinox": in_equinox,
    "tensorflow": in_tensorflow,
}

if __name__ == "__main__":
    door, target = sys.argv[1], Path(sys.argv[2])
    target.write_text(json.dumps(DOORS[door](target.parent)))
