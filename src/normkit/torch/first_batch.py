"""`data_init`: choose g and the biases of weight-normed layers by one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normkit.errors import ArgumentError, ModelError
from normkit.normalize import started
from normkit.torch.arguments import checked_module
from normkit.torch.injected import plain_class
from normkit.torch.normal import WeightNorm
from normkit.torch.normed import Normed, normed, unwrapped

LINEAR = (nn.Linear,)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def data_init(model: nn.Module, batch: Any) -> list[str]:
    """Set g and the bias of every weight-normed layer so that, on `batch`, what it computes has mean 0, variance 1.

        t = v.x / |v|          g = 1 / sigma[t]          b = -mu[t] / sigma[t]

    mu and sigma (population) are taken for each output channel over the batch and its positions, in float64; v stays.
    The batch goes through the model once, each layer seeing what the layers before it make of it with their new g and
    bias; a layer used several times is set by its first use. A layer without a bias gets only g.

    batch   what the model is called with: a tensor, a tuple or list of arguments, or a dict of keyword arguments
    Returns the names of the layers that were set: Linear, Conv and ConvTranspose (1 to 3 dimensions) normalized by
    `weight_norm` with per="out" and p=2, g not frozen, that the batch reaches. Other layers are left as they are.

    Buffers (BatchNorm's statistics), the random state and the mode are as before. Nothing has a gradient.
    Raises, with the model as it was: ArgumentError where there is no such layer; ModelError for a channel that is
    constant over the batch, naming the layer, and for a subclass whose forward makes something else than g t + b.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 3.

    >>> from normkit.torch.wrap import weight_norm
    >>> layer = weight_norm(nn.Linear(4, 3))
    >>> data_init(layer, torch.randn(50, 4)), bool(layer(torch.randn(2, 4)).isfinite().all())
    ([''], True)
    """
    checked_module(model, "data_init")
    targets = [each for each in normed(model) if _is_target(each)]
    if not targets:
        raise ArgumentError(
            f"data_init: {type(model).__name__} has no Linear, Conv or ConvTranspose layer normalized by weight_norm "
            "with per='out' and p=2"
        )
    done: dict[int, str] = {}
    handles = []
    with torch.no_grad(), _eager(), _as_before(model, targets):
        try:
            for each in targets:
                name = unwrapped(each.path, model)
                handles.append(
                    each.layer.register_forward_hook(_setter(each, name, done), with_kwargs=True, prepend=True)
                )
            _call(model, batch)
        finally:
            for handle in handles:
                handle.remove()
        if not done:
            raise ModelError(f"data_init: the batch reached none of the {len(targets)} layers")
    return list(done.values())


def _eager() -> AbstractContextManager[Any]:
    """What is compiled runs as written: hooks look at numbers. (torch before 2.6 cannot be told.)"""
    stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if stance is None else stance("force_eager")


def _is_target(each: Normed) -> bool:
    normal, layer = each.normal, each.layer
    if not isinstance(normal, WeightNorm) or normal.p != 2 or each.name != "weight" or not each.g.requires_grad:
        return False
    if isinstance(layer, LINEAR):
        return normal.kept == (0,)
    if not isinstance(layer, CONVOLUTIONS):
        return False
    transposed = layer.transposed
    return (
        normal.blocks == layer.groups
        if transposed and layer.groups > 1
        else normal.kept == ((1,) if transposed else (0,))
    )


def _call(model: nn.Module, batch: Any) -> None:
    if isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, tuple | list):
        model(*batch)
    else:
        model(batch)


@dataclass(frozen=True)
class _Use:
    """A layer of ours, its name, and what it was called with."""

    each: Normed
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def named(self) -> str:
        return f"layer {self.name!r}" if self.name else "the layer"


def _setter(each: Normed, name: str, done: dict[int, str]) -> Any:
    """A hook that sets the layer on its first use and gives what it computes then."""

    def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if id(layer) in done:
            return None
        use = _Use(each, name, args, kwargs)
        channel = -1 if isinstance(layer, LINEAR) else output.ndim - layer.weight.ndim + 1
        t = _computed(use, torch.ones_like(each.g, dtype=torch.float64), None)
        factor, shift, constant = started(t, channel)
        _refuse_constant(use, constant.flatten(), "constant" if bool(t.isfinite().all()) else "not finite")
        g = factor.reshape(each.g.shape)
        bias = None if layer.bias is None else shift.flatten()
        _refuse_other_forward(use, g, bias, factor * t if bias is None else factor * t + shift)
        each.g.copy_(g)
        if bias is not None:
            layer.bias.copy_(bias)
        done[id(layer)] = name
        return type(layer).forward(layer, *args, **kwargs)

    return hook


def _computed(use: _Use, g: Tensor, bias: Tensor | None) -> Tensor:
    """g v.x / |v| + bias in float64: the layer's own forward with these."""
    layer, v = use.each.layer, use.each.v.detach().double()
    plain: Any = plain_class(layer)
    alone = plain.__new__(plain)
    alone.__dict__.update(layer.__dict__)
    own = {name: None if x is None else x.detach().double() for name, x in layer._parameters.items()}
    alone.__dict__["_parameters"] = own | {"weight": use.each.normal(g, v), "bias": bias}
    args, named = tuple(map(_wide, use.args)), {key: _wide(x) for key, x in use.kwargs.items()}
    with torch.autocast(v.device.type, enabled=False):
        try:
            return plain.forward(alone, *args, **named)  # type: ignore[no-any-return]
        except (AttributeError, RuntimeError, TypeError) as error:  # the layer as it is has just run on this
            raise ModelError(
                f"what {use.named} computes in {plain.__name__}.forward cannot be worked out in float64: freeze its g "
                "to leave the layer as it is"
            ) from error


def _wide(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def _refuse_other_forward(use: _Use, g: Tensor, bias: Tensor | None, expected: Tensor) -> None:
    """Raises: ModelError where a subclass makes of its weight and bias something else than g t + b."""
    plain: Any = plain_class(use.each.layer)
    if plain.forward in {kind.forward for kind in (*LINEAR, *CONVOLUTIONS)}:
        return
    found = _computed(use, g, bias)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-6, atol=1e-6):
        raise ModelError(
            f"what {use.named} computes in {plain.__name__}.forward is not g t + b: freeze its g to leave the layer as "
            "it is"
        )


def _refuse_constant(use: _Use, bad: Tensor, what: str) -> None:
    """Raises: ModelError for a channel whose values differ by rounding at most, or are not finite."""
    if bool(bad.any()):
        which, count = int(bad.nonzero()[0]), int(bad.sum())
        raise ModelError(
            f"channel {which} of {use.named} is {what} over the batch ({count} of {len(bad)} are), so it cannot have "
            "variance 1"
        )


@contextmanager
def _as_before(model: nn.Module, targets: list[Normed]) -> Iterator[None]:
    """Buffers and the random state are put back in any case, g and the biases where something goes wrong."""
    biases = [each.layer.bias for each in targets if isinstance(each.layer.bias, Tensor)]
    values = [(tensor, tensor.clone()) for tensor in (*(each.g for each in targets), *biases)]
    buffers = [(layer, dict(layer._buffers)) for layer in model.modules() if layer._buffers]
    contents = [(b, b.clone()) for _, held in buffers for b in held.values() if b is not None]
    modes = [(layer, layer.training) for layer in model.modules()]
    devices = {each.v.device for each in targets if each.v.device.type == "cuda"}
    with torch.random.fork_rng(devices=[device.index or 0 for device in devices]):
        try:
            yield
        except BaseException:
            for tensor, value in values:
                tensor.copy_(value)
            raise
        finally:
            for layer, held in buffers:
                layer._buffers.update(held)
            for buffer, content in contents:
                buffer.copy_(content)
            for layer, mode in modes:
                layer.training = mode
