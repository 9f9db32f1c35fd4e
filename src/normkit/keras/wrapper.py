"""`WeightNorm`: a layer with normalized weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from importlib import import_module
from inspect import signature
from typing import Any

import keras

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.groups import Per
from normkit.keras.candidates import Chosen, is_named, texts_of, to_normalize
from normkit.keras.copying import copy_state
from normkit.keras.effective import Unseen, effective_in, held, part
from normkit.keras.inside import layers_in, list_anew
from normkit.lengths import checked


@keras.saving.register_keras_serializable(package="normkit")
class WeightNorm(Unseen):
    """A layer whose weights are a length times a direction, both trained.

        w = g v / |v|_p          |v|_p over everything that `per` does not keep

    layer   any layer; built or not. A built one keeps its function, to the last bit where it is float32 or float64. It
            is changed itself, at the first call: where a model has it, use `weight_norm(model)` instead
    select  which of its weights: names or roles (docs: select). Default: its kernels, a recurrent layer's recurrent one
            among them, and the table of an Embedding. A name takes a weight of any role
    per     "out" (one length per output unit), "in", "tensor", or the axes that g keeps
    p       the kind of length: a number from 1 to infinity
    name, dtype, trainable   as of any layer; the layer's own unless given

    The layer has the variables `<weight>_g` and `<weight>_v` in the place of each weight; `layer.kernel` reads what
    they make, and `layer.kernel.assign(w)` sets both. A weight is worked out once per call, in float32 at least, and
    then cast to what the layer computes in. A regularizer of the weight acts on what is worked out. Bias, activity
    regularizer, moving statistics and seeds stay the layer's. `model.layers[0].layer` is the layer.

    Weights that start at zero in a whole group (`norm_except_dim` is 0) do not move: neither g nor v has a gradient.
    `quantize` and `enable_lora` of the layer are refused; fold it first.

    Raises: ArgumentError for what is no layer, and for arguments that make no sense; when it is built ModelError for a
    weight that is normalized already, shared with another layer, constrained, quantized, adapted by LoRA or in a list,
    ArgumentError for a layer without such a weight, or one that does not say which axes are its outputs.
    Source: Salimans & Kingma 2016, arXiv:1602.07868.
    """

    def __init__(self, layer: Any, select: Any = None, per: Per = "out", p: float = 2, **kwargs: Any) -> None:
        _check(layer)
        self.__dict__["_form"] = layer.call  # Keras asks for the signature of `call` at once
        kwargs = {"name": layer.name, "dtype": layer.dtype_policy, "trainable": layer.trainable} | kwargs
        chosen, kind = texts_of(select), checked(p)
        super().__init__(layer, **kwargs)
        self.select, self.per, self.p = chosen, per, kind
        self.autocast = layer.autocast
        self.supports_masking = layer.supports_masking
        self.__dict__["build"].__signature__ = signature(layer.build)
        self._instead: Callable[..., Any] | None = None
        if layer.built:
            self._candidates()

    # -- what Keras calls ----------------------------------------------------------------------------------------------

    def build(self, *args: Any, **kwargs: Any) -> None:
        """Build the layer, and let g and v be in the place of its weights."""
        if self.built:
            return
        if not self.layer.built:
            self.layer.build(*args, **kwargs)
        import_module(f"normkit.ops.{keras.backend.backend()}_math")  # not while a graph is traced
        for located, kept in self._candidates():
            part(located.layer, located.variable, kept, self.p)
        for layer in layers_in(self.layer):
            if effective_in(layer):
                _save_as_they_are(layer)
                _refuse_later(layer)
        list_anew(self.layer)

    @property
    def call(self) -> Callable[..., Any]:
        """The layer's own, with its weights worked out once."""

        @wraps(self._form)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._instead is not None:
                return self._instead(*args, **kwargs)
            with held(self.layer):
                return self.layer(*args, **kwargs)

        return call

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "select": self.select, "per": self.per, "p": self.p}

    def get_build_config(self) -> Any:
        return self.layer.get_build_config()

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        if not self.built:
            if not self.layer.built:
                self.layer.build_from_config(config)
            self.build()

    # -- what a user calls ---------------------------------------------------------------------------------------------

    def fold(self) -> Any:
        """A new plain layer with the weights as they are now, and this one's name; this one stays as it is.

        Raises: ModelError where it has no weights yet.
        """
        if not self.built:
            raise ModelError(f"{self.name} has no weights yet: build it, or run one batch through it, first")
        plain = type(self.layer).from_config({**self.layer.get_config(), "name": self.name})
        plain.build_from_config(self.layer.get_build_config())
        copy_state(self.layer, plain)
        return plain

    def _candidates(self) -> list[Chosen]:
        """The weights to normalize."""
        if not self.layer.weights:
            raise ModelError(f"{type(self.layer).__name__} {self.layer.name} has no weights, so none to normalize")
        if self.select is not None and is_named(self.select):
            default: str | tuple[str, ...] = ("kernel", "embedding", "bias", "scale", "other")
        else:
            default = ("kernel", "embedding") if isinstance(self.layer, keras.layers.Embedding) else "kernel"
        return to_normalize(self.layer, self.select, self.per, default=default, frozen=True)


def _check(layer: Any) -> None:
    if isinstance(layer, type):
        raise ArgumentError(
            f"layer={layer.__name__} is a class; give an instance, as in WeightNorm({layer.__name__}(...))"
        )
    if not isinstance(layer, keras.layers.Layer):
        raise ArgumentError(f"layer={in_brief(layer)}: expected a keras.layers.Layer, as in WeightNorm(Dense(64))")
    if isinstance(layer, WeightNorm):
        raise ModelError(f"{layer.name} is already normalized: it is a WeightNorm")


def _refuse_later(layer: Any) -> None:
    """What would put another weight beside g and v, or in their place."""
    for method, done in (("quantize", "quantized"), ("enable_lora", "adapted by LoRA")):
        if hasattr(layer, method):
            vars(layer)[method] = partial(_refuse, f"{type(layer).__name__} {layer.name}", done)


def _refuse(layer: str, done: str, *args: Any, **kwargs: Any) -> None:
    # the kind that `model.quantize` expects: it gives the sentence as a warning, and goes on to the next layer
    raise NotImplementedError(
        f"{layer} has normalized weights and cannot be {done}: make it plain first, by nk.remove_weight_norm(model) or "
        "fold()"
    )


def _save_as_they_are(layer: Any) -> None:
    """Let a layer save and load its variables one by one, g and v among them; Dense and others name what they save."""
    base = keras.layers.Layer
    vars(layer)["save_own_variables"] = partial(base.save_own_variables, layer)
    vars(layer)["load_own_variables"] = partial(base.load_own_variables, layer)
