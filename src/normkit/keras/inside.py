"""What Keras does not offer in public: each thing that the door needs from inside Keras is one function here.

`tests/keras_door/test_inside.py` fails on the day Keras changes one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib import import_module
from typing import Any

import keras
import numpy as np


def children_of(layer: Any) -> list[Any]:
    """The layers directly inside a layer or a model, in its order; those in its lists and dicts too."""
    return [child for child in layer._flatten_layers(include_self=False, recursive=False) if _is_layer(child)]


def layers_in(layer: Any) -> list[Any]:
    """A layer and all layers in it."""
    return list(layer._flatten_layers())


def weights_of(layer: Any) -> list[tuple[Any, bool]]:
    """The variables that a layer owns itself, each with whether it was made to be learned; no random state."""
    learned = [(variable, True) for variable in layer._trainable_variables]
    return learned + [(variable, False) for variable in layer._non_trainable_variables]


def exchange(layer: Any, old: Any, parts: Mapping[str, tuple[tuple[int, ...], Any]]) -> list[Any]:
    """In the place of a variable that a layer owns, new ones: {what the name ends in: (shape, initializer)}.

    They are trained if the old one is, and no dtype policy casts them. The attribute that holds the old one stays.
    """
    store = (
        layer._trainable_variables if _place(layer._trainable_variables, old) >= 0 else layer._non_trainable_variables
    )
    place, learned, locked = _place(store, old), store is layer._trainable_variables, layer._tracker.locked
    layer._untrack_variable(old)
    layer._tracker.unlock()
    made = [
        layer.add_weight(
            shape=shape,
            initializer=first,
            dtype=old._dtype,
            trainable=learned,
            autocast=False,
            name=f"{old.name}_{end}",
        )
        for end, (shape, first) in parts.items()
    ]
    layer._tracker.locked = locked
    store[-len(made) :] = []
    store[place:place] = made
    for end, variable in zip(parts, made, strict=True):
        variable._path = f"{old.path}_{end}"
        variable.trainable = variable.trainable and old.trainable
    return made


def _place(variables: list[Any], one: Any) -> int:
    return next((i for i, each in enumerate(variables) if each is one), -1)


def put(layer: Any, attribute: str, stand_in: Any, parts: Mapping[str, Any]) -> None:
    """Let an attribute of a layer hold what is no variable of its own, and others the variables instead of it."""
    if hasattr(layer, "_delete_tracking"):  # TensorFlow's own list of what a checkpoint holds
        layer._delete_tracking(attribute)
    vars(layer)[attribute] = stand_in
    for end, variable in parts.items():
        setattr(layer, f"{attribute.lstrip('_')}_{end}", variable)


def list_anew(layer: Any) -> None:
    """On PyTorch: the parameters that a layer and those in it have as a `torch.nn.Module`."""
    for each in layers_in(layer):
        if hasattr(each, "_torch_params"):
            each._track_variables()


def as_stored(variable: Any) -> Any:
    """What a variable holds, not cast for a layer that computes in another dtype."""
    with keras.src.backend.AutocastScope(None):
        return variable.value


def is_graph(model: Any) -> bool:
    """Is it a Sequential or Functional model, which knows how its layers are joined?"""
    return isinstance(model, keras.Sequential | keras.src.models.functional.Functional)


def is_recomputed(layer: Any) -> bool:
    """Is what a layer or one in it computes thrown away, and computed again for the gradient (`keras.RematScope`)?"""
    return any(getattr(each, "_remat_mode", None) is not None for each in layers_in(layer))


def is_symbolic() -> bool:
    """Are only shapes worked out now?"""
    return bool(keras.src.backend.common.symbolic_scope.in_symbolic_scope())


def names_made(stem: str) -> int:
    """How many layers of this session Keras itself has named after their class: `stem`, `stem_1`, ..."""
    made: Any = keras.src.backend.common.global_state.get_global_attribute("object_name_uids")
    return 0 if made is None else made.get(stem, 0)


def _is_layer(child: Any) -> bool:
    return isinstance(child, keras.layers.Layer)


def given_rate(optimizer: Any) -> Any:
    """The learning rate as the user gave it: a variable or a schedule."""
    return getattr(optimizer, "_learning_rate", None)


def trained_by(optimizer: Any) -> set[int] | None:
    """The ids of the variables that an optimizer trains; None before it has been told which."""
    return {id(variable) for variable in optimizer._trainable_variables} if optimizer.built else None


def decays(optimizer: Any, variable: Any) -> bool:
    """Does the optimizer's weight decay act on this variable?"""
    return bool(optimizer._use_weight_decay(variable))


def rounds_of(optimizer: Any) -> Any:
    """The variable that counts the calls of an optimizer, of which gradient accumulation makes one step of several."""
    return optimizer._iterations


def has_its_state(model: Any) -> bool:
    """Do the variables hold what is true now? On JAX in mid-epoch the training step has it, until it is asked for."""
    return model is not None and getattr(model, "_jax_state_synced", True)


def is_plain(model: Any) -> bool:
    """Does one batch make one call of the optimizer: are the training step, its maker and the optimizer Keras' own?"""
    steps = all(_is_keras_own(model, name) for name in ("train_step", "make_train_function"))
    optimizer = model.optimizer
    while hands_on(optimizer):
        optimizer = optimizer.inner_optimizer
    return steps and all(_is_keras_own(optimizer, name) for name in ("apply", "apply_gradients"))


def hands_on(optimizer: Any) -> bool:
    """Is it one of ours, which makes one call of the optimizer inside for each of its own?"""
    return getattr(optimizer, "hands_on", False) is True


