"""The problem of tests/pulled.py as a Keras model: several weights, so that one compiled step tests many rules."""

import contextlib

import keras
import numpy as np

import pulled
from keras_normal import doubles
from keras_tiny import BACKEND

MOMENTUM, BETAS, EPS = (
    0.875,
    (0.875, 0.984375),
    2.0**-20,
)  # exact in float32, through which Keras on TensorFlow takes them
QUICK = {"run_eagerly": True} if BACKEND == "tensorflow" else {}  # where nothing depends on how a step is compiled
PLAIN = {"jit_compile": False} if BACKEND == "tensorflow" else {}

OPTIMIZERS = {
    "sgd": keras.optimizers.SGD,
    "keras_momentum": lambda rate: keras.optimizers.SGD(rate, momentum=MOMENTUM),
    "keras_adam": lambda rate: keras.optimizers.Adam(rate, beta_1=BETAS[0], beta_2=BETAS[1], epsilon=EPS),
}


def trajectory(kind, optimizer="sgd", steps=5, **keywords):
    """The oracle's, with the numbers of `OPTIMIZERS`."""
    return pulled.trajectory(kind, optimizer, steps, momentum=MOMENTUM, betas=BETAS, eps=EPS, **keywords)


@keras.saving.register_keras_serializable(package="pulled")
class Rate(keras.optimizers.schedules.LearningRateSchedule):
    """`pulled.rate` as Keras has it."""

    def __call__(self, step):
        return pulled.rate(keras.ops.cast(step, keras.config.floatx()))

    def get_config(self):
        return {}


def fading(step):
    return pulled.fading(keras.ops.cast(step, keras.config.floatx()))


class Problem(keras.layers.Layer):
    """Weights by name, each with the loss of tests/pulled.py; gives the sum of all, once per sample."""

    def __init__(self, names, **keywords):
        super().__init__(**keywords)
        self.names = names

    def build(self, shape):
        for name in self.names:
            setattr(self, name, self.add_weight(shape=pulled.START.shape, name=name))
            getattr(self, name).assign(pulled.START)

    def call(self, x):
        curve, goal = (keras.ops.convert_to_tensor(each, self.dtype) for each in (pulled.CURVE, pulled.GOAL))
        losses = [0.5 * keras.ops.sum(curve * keras.ops.square(getattr(self, name) - goal)) for name in self.names]
        return keras.ops.sum(keras.ops.stack(losses)) + 0 * x


@contextlib.contextmanager
def floats(name):
    """Everything in float32 or float64."""
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)
    try:
        with doubles() if name == "float64" else contextlib.nullcontext():
            yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def problem(names):
    model = keras.Sequential([keras.Input((1,)), Problem(list(names), name="problem")])
    return model, model.layers[-1]


def ones(rows=1):
    return np.ones((rows, 1), keras.config.floatx())


def mean(y, p):
    return keras.ops.mean(p)


class Path(keras.callbacks.Callback):
    """The weights of a `Problem` after each batch, and at the start."""

    def on_train_begin(self, logs=None):
        self.seen = {name: [pulled.START] for name in self.model.layers[-1].names}

    def on_train_batch_end(self, batch, logs=None):
        layer = self.model.layers[-1]
        for name, path in self.seen.items():
            path.append(array(getattr(layer, name)))


def fitted(model, optimizer, steps=5, **keywords):
    """{name: path} of `fit`, a batch of one row at each step."""
    model.compile(optimizer, mean, **{**PLAIN, **keywords})
    path = Path()
    model.fit(ones(steps), ones(steps), batch_size=1, verbose=0, shuffle=False, callbacks=[path])
    return {name: np.array(seen) for name, seen in path.seen.items()}


def applied(optimizer, variables, gradients, steps=5):
    """The paths of some variables under `optimizer.apply` itself, `gradients(w)` of each at each step."""
    paths = [[array(variable)] for variable in variables]
    for _ in range(steps):
        apply(optimizer, variables, [gradients(path[-1]) for path in paths])
        for path, variable in zip(paths, variables, strict=True):
            path.append(array(variable))
    return [np.array(path) for path in paths]


def apply(optimizer, variables, gradients):
    """One step by hand."""
    scope = contextlib.nullcontext()
    if BACKEND == "torch":
        import torch

        scope = torch.no_grad()
    dtype = keras.backend.standardize_dtype(variables[0].dtype)
    given = [None if each is None else keras.ops.convert_to_tensor(np.asarray(each), dtype) for each in gradients]
    with scope:
        optimizer.apply(given, variables)


def array(x):
    return np.array(keras.ops.convert_to_numpy(x.value if isinstance(x, keras.Variable) else x))


def flat(x=4, y=2, rows=16):
    """Inputs and targets for a few batches."""
    rng = np.random.default_rng(5)
    return rng.normal(size=(rows, x)).astype("float32"), rng.normal(size=(rows, y)).astype("float32")


def net(**keywords):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.layers.Dense(3)], name="encoder")
    return keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(2, name="head", **keywords)])


def trained(model, optimizer, epochs=1, **keywords):
    model.compile(optimizer, "mse", **{**QUICK, **keywords})
    model.fit(*flat(), batch_size=8, epochs=epochs, verbose=0, shuffle=False)
    return model


def assert_same(one, other, rtol=1e-6):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def sgd(rate=0.1):
    return keras.optimizers.SGD(rate)
