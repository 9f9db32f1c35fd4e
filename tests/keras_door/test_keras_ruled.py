"""What becomes of an optimizer with rules: saved and loaded, added to, in a loop; and what users type wrong."""

import contextlib

import keras
import numpy as np
import pytest

import normkit
import normkit.keras as nk
from keras_pulled import (
    PLAIN,
    QUICK,
    apply,
    array,
    assert_same,
    flat,
    net,
    sgd,
    trained,
)
from keras_tiny import only_on
from normkit.errors import ArgumentError, ModelError, StateError

layers = keras.layers


def test_exclusions_and_references_outlive_save_and_load(tmp_path):
    goal = {"head.bias": np.full(2, 0.5, "float32")}
    optimizer = nk.decay(keras.optimizers.SGD(0.1, momentum=0.9), 0.5, select="!head.*")
    optimizer = nk.decay(optimizer, 0.25, kind="toward", reference="initial", select=lambda p: p.name == "head.kernel")
    optimizer = nk.decay(optimizer, 4.0, kind="toward", reference=goal, select=["bias", "head.bias"])
    model = trained(net(bias_initializer="ones"), optimizer)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert [each.path for each in loaded.trainable_variables] != [each.path for each in model.trainable_variables]
    for each in (model, loaded):
        apply(
            each.optimizer, each.trainable_variables, [np.ones(variable.shape) for variable in each.trainable_variables]
        )
    assert_same(model, loaded, rtol=0)
    rows = loaded.optimizer.explain().rows
    assert [row.chosen for row in rows] == [True, False, True, True]
    assert [(row.name, row.role, row.role_from) for row in rows[:2]] == [
        ("encoder.dense.kernel", "kernel", "layer Dense"),
        ("encoder.dense.bias", "bias", "layer Dense"),
    ]
    assert [row.why for row in rows[:2]] == ["decoupled 0.5: as it was saved", "left out, as it was saved"]
    clone = keras.models.clone_model(model)
    assert clone.optimizer.told == "decoupled 0.5, toward 0.25, toward 4"
    with pytest.raises(StateError, match="are with the saved state, which has not been loaded"):
        apply(clone.optimizer, clone.trainable_variables, [np.zeros(each.shape) for each in clone.trainable_variables])


def test_a_rule_added_after_fit_acts_in_the_next():
    model = trained(keras.Sequential([keras.Input((4,)), layers.Dense(2, name="head")]), nk.decay(sgd(), 0.5), **PLAIN)
    optimizer = nk.decay(model.optimizer, 10.0, select=["bias", "head.bias"])
    assert optimizer is model.optimizer
    model.layers[-1].bias.assign([100.0, -100.0])
    model.fit(*flat(), batch_size=8, verbose=0)
    assert abs(array(model.layers[-1].bias)).max() < 30


def test_weight_norm_decays_g_and_never_v():
    model = nk.weight_norm(net())
    kernel = model.layers[-1].layer.kernel
    g, v = array(kernel.g), array(kernel.v)
    optimizer = nk.decay(sgd(), 0.5, kind="independent", select="!encoder.*", model=model)
    optimizer.build(model.trainable_variables)
    apply(optimizer, model.trainable_variables, [np.zeros(each.shape) for each in model.trainable_variables])
    np.testing.assert_allclose(array(kernel.g), g / 2, rtol=1e-6)
    assert (array(kernel.v) == v).all()
    rows = {row.name: row for row in optimizer.explain().rows}
    assert rows["head.kernel.g"].why == "independent 0.5: length of head.kernel"
    assert rows["head.kernel.v"].why == "direction of a weight-normed weight"
    direction = nk.decay(sgd(), 0.5, select="head.*.v", model=model)
    assert [row.name for row in direction.explain().rows if row.chosen] == ["head.kernel.v"]


def test_quantized_weights_are_left_out_and_said_to_be():
    model = net()
    model.layers[-1].quantize("int8")
    told = {row.name: row.why for row in nk.decay(sgd(), 0.5, model=model).explain().rows}
    assert told["head.kernel"] == "int8, not floating-point"
    assert told["encoder.dense.kernel"] == "decoupled 0.5: role kernel by default"


def test_a_loss_scaler_around_the_rules_explains_and_projects():
    model = net()
    around = nk.decay(keras.optimizers.LossScaleOptimizer(sgd()), 0.5, model=model)
    assert type(around) is keras.optimizers.LossScaleOptimizer
    assert [row.chosen for row in around.explain().rows] == [True, False, True, False]
    model.compile(outer := keras.optimizers.LossScaleOptimizer(nk.constrain(sgd(), max_norm=0.01, model=model)), "mse")
    outer.build(model.trainable_variables)
    outer.project()
    assert abs(array(model.layers[-1].kernel)).max() <= 0.01


