"""`data_init`: lengths and biases from a first batch, so that each layer's outputs begin with mean 0 and variance 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from normkit.errors import ArgumentError, ModelError
from normkit.keras.effective import effective_in
from normkit.keras.inside import children_of
from normkit.keras.walk import walk
from normkit.keras.wrapper import WeightNorm
from normkit.normalize import started

LAST = {  # the weight that makes the outputs
    keras.layers.Dense: "kernel",
    keras.layers.EinsumDense: "kernel",
    keras.layers.Conv1D: "kernel",
    keras.layers.Conv2D: "kernel",
    keras.layers.Conv3D: "kernel",
    keras.layers.Conv1DTranspose: "kernel",
    keras.layers.Conv2DTranspose: "kernel",
    keras.layers.Conv3DTranspose: "kernel",
    keras.layers.DepthwiseConv1D: "kernel",
    keras.layers.DepthwiseConv2D: "kernel",
    keras.layers.SeparableConv1D: "pointwise_kernel",
    keras.layers.SeparableConv2D: "pointwise_kernel",
}


def data_init(model: Any, batch: Any) -> list[str]:
    """Set g and the bias of each normalized layer by what `batch` makes of it; the names of these layers.

        g = 1 / std(t)   b = -mean(t) / std(t)      t = v . x / |v|, over batch and positions, per output channel

    Layer after layer in one forward, as in inference: each sees what those before it now give. v is kept. A layer
    without a bias gets g alone. Done for Dense, EinsumDense, convolutions, transposed, depthwise and separable ones (by
    the pointwise kernel); others run as they are. The outputs before the activation then have mean 0 and variance 1 on
    this batch, within about 1e-6 in float32.

    Raises: ArgumentError for a model without such a layer, one normalized otherwise than per="out" with p=2, or a bias
    that several outputs share; ModelError for outputs that are constant or not finite on the batch. The model is then
    as it was.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 3.
    """
    starts = [_Start(name, wrapper) for name, wrapper in _wrappers(model)]
    if not starts:
        raise ArgumentError(
            f"{type(model).__name__} has no layer that a batch can start: wrap Dense or convolution layers themselves "
            "with nk.WeightNorm, or use nk.weight_norm(model), which wraps a layer of another class as a whole"
        )
    try:
        for start in starts:
            start.wrapper._instead = start.called
        model(batch, training=False)
        if failures := [start.failure for start in starts if start.failure]:
            raise ModelError(failures[0])
    except BaseException:
        for start in starts:
            start.undo()
        raise
    finally:
        for start in starts:
            start.wrapper._instead = None
    return [start.name for start in starts if start.done]


class _Start:
    """A layer that waits for its first batch."""

    def __init__(self, name: str, wrapper: WeightNorm) -> None:
        self.name, self.wrapper, self.layer = name, wrapper, wrapper.layer
        self.weight = _weight(self.layer)
        self.bias = getattr(self.layer, "bias", None)
        if self.weight.p != 2 or wrapper.per != "out":
            raise ArgumentError(
                f"{name} is normalized with per={wrapper.per!r}, p={self.weight.p}; a batch starts per='out', p=2 only"
            )
        self.size = int(np.prod(self.weight.g.shape))
        if self.bias is not None and int(np.prod(self.bias.shape)) != self.size:
            raise ArgumentError(
                f"{name} has a bias of shape {tuple(self.bias.shape)} for {self.size} outputs, which share it: make it "
                "one per output, or leave it out"
            )
        self.done, self.failure = False, ""
        self._before = [(each, np.array(keras.ops.convert_to_numpy(each.value))) for each in self._changed()]

    def called(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of the wrapper's call: start the layer, then call it."""
        self.wrapper._instead = None
        with _without_activation(self.layer):
            self.weight.g.assign(np.ones(self.weight.g.shape))
            if self.bias is not None:
                self.bias.assign(np.zeros(self.bias.shape))
            outputs = np.asarray(keras.ops.convert_to_numpy(self.wrapper.call(*args, **kwargs)), np.float64)
        self._set(_by_channel(self.layer, outputs))
        self.done = True
        return self.wrapper.call(*args, **kwargs)

    def undo(self) -> None:
        for variable, value in self._before:
            variable.assign(value)

    def _set(self, outputs: Any) -> None:
        """From the outputs [samples][channels, as the axes that g keeps]."""
        factor, shift, same = started(outputs, -1)
        constant = int(same.sum())
        if constant:
            # not raised here: Keras adds its own sentences to what a call raises
            self.failure = (
                f"{self.name} has {constant} of {self.size} outputs that are the same for all {len(outputs)} samples "
                "and positions of this batch; give a larger or more varied one"
                if np.isfinite(outputs).all()
                else f"{self.name} has outputs that are not finite on this batch"
            )
            return
        self.weight.g.assign(factor.reshape(self.weight.g.shape))
        if self.bias is not None:
            self.bias.assign(_as_bias(self.layer, shift).reshape(self.bias.shape))

    def _changed(self) -> list[Any]:
        return [self.weight.g] if self.bias is None else [self.weight.g, self.bias]


