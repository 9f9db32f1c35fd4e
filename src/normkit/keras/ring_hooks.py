"""Where the ring takes hold of Keras: the optimizer's methods, shadowed on the instance, and the training function.

A shadow lies in the instance's dictionary, past Keras' tracking of attributes: its class, its configuration and its
saved form stay what they are, and taking the shadow off leaves no trace.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import keras

from normkit.errors import ModelError
from normkit.keras.effective import Effective
from normkit.keras.inside import hands_on

Wrapper = Callable[..., Any]

_NEEDED = {  # what the ring calls or shadows, beyond what Keras documents: parameters of each
    "apply": ["grads", "trainable_variables"],
    "_clip_gradients": ["grads"],
    "_backend_update_step": ["grads", "trainable_variables", "learning_rate"],
    "_var_key": ["variable"],
    "_track_variable": ["variable"],
    "_untrack_variable": ["variable"],
    "save_own_variables": ["store"],
    "load_own_variables": ["store"],
}
_FIELDS = ("_iterations", "_trainable_variables_indices", "gradient_accumulation_steps")
_OF_MODEL = {"make_train_function": ["force"], "train_step": None}


def private_api_missing(model: Any, optimizer: Any) -> list[str]:
    """What of Keras' inside the ring needs and does not find, as `Adam._var_key(variable)`; the only such list.

    A method of the user's own class is taken as it is.
    """
    kind = type(optimizer).__name__
    missing = [f"{kind}.{name}" for name in _FIELDS if not hasattr(optimizer, name)]
    missing += [f"{kind}.{text}" for text in _unlike(optimizer, _NEEDED)]
    missing += [f"{type(model).__name__}.{text}" for text in _unlike(model, _OF_MODEL)]
    return missing if hasattr(model, "train_function") else [*missing, f"{type(model).__name__}.train_function"]


def _unlike(thing: Any, needed: Mapping[str, list[str] | None]) -> list[str]:
    texts = []
    for name, parameters in needed.items():
        method = getattr(thing, name, None)
        ours = not getattr(method, "__module__", "").startswith("keras.")
        if not callable(method):
            texts.append(f"{name}({', '.join(parameters or ['...'])})")
        elif parameters is not None and not ours and list(inspect.signature(method).parameters) != parameters:
            texts.append(f"{name}({', '.join(parameters)})")
    return texts


def inner_of(optimizer: Any) -> Any:
    """The optimizer whose updates count: the innermost that a LossScaleOptimizer or rules hold, else itself."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def is_scaled(optimizer: Any) -> bool:
    """May a loss scaler skip a step of it?"""
    while hasattr(optimizer, "inner_optimizer"):
        if not hands_on(optimizer):
            return True
        optimizer = optimizer.inner_optimizer
    return False


def leaves_of(optimizer: Any) -> list[Any]:
    """The optimizers that update weights: those of a MultiOptimizer, else itself alone."""
    return [inner_of(each) for each in getattr(optimizer, "optimizers", [optimizer])]


def refuse_unusable(model: Any, optimizer: Any) -> None:
    """ModelError, in a sentence, where gradients and updates could not be measured, or not rightly."""
    advice = 'record what=("weight",) only'
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        given = "no optimizer" if optimizer is None else f"a {type(optimizer).__module__}.{type(optimizer).__name__}"
        raise ModelError(
            f"gradients and updates are measured in the Keras optimizer that a model is compiled with, and this model "
            f"has {given}: call model.compile(optimizer=...), or {advice}"
        )
    replicas = getattr(getattr(model, "distribute_strategy", None), "num_replicas_in_sync", 1)
    if replicas > 1:
        raise ModelError(f"gradients and updates under tf.distribute with {replicas} replicas are not known: {advice}")
    if keras.backend.backend() == "torch" and model.jit_compile:
        raise ModelError(
            f"gradients and updates inside torch.compile are not known, and this model has jit_compile=True: compile "
            f"it with jit_compile=False, or {advice}"
        )
    inner = inner_of(optimizer)
    for leaf in leaves_of(inner):
        if leaf is not inner and leaf.gradient_accumulation_steps:
            raise ModelError(
                f"{leaf.name} in a MultiOptimizer has gradient_accumulation_steps={leaf.gradient_accumulation_steps}, "
                f"so that its updates are not the MultiOptimizer's: {advice}"
            )
        if missing := private_api_missing(model, leaf):
            raise ModelError(
                f"gradients and updates need {missing[0]}, which Keras {keras.__version__} does not have: {advice}"
            )