def _is_keras_own(thing: Any, name: str) -> bool:
    method, shadow = getattr(type(thing), name, None), vars(thing).get(name)
    ours = shadow is None or hands_on(getattr(shadow, "__self__", None))
    return ours and getattr(method, "__module__", "").startswith("keras.")


def traced_again(model: Any) -> None:
    """Let the functions that `fit` and `evaluate` have compiled be compiled anew, in models inside of it as well.

    Each step is a function of its own for the making: JAX gives back what it compiled for the same method.
    """
    steps = (
        ("train_step", "make_train_function", "train_function"),
        ("test_step", "make_test_function", "test_function"),
    )
    for each in layers_in(model):
        for step, make, made in steps:
            if getattr(each, made, None) is not None:
                _made_again(each, step, make)


def _made_again(model: Any, step: str, make: str) -> None:
    plain, before = getattr(model, step), vars(model).get(step)

    def again(*args: Any) -> Any:
        return plain(*args)

    vars(model)[step] = again
    try:
        getattr(model, make)(force=True)
    finally:
        if before is None:
            del vars(model)[step]
        else:
            vars(model)[step] = before


def log_besides(model: Any, values: Callable[[], Mapping[str, Any]], names: Sequence[str]) -> None:
    """Let `fit` and `evaluate` log the mean over an epoch of these values, which are worked out with the loss.

    Metrics of the model's own, but no attributes, so that they are saved nowhere. A loss is the one place of a training
    step that sees both the weights and the metrics on every backend.
    """
    known = {metric.name: metric for metric in model._metrics}
    metrics = {name: known.get(name) or keras.metrics.Mean(name=name) for name in names}
    model._metrics += [metric for name, metric in metrics.items() if name not in known]
    plain = getattr(vars(model).get("compute_loss"), "plain", model.compute_loss)

    @wraps(plain)
    def compute_loss(*args: Any, **kwargs: Any) -> Any:
        loss = plain(*args, **kwargs)
        for name, value in values().items():
            metrics[name].update_state(value)
        return loss

    compute_loss.plain = plain  # type: ignore[attr-defined]
    vars(model)["compute_loss"] = compute_loss


def is_logged_besides(model: Any) -> bool:
    """Has `log_besides` been called of this model?"""
    return hasattr(vars(model).get("compute_loss"), "plain")


def log_no_more(model: Any, names: Sequence[str]) -> None:
    """Take back what `log_besides` has done."""
    if is_logged_besides(model):
        del vars(model)["compute_loss"]
        model._metrics[:] = [metric for metric in model._metrics if metric.name not in names]


def is_sparse(gradient: Any) -> bool:
    """Has a gradient values for some of the rows alone, as that of an embedding on TensorFlow?"""
    return hasattr(gradient, "indices") and hasattr(gradient, "values") and not callable(gradient.values)


def model_of_step(variables: Sequence[Any]) -> Any:
    """The model whose training, loading or compiling is under way and trains these variables; None for none.

    Keras does not tell an optimizer which model it trains.
    """
    wanted = {id(variable) for variable in variables}
    frame: Any = sys._getframe()
    while frame is not None:
        model = frame.f_locals.get("self")
        if isinstance(model, keras.Model) and wanted <= {id(each) for each in model.trainable_variables}:
            return model
        frame = frame.f_back
    return None


def tensor_of(x: Any) -> Any:
    """A variable's value, or any array, as a tensor of the backend's own: on TensorFlow a variable passes for one."""
    value = x.value if isinstance(x, keras.Variable) else x
    if keras.backend.backend() == "tensorflow":
        return sys.modules["tensorflow"].convert_to_tensor(value)
    return keras.ops.convert_to_tensor(value)


def outright(formula: Callable[..., Any], *arrays: Any) -> Any:
    """The formula of the backend's arrays; outside of a trace on JAX without compiling an operation for each shape."""
    if keras.backend.backend() != "jax":
        return formula(*arrays)
    return import_module("normkit.ops.jax_host").outright(formula, *arrays)


def value_now(variable: Any) -> Any:
    """A copy in NumPy of what a variable holds, also while TensorFlow traces a graph."""
    if keras.backend.backend() != "tensorflow":
        return np.array(keras.ops.convert_to_numpy(variable.value))
    with sys.modules["tensorflow"].init_scope():
        return np.array(variable.value)


def rate_now(optimizer: Any) -> float | None:
    """The learning rate of an optimizer's next step as a number; None where it cannot be known."""
    given = given_rate(optimizer)
    try:
        if isinstance(given, keras.optimizers.schedules.LearningRateSchedule):
            given = given(0)
        elif callable(given) and not isinstance(given, keras.Variable):
            given = given()
        return float(keras.ops.convert_to_numpy(given))
    except (TypeError, ValueError):
        return None


def build_from_fit(model: Any) -> None:
    """Build a model that `fit` was given unbuilt, on TensorFlow, where its first step would build it.

    The other backends do it just so before training begins, with the first batch. Here the form of the batches is
    enough, which `fit` has at hand, so no data is used up.
    """
    if keras.backend.backend() != "tensorflow":
        return
    frame: Any = sys._getframe()
    while frame is not None:
        batches = frame.f_locals.get("epoch_iterator") if frame.f_code.co_name == "fit" else None
        if batches is not None and frame.f_locals.get("self") is model:
            model._symbolic_build(data_batch=batches._distributed_dataset.element_spec)
            return
        frame = frame.f_back