def _wrappers(model: Any) -> Iterator[tuple[str, WeightNorm]]:
    """Those that are called just once for a batch: none in a recurrent or time-distributed layer."""
    places = [item for item in walk(model) if item.param.part == "effective"]
    names = {id(item.layer): item.param.name.rpartition(".")[0] for item in places}
    seen: set[int] = set()

    def below(layer: Any) -> Iterator[WeightNorm]:
        if isinstance(layer, WeightNorm):
            yield layer
        elif not isinstance(layer, keras.layers.Wrapper | keras.layers.RNN):
            for child in children_of(layer):
                yield from below(child)

    for wrapper in below(model):
        if id(wrapper) not in seen and type(wrapper.layer) in LAST and _weight(wrapper.layer) is not None:
            seen.add(id(wrapper))
            yield names[id(wrapper.layer)] or wrapper.name, wrapper


def _weight(layer: Any) -> Any:
    return next((each for each in effective_in(layer) if each.name == LAST[type(layer)]), None)


@contextmanager
def _without_activation(layer: Any) -> Iterator[None]:
    """Past Keras' and PyTorch's tracking of attributes, which an activation that is a layer is subject to."""
    held, own = vars(layer), "activation" in vars(layer)
    before = held.get("activation")
    held["activation"] = keras.activations.linear
    try:
        yield
    finally:
        if own:
            held["activation"] = before
        else:
            del held["activation"]


def _by_channel(layer: Any, outputs: Any) -> Any:
    """[samples and positions][channels], the channels in the order of the kernel's axes."""
    if isinstance(layer, keras.layers.EinsumDense):
        places = [place for _, place in _letters(layer)]
    else:
        places = [1 if getattr(layer, "data_format", None) == "channels_first" else -1]
    moved = np.moveaxis(outputs, places, range(-len(places), 0))
    return moved.reshape(-1, int(np.prod(moved.shape[-len(places) :])))


def _as_bias(layer: Any, values: Any) -> Any:
    """What is in the order of the kernel's axes, in that of the bias."""
    if not isinstance(layer, keras.layers.EinsumDense):
        return values
    letters = _letters(layer)
    kernel = str(layer.equation).partition("->")[0].partition(",")[2].strip()
    sizes = [layer.kernel.shape[kernel.index(letter)] for letter, _ in letters]
    order = sorted(range(len(letters)), key=lambda i: letters[i][1])
    return values.reshape(sizes).transpose(order)


def _letters(layer: Any) -> list[tuple[str, int]]:
    """Of "abc,cde->abde": d and e, in the kernel's order, each with its place in the result, counted from the end."""
    operands, _, result = str(layer.equation).replace(" ", "").partition("->")
    given, _, kernel = operands.partition(",")
    out = [letter for letter in kernel if letter in result and letter not in given]
    return [(letter, result.index(letter) - len(result)) for letter in out]