def test_a_schedule_counts_where_it_is_asked_whether_a_step_diverges():
    optimizer = nk.decay(sgd(), 30.0, schedule=lambda step: 0.01)
    optimizer.learning_rate = 0.5
    with pytest.raises(ArgumentError, match=r"weight_decay=30 times schedule=0\.01 with learning rate 10"):
        optimizer.learning_rate = 10.0


def test_without_a_gradient_and_frozen_nothing_decays():
    model = net()
    model.layers[-1].trainable = False
    optimizer = nk.decay(sgd(), 0.5, model=model)
    assert {row.name: row.why for row in optimizer.explain().rows}["head.kernel"] == "frozen"
    one, other = (keras.Variable(np.ones((2, 2), "float32"), name="kernel") for _ in range(2))
    loop = nk.decay(sgd(), 0.5)
    loop.build([one, other])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        apply(loop, [one, other], [np.zeros((2, 2)), None])
    np.testing.assert_allclose(array(one), 0.95, rtol=1e-6)
    assert (array(other) == 1).all()


@only_on("tensorflow")
def test_l2_on_a_sparse_gradient_is_refused_and_the_others_take_the_whole_weight():
    model = keras.Sequential([keras.Input((1,), dtype="int32"), layers.Embedding(4, 2), layers.Flatten()])
    x, y = np.zeros((4, 1), "int32"), np.zeros((4, 2), "float32")
    for kind in ("l2", "decoupled"):
        before = array(model.layers[0].embeddings)
        model.compile(nk.decay(sgd(), 0.5, kind=kind, select="embedding"), "mse", **QUICK)
        refused = pytest.raises(ArgumentError, match=r"embedding\.embeddings has a sparse gradient")
        with refused if kind == "l2" else contextlib.nullcontext():
            model.fit(x, y, verbose=0)
        left = 1 if kind == "l2" else 0.95
        np.testing.assert_allclose(array(model.layers[0].embeddings)[1:], left * before[1:], rtol=1e-6)


def test_what_is_set_later():
    optimizer = nk.decay(keras.optimizers.SGD(0.1), 0.5)
    optimizer.learning_rate = 0.2
    assert float(array(optimizer.inner_optimizer.learning_rate)) == pytest.approx(0.2)
    with pytest.raises(ArgumentError, match=r"each step would take 2\.5 times the weight"):
        optimizer.learning_rate = 5.0
    model = net()
    model.compile(optimizer, "mse", **QUICK)
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    logs = model.fit(*flat(), verbose=0, callbacks=[halve, keras.callbacks.ReduceLROnPlateau(monitor="loss")]).history
    assert logs["learning_rate"] == pytest.approx([0.1])


@pytest.mark.slow
def test_a_recording_sees_what_the_rules_leave(tmp_path):
    seen, model = [], net()
    optimizer = nk.constrain(nk.decay(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), 0.5), max_norm=0.5)

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch % 2:
                seen.append(nk.norms(self.model)["head.kernel"])

    model.compile(optimizer, "mse", **PLAIN)
    record = nk.record(tmp_path / "a.norms", every=1, what=("weight", "update"), quiet=True)
    model.fit(*flat(), batch_size=4, verbose=0, callbacks=[record, Look()])
    run = normkit.load(tmp_path / "a.norms")
    np.testing.assert_allclose(run.series("head.kernel")[1:], seen, rtol=1e-12)
    assert run.series("head.kernel", quantity="update")[1] > 0


