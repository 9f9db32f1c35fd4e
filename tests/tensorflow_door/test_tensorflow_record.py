"""The recorder of TensorFlow loops: each number against NumPy, step for step, however the loop is written."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")
import keras

import normkit.tensorflow as nk
import reference
from normkit import ArgumentError, ModelError, StateError, load

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:tf_keras")


class Dense(tf.Module):
    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.w = tf.Variable(tf.random.normal((fan_in, fan_out), seed=1))
        self.b = tf.Variable(tf.zeros(fan_out))

    def __call__(self, x):
        return x @ self.w + self.b


class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.layers = [Dense(4, 8), Dense(8, 2)]
        self.table = tf.Variable(tf.random.normal((10, 4), seed=2))
        self.count = tf.Variable(0, trainable=False)
        self.tied = self.layers[0].w

    def __call__(self, ids):
        x = tf.gather(self.table, ids)
        return self.layers[1](tf.nn.relu(self.layers[0](x)))


IDS = tf.constant([1, 1, 3, 9])


def gradients(net):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(net(IDS) ** 2)
    return loss, tape.gradient(loss, net.trainable_variables)


def assert_sums(recording, name, quantity, step, expected):
    """What is stored for one tensor at one step is what NumPy says."""
    place = list(recording.tensors).index(name)
    column = recording.reading(step).values[quantity][:, place]
    np.testing.assert_allclose(column[: len(expected)], list(expected.values()), rtol=1e-6, atol=1e-12)


def truths(before, after, grad):
    """name of quantity -> its sums, from copies taken by the test."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    found = {"weight": reference.sums(after), "update": reference.sums(after - before, before)}
    if grad is not None:
        found["grad"] = reference.sums(grad, before)
    return found


OPTIMIZERS = {
    "keras": lambda: keras.optimizers.Adam(0.1),
    "tf_keras": lambda: tf_keras.optimizers.SGD(0.1, momentum=0.9),
    "legacy": lambda: tf_keras.optimizers.legacy.Adam(0.1),
    "by hand": lambda: None,
}


@pytest.mark.parametrize(
    ("optimizer", "compiled"),
    [
        ("keras", None),
        ("keras", True),
        ("tf_keras", False),
        ("legacy", False),
        ("by hand", None),
        ("by hand", True),
    ],
)
def test_every_number_of_every_step(tmp_path, optimizer, compiled):
    """`compiled` is what `jit_compile` says, None for a loop without tf.function."""
    net, opt = Net(), OPTIMIZERS[optimizer]()
    names = ["table", "layers.0.w", "layers.0.b", "layers.1.w", "layers.1.b"]

    def train():
        loss, grads = gradients(net)
        if opt is None:
            for grad, variable in zip(grads, net.trainable_variables, strict=True):
                variable.assign_sub(0.1 * tf.convert_to_tensor(grad))
        else:
            opt.apply_gradients(zip(grads, net.trainable_variables, strict=True))
        return loss, [tf.convert_to_tensor(g) for g in grads] if compiled else grads

    step = train if compiled is None else tf.function(train, jit_compile=compiled)
    seen = []
    variables = dict(
        zip(names, [net.table, net.layers[0].w, net.layers[0].b, net.layers[1].w, net.layers[1].b], strict=True)
    )
    order = [next(n for n, v in variables.items() if v is each) for each in net.trainable_variables]
    with nk.record(net, to=tmp_path / "a.norms", every=1, quiet=True) as rec:
        for _ in range(4):
            before = {name: variable.numpy().copy() for name, variable in variables.items()}
            loss, grads = step()
            rec.step(grads=grads)
            rec.log(loss=loss)
            dense = dict(zip(order, [tf.convert_to_tensor(g).numpy() for g in grads], strict=True))
            after = {name: variable.numpy().copy() for name, variable in variables.items()}
            seen.append({name: truths(before[name], after[name], dense[name]) for name in names})
    recording = load(tmp_path / "a.norms")
    assert recording.steps.tolist() == [0, 1, 2, 3, 4]
    for number, truth in enumerate(seen, 1):
        for name in names:
            for quantity, expected in truth[name].items():
                assert_sums(recording, name, quantity, number, expected)
    assert recording.reading(4).scalars["loss"] == pytest.approx(float(loss))


def test_a_step_that_is_not_recorded_is_not_part_of_an_update(tmp_path):
    w = tf.Variable([0.0, 0.0])
    with nk.record([w], to=tmp_path / "a.norms", every=3, quiet=True) as rec:
        for number in range(1, 8):
            w.assign_add([float(number), 0.0])
            rec.step()
    recording = load(tmp_path / "a.norms")
    np.testing.assert_allclose(recording.series("0", "l2", quantity="update"), [np.nan, 3.0, 6.0, np.nan])
    np.testing.assert_allclose(recording.series("0", "l2"), [0.0, 6.0, 21.0, 28.0])
    assert "grad" not in recording.reading(3).values


