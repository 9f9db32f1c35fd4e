"""What a recording says of the backend and the optimizer."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from normkit.keras.inside import decays, given_rate, trained_by
from normkit.keras.optimizers import optimizers_of
from normkit.keras.walk import Located


def framework() -> str:
    """Keras and its backend, with their versions."""
    backend = keras.backend.backend()
    version = getattr(sys.modules.get(backend), "__version__", "")
    return f"keras {keras.__version__}, {backend} {version}".rstrip()


def described(model: Any, everything: Sequence[Located], *, idle: bool = False) -> dict[str, Any]:
    """Framework and optimizers; variables that decay and those that do not are two groups.

    `idle` says that the optimizer of `compile` makes no steps.
    """
    return {
        "framework": framework(),
        "optimizers": [_describe(optimizer, everything) for optimizer in optimizers_of(model, idle=idle)],
        "untrained": [],  # Keras trains whatever is trainable
    }


def _describe(optimizer: Any, everything: Sequence[Located]) -> dict[str, Any]:
    settings = _settings(optimizer) | _described_rate(optimizer)
    known = trained_by(optimizer)
    own = [item for item in everything if item.param.trainable and item.param.part != "effective"]
    trained = [item for item in own if known is None or id(item.variable) in known]
    spared = (
        [] if not settings.get("weight_decay") else [item for item in trained if not decays(optimizer, item.variable)]
    )
    names = {item.param.name for item in spared}
    groups = [settings | {"params": [item.param.name for item in trained if item.param.name not in names]}]
    if spared:
        groups.append(settings | {"weight_decay": 0.0, "params": sorted(names)})
    return {"name": type(optimizer).__name__, "groups": groups}


def _settings(optimizer: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras' own about numpy, in reading the rate that is not wanted here
        found = optimizer.get_config()
    return {
        key: _plain(value) for key, value in found.items() if value is not None and key not in ("name", "learning_rate")
    }


def _described_rate(optimizer: Any) -> dict[str, Any]:
    rate = given_rate(optimizer)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return {"lr": _number(rate(0)), "schedule": type(rate).__name__}
    if callable(rate):
        return {"schedule": getattr(rate, "__name__", type(rate).__name__)}
    return {} if rate is None else {"lr": _number(rate)}


def _number(value: Any) -> float:
    """The number as it was written: 0.001, where float32 holds 0.0010000000475."""
    value = getattr(value, "value", value)
    return float(str(np.float32(value))) if "float32" in str(value.dtype) else float(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def path_of_sums(values: Sequence[Any]) -> str:
    """How the sums are taken, for the file's metadata."""
    devices = sorted({_device(value) for value in values})
    words = {"cpu": "cpu: compiled kernel, float64"}
    return "; ".join(
        words.get(device, f"{device}: {keras.backend.backend()}, float64 where it has that") for device in devices
    )


def _device(value: Any) -> str:
    """The kind of device that holds a tensor of any backend, such as cpu or gpu."""
    device = getattr(value, "device", "cpu")
    kind = getattr(device, "type", None) or getattr(device, "platform", None)
    text = str(kind or device).lower()
    return next((known for known in ("cpu", "gpu", "cuda", "tpu", "mps") if known in text), text.partition(":")[0])


def numbers_of(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """Those of Keras' own numbers at the end of an epoch that are plain numbers."""
    return {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