@dataclass(frozen=True)
class Watched:
    """What is measured: of `live` the weights, of `trained` gradient and update; `optimizer` counts the steps."""

    optimizer: Any
    live: Sequence[Any]
    trained: Sequence[Any]
    what: tuple[str, ...]

    @property
    def batches(self) -> int:
        """Batches in one update."""
        return self.optimizer.gradient_accumulation_steps or 1

    def counts(self, name: str) -> int:
        """Number of columns of a quantity."""
        return len(self.live if name == "weight" else self.trained)

    def key(self, variable: Any) -> Any:
        """The same for a variable in all forms that an optimizer hands on."""
        return self.optimizer._var_key(variable)

    def in_order(self, gradients: Mapping[Any, Any]) -> list[Any]:
        """The gradient of every trained variable, None where there is none, and for a worked out weight."""
        return [
            None if isinstance(variable, Effective) else gradients.get(self.key(variable)) for variable in self.trained
        ]


class Hooks:
    """The shadows of one ring on one optimizer."""

    def __init__(self, owner: Any, optimizer: Any) -> None:
        self.owner = owner
        self._optimizer, self._inner = optimizer, inner_of(optimizer)
        self._shadows: list[tuple[Any, str, Any, Any]] = []
        self._variables: Sequence[Any] = ()

    @staticmethod
    def on(optimizer: Any) -> Hooks | None:
        """Those that an optimizer bears."""
        hooks = getattr(vars(inner_of(optimizer)).get("apply"), "hooks", None)
        return hooks if isinstance(hooks, Hooks) else None

    def put_on(self, apply: Wrapper, clip: Wrapper, update: Wrapper, hidden: Sequence[Any]) -> None:
        """Shadow apply(grads, variables), the clipping and the update step; `hidden` variables shall not be saved."""
        self._shadow(self._inner, "apply", apply)
        for leaf in leaves_of(self._inner):
            self._shadow(leaf, "_clip_gradients", clip)
            self._shadow(leaf, "_backend_update_step", update)
        self._variables = hidden
        if hidden:
            for target in {id(x): x for x in (self._optimizer, self._inner)}.values():
                self._shadow(target, "save_own_variables", self._without_hidden)
                self._shadow(target, "load_own_variables", self._without_hidden)

    def take_off(self) -> None:
        """Leave the optimizer as it was, its variables too."""
        for target, name, before, shadow in reversed(self._shadows):
            if vars(target).get(name) is not shadow:
                continue  # somebody shadows the shadow: it hands everything on by now
            if before is None:
                del vars(target)[name]
            else:
                vars(target)[name] = before
        for variable in self._variables:
            self._inner._untrack_variable(variable)
        self._shadows, self._variables = [], ()

    def _shadow(self, target: Any, name: str, wrapper: Wrapper) -> None:
        method = getattr(target, name)

        @wraps(method)
        def shadow(*args: Any, **kwargs: Any) -> Any:
            return wrapper(method, *args, **kwargs)

        shadow.hooks = self  # type: ignore[attr-defined]
        self._shadows.append((target, name, vars(target).get(name), shadow))
        vars(target)[name] = shadow

    def _without_hidden(self, method: Callable[[Any], None], store: Any) -> None:
        for variable in self._variables:
            self._inner._untrack_variable(variable)
        try:
            method(store)
        finally:
            for variable in self._variables:
                self._inner._track_variable(variable)


def traced_anew(model: Any, around: Callable[[Wrapper], Wrapper] | None) -> Any:
    """The model's training function, made so that its step is compiled again.

    `jax.jit` gives back what it compiled for the same method, whoever shadows what it calls: so the step is a function
    of its own for the making. With `around` it is what that makes of the step, which sees to the compiling.
    """
    step, before, jit_compile = model.train_step, vars(model).get("train_step"), model.jit_compile
    inner = step if around is None else around(step)

    def train_step(*args: Any) -> Any:
        return inner(*args)

    vars(model)["train_step"] = train_step
    try:
        model.jit_compile = jit_compile and around is None
        model.make_train_function(force=True)
    finally:
        model.jit_compile = jit_compile
        if before is None:
            del vars(model)["train_step"]
        else:
            vars(model)["train_step"] = before
    return model.train_function