def test_training_is_the_same_with_and_without_the_recorder(tmp_path):
    def trained(recorded):
        keras.utils.set_random_seed(3)
        net, opt = Net(), keras.optimizers.Adam(0.05)
        rec = nk.record(net, to=tmp_path / "a.norms", every=2, quiet=True) if recorded else None
        for _ in range(5):
            _, grads = gradients(net)
            opt.apply_gradients(zip(grads, net.trainable_variables, strict=True))
            if rec:
                rec.step(grads=grads)
        if rec:
            rec.close()
        return [variable.numpy() for variable in net.variables]

    for ours, theirs in zip(trained(True), trained(False), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_rows_and_dtypes(tmp_path):
    dense = tf_keras.layers.Dense(3)
    dense.build((None, 2))
    half = tf.Variable(tf.cast(tf.fill((70000,), 6e4), tf.float16))
    brain = tf.Variable(tf.cast([1.5, -2.0], tf.bfloat16))
    model = {"dense": dense, "half": half, "brain": brain}
    with nk.record(model, to=tmp_path / "a.norms", every=1, per={"dense.*": "out"}, quiet=True) as rec:
        for _ in range(2):
            dense.kernel.assign_add(tf.ones((2, 3)))
            rec.step({"dense": {"kernel": tf.ones((2, 3))}})
    recording = load(tmp_path / "a.norms")
    assert recording.series("half", "l2")[-1] == pytest.approx(6e4 * np.sqrt(70000), rel=1e-3)
    assert recording.series("brain", "l1")[-1] == 3.5
    kernel = dense.kernel.numpy()
    np.testing.assert_allclose(recording.rows("dense.kernel")[-1], np.linalg.norm(kernel, axis=0), rtol=1e-6)
    for quantity in ("grad", "update"):
        rows = recording.rows("dense.kernel", quantity=quantity)[1:]
        np.testing.assert_allclose(rows, np.full((2, 3), np.sqrt(2.0)), rtol=1e-6)


def test_epochs(tmp_path):
    w = tf.Variable([1.0])
    with nk.record([w], to=tmp_path / "a.norms", every=nk.Every(epochs=1), quiet=True) as rec:
        for _ in range(2):
            w.assign_add([1.0])
            rec.step()
            w.assign_add([1.0])
            rec.step()
            rec.epoch()
    recording = load(tmp_path / "a.norms")
    assert recording.steps.tolist() == [0, 2, 4]
    assert recording.epochs[1:].tolist() == [1, 2]
    assert recording.series("0", "l2").tolist() == [1.0, 3.0, 5.0]


def test_resuming_goes_on_at_the_step_of_the_present_weights(tmp_path):
    w = tf.Variable([1.0, 2.0])
    rec = nk.record([w], to=tmp_path / "a.norms", every=1, quiet=True)
    for _ in range(3):
        w.assign_add([1.0, 1.0])
        rec.step()
    rec.close("killed")
    rec = nk.record([w], to=tmp_path / "a.norms", every=1, resume=True, quiet=True)
    assert rec.steps == 3
    w.assign_add([1.0, 1.0])
    rec.step()
    rec.close()
    recording = load(tmp_path / "a.norms")
    assert recording.steps.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(recording.series("0", "l2", quantity="update")[1:], np.sqrt(2.0))


# --- misuse ----------------------------------------------------------------------------------------------------------


def compiled_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("model", "error", "sentence"),
    [
        (lambda: Net, ArgumentError, r"model=Net is a class; give an instance, such as Net\(\.\.\.\)"),
        (
            lambda: None,
            ArgumentError,
            "model=None: expected a tf.Module, a Keras model, or tf.Variables in a list or dict",
        ),
        (lambda: "net", ArgumentError, "model='net': expected a tf.Module"),
        (list, ArgumentError, r"model=\[\] is empty; give a tf.Module"),
        (lambda: [tf.ones(3)], ArgumentError, r"model=EagerTensor of shape \(3,\): a tensor never changes; give the"),
        (tf.Module, ModelError, "Module has no variables yet: build it, or run one batch through it, first"),
        (
            lambda: tf_keras.Sequential([tf_keras.layers.Dense(2)]),
            ModelError,
            "Sequential has no variables yet: build it",
        ),
        (lambda: tf.Variable([1j]), ModelError, "variable: a tensor of complex128 of shape"),
        (compiled_model, ModelError, r"compiled for model\.fit: record it by callbacks=\[normkit\.keras\.record\(\)\]"),
        (keras.optimizers.SGD, ArgumentError, "model=SGD: expected a tf.Module"),
    ],
)
def test_what_cannot_be_recorded_is_said(tmp_path, model, error, sentence):
    with pytest.raises(error, match=sentence):
        nk.record(model(), to=tmp_path / "a.norms", quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("autograph", [True, False])
def test_a_step_inside_a_function_is_refused(tmp_path, autograph):
    """Autograph, the default, puts errors of its own around those of others."""
    net = Net()
    with nk.record(net, to=tmp_path / "a.norms", quiet=True) as rec:

        @tf.function(autograph=autograph)
        def train():
            rec.step()

        with pytest.raises(
            StateError, match=r"^rec\.step\(\) number 1 stands inside a tf\.function, where it runs once"
        ):
            train()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (tf.constant("x"), r"EagerTensor of string, shape \(\)"),
        (tf.constant(1j), r"EagerTensor of complex128, shape \(\)"),
        (tf.ones(3), r"EagerTensor of float32, shape \(3,\)"),
        (tf.sparse.from_dense([1.0]), r"SparseTensor of float32, shape \(1,\)"),
        (tf.ragged.constant([[1.0]]), r"RaggedTensor of float32, shape \(1, None\)"),
    ],
)
def test_what_is_no_number_is_left_out_of_the_log(tmp_path, value, words):
    with nk.record(tf.Variable([1.0]), to=tmp_path / "a.norms", every=1, quiet=True) as rec:
        rec.step()
        with pytest.warns(
            RuntimeWarning, match=rf"log\(mine=\.\.\.\): expected one number, got {words}; it is not rec"
        ):
            rec.log(mine=value)
        rec.log(fine=tf.constant(True))
        rec.step()
    recording = load(tmp_path / "a.norms")
    assert recording.steps.tolist() == [0, 1, 2]
    assert recording.scalar_names == ("fine",)
