"""Other tools' ways to record a model, each as a context that gives a function making one record.

A peer that is not installed raises `MissingPeerError`. `pip install --group bench` brings all but Composer: mosaicml
asks for an old torch, so it comes alone, `pip install --no-deps mosaicml`. Two of its files are used as they are, the
monitor and the optimizer that the monitor asks; importing the whole package would take twenty more packages.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import nn

Record = Callable[[], object]


class MissingPeerError(Exception):
    """A peer cannot be measured here; the message says why."""


@contextlib.contextmanager
def foreach_norm(model: nn.Module, _: Path) -> Iterator[Record]:
    """PyTorch's own: the l2 norm of each weight, and nothing else."""
    weights = [weight.detach() for weight in model.parameters()]
    yield lambda: torch._foreach_norm(weights)


@contextlib.contextmanager
def composer(model: nn.Module, _: Path) -> Iterator[Record]:
    """Composer's OptimizerMonitor at the end of a batch: l2 of weight, gradient, update and first moment."""
    monitor, adamw = _composer_classes()
    optimizer = adamw(model.parameters())
    with _random_gradients(model):
        optimizer.step()
        timestamp = SimpleNamespace(batch=SimpleNamespace(value=1))
        state = SimpleNamespace(timestamp=timestamp, model=model, optimizers=[optimizer], fsdp_enabled=False)
        logger = SimpleNamespace(log_metrics=lambda metrics: None)
        yield lambda: monitor(batch_log_interval=1).batch_end(state, logger)


@contextlib.contextmanager
def wandb_watch(model: nn.Module, folder: Path) -> Iterator[Record]:
    """The body of `wandb.watch(model, log="parameters")`: a histogram of each weight, offline."""
    wandb = _need("wandb")
    history = importlib.import_module("wandb.integration.torch.wandb_torch").TorchHistory()
    run = wandb.init(mode="offline", dir=str(folder), settings=wandb.Settings(silent=True, console="off"))

    def record() -> None:
        for name, weight in model.named_parameters():
            history.log_tensor_stats(weight.data.cpu(), f"parameters/{name}")

    try:
        yield record
    finally:
        run.finish()


@contextlib.contextmanager
def ignite_histograms(model: nn.Module, folder: Path) -> Iterator[Record]:
    """Ignite's WeightsHistHandler, which writes a TensorBoard histogram of each weight."""
    _need("ignite", "pytorch-ignite")
    _need("tensorboard")
    handlers = importlib.import_module("ignite.handlers.tensorboard_logger")
    handler = handlers.WeightsHistHandler(model)
    logger = handlers.TensorboardLogger(log_dir=str(folder / "ignite"))
    engine = SimpleNamespace(state=SimpleNamespace(get_event_attrib_value=lambda event: 1))
    try:
        yield lambda: handler(engine, logger, "iteration_completed")
    finally:
        logger.close()


def _need(module: str, package: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPeerError(f"{package or module} is not installed ({error})") from None


@contextlib.contextmanager
def _random_gradients(model: nn.Module) -> Iterator[None]:
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    try:
        yield
    finally:
        model.zero_grad()


def _composer_classes() -> tuple[Any, Any]:
    """OptimizerMonitor and DecoupledAdamW from Composer's files, with empty base classes in place of its package."""
    found = importlib.util.find_spec("composer")
    if found is None or not found.submodule_search_locations:
        raise MissingPeerError("mosaicml is not installed (pip install --no-deps mosaicml)")
    folder = Path(found.submodule_search_locations[0])
    stubs = {
        "composer": ModuleType("composer"),
        "composer.core": _module("composer.core", Callback=object, State=object),
        "composer.loggers": _module("composer.loggers", Logger=object),
        "composer.utils": _module("composer.utils", dist=None),
    }
    with mock.patch.dict(sys.modules, stubs):
        try:
            monitor = _run_file(folder / "callbacks" / "optimizer_monitor.py").OptimizerMonitor
            return monitor, _run_file(folder / "optim" / "decoupled_weight_decay.py").DecoupledAdamW
        except (ImportError, OSError) as error:
            raise MissingPeerError(f"this mosaicml cannot be used ({error})") from None


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    return module


def _run_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"composer_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no loader for {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