DECAY = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
WRONG = [
    (lambda: nk.decay("adam", 0.1), "optimizer='adam' is a name; give the optimizer itself"),
    (lambda: nk.decay(keras.optimizers.Adam, 0.1), "optimizer=Adam is a class"),
    (lambda: nk.decay(net(), 0.1), "optimizer=Sequential is a model; give the optimizer first"),
    (lambda: nk.decay(None, 0.1), "optimizer=None: expected a keras.optimizers.Optimizer"),
    (lambda: nk.decay(sgd(), "0.1"), "weight_decay='0.1': expected a finite number"),
    (lambda: nk.decay(sgd(), -0.1), "weight_decay=-0.1"),
    (lambda: nk.decay(sgd(), float("nan")), "weight_decay=nan"),
    (lambda: nk.decay(sgd(), DECAY), "what changes with the step is schedule="),
    (lambda: nk.decay(sgd(), 0.1, kind="adamw"), "kind='adamw': expected one of"),
    (lambda: nk.decay(sgd(), 30.0), "each step would take 3 times the weight"),
    (lambda: nk.decay(sgd(0.0), 0.1, kind="independent"), "kind='independent' needs lr_ref, and the optimizer's rates"),
    (lambda: nk.decay(sgd(), 0.1, lr_ref=0.1), "lr_ref=0.1 is of no use with kind='decoupled'"),
    (lambda: nk.decay(sgd(), 0.1, kind="toward"), "needs one of reference= and length=, and neither"),
    (lambda: nk.decay(sgd(), 0.1, reference="initial"), "it belongs to 'toward'"),
    (lambda: nk.decay(sgd(), 0.1, kind="toward", reference="now"), "reference='now': expected 'initial', or arrays"),
    (lambda: nk.decay(sgd(), 0.1, per="out"), "only a length has groups"),
    (lambda: nk.decay(sgd(), 0.1, schedule=0.5), "schedule=0.5: expected a function from the step"),
    (lambda: nk.decay(sgd(), 0.1, schedule=lambda: 1.0), "gives no number for step 0, a tensor"),
    (lambda: nk.decay(sgd(), 0.1, schedule=lambda step: None), "gives no number for step 0, a tensor"),
    (lambda: nk.decay(sgd(), 0.1, schedule=lambda step: -1.0), "gives -1 at step 0; expected a factor of at least 0"),
    (lambda: nk.decay(sgd(), 3.0, schedule=lambda step: 10.0), "weight_decay=3 times schedule=10 with learning rate"),
    (lambda: nk.decay(sgd(), 0.1, kind="toward", length=1.0, per="row"), "per is 'row'; it must be 'tensor', 'out'"),
    (lambda: nk.decay(sgd(), 0.1, select="nothing.*", model=net()), "matches none of 4 parameters"),
    (lambda: nk.decay(sgd(), 0.1, select=[], model=net()), "is empty"),
    (
        lambda: nk.decay(
            sgd(), 0.1, kind="toward", reference={"head.kernel": np.ones((2, 2))}, select="head.*", model=net()
        ),
        "reference of head.kernel has shape",
    ),
    (
        lambda: nk.decay(sgd(), 0.1, kind="toward", reference={"head.kernel": np.ones((3, 2))}, model=net()),
        "no array for encoder.dense.kernel, only for head.kernel; add it, or leave it out with select=",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), WRONG)
def test_what_users_type_wrong(call, sentence):
    with pytest.raises(ArgumentError, match=sentence.replace("(", r"\(")):
        call()


def test_twice_is_refused_and_changes_nothing():
    with pytest.raises(ModelError, match=r"a weight would decay twice: AdamW has weight_decay=0\.004 itself"):
        nk.decay(keras.optimizers.AdamW(), 0.1)
    spared = keras.optimizers.AdamW(weight_decay=0.1)
    spared.exclude_from_weight_decay(var_names=["kernel"])
    nk.decay(spared, 0.1, model=net())
    model = net()
    optimizer = nk.decay(sgd(), 0.1, model=model)
    before = optimizer.get_config()
    with pytest.raises(
        ModelError, match=r"encoder\.dense\.kernel would decay twice, by decoupled 0.1 and cautious 0.2"
    ):
        nk.decay(optimizer, 0.2, kind="cautious", model=model)
    assert optimizer.get_config() == before
    bare = sgd()
    with pytest.raises(ArgumentError, match="matches none"):
        nk.decay(bare, 0.1, select="nothing.*", model=model)
    assert "apply" not in vars(bare)


def test_the_optimizer_inside_is_told_to_be_inside():
    inner = sgd()
    nk.decay(inner, 0.1)
    with pytest.raises(ModelError, match="this SGD has rules around it already"):
        nk.decay(inner, 0.1)
    model = net()
    with pytest.raises(ModelError, match="SGD makes a step without the rules that were put around it"):
        trained(model, inner)
    model.compile(one := sgd(), "mse")
    with pytest.warns(
        UserWarning, match="is compiled with this SGD itself, without the rules: call model.compile again"
    ):
        nk.decay(one, 0.1, model=model)


def test_before_the_weights_are_known():
    optimizer = nk.decay(sgd(), 0.1)
    with pytest.raises(StateError, match="does not know its weights yet"):
        optimizer.explain()
    with pytest.raises(StateError, match="is not built yet"):
        optimizer.project()
    with pytest.raises(ModelError, match="is no text, so it can be saved once"):
        nk.decay(sgd(), 0.1, select=lambda p: True).get_config()


def test_in_a_loop_without_a_model_paths_say_what_is_what():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()])
    optimizer = nk.decay(sgd(), 0.1)
    optimizer.build(model.trainable_variables)
    told = {row.name.rpartition(".")[2]: row.chosen for row in optimizer.explain().rows}
    assert told == {"kernel": True, "bias": False, "gamma": False, "beta": False}
    with pytest.raises(ArgumentError, match="does not say which axes"):
        nk.constrain(sgd(), max_norm=1.0).build(model.trainable_variables)
    nk.constrain(sgd(), max_norm=1.0, per=-1).build(model.trainable_variables)
