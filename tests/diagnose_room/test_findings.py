"""The rules of `diagnose`: each fires on its case, says it with the figures, and stays silent beside it."""

from __future__ import annotations

import numpy as np
import pytest

import made_up
from made_up import param, trained
from normkit import diagnose
from normkit.types import Finding

STEPS = range(0, 101, 10)


def steady(name, t):
    return 1 + 0.01 * t


def net(**more):
    """Two linear layers that train as they should."""
    params = [
        param("fc1.weight", (8, 4), layer="Linear"),
        param("fc1.bias", (8,), layer="Linear"),
        param("fc2.weight", (3, 8), layer="Linear"),
        param("fc2.bias", (3,), layer="Linear"),
    ]
    return trained(params, STEPS, steady, **more)


def found(made):
    return {finding.rule: finding for finding in diagnose.findings(made)}


def column(made, name):
    return made.tensors.index(name)


def test_a_healthy_run_has_no_findings():
    assert diagnose.findings(net()) == []


# -- not finite ---------------------------------------------------------------------------------------------------


def spoil(rows, made, name, records, value=np.nan):
    for k in records:
        array = np.array(rows[k][column(made, name)], dtype=float)
        array.ravel()[:2] = value
        rows[k][column(made, name)] = array


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_names_the_first_step_the_tensor_and_the_gradient_before_the_weight(value):
    made = net()
    spoil(made.grads, made, "fc2.weight", [7, 8], value)
    spoil(made.weights, made, "fc2.weight", range(7, 11), value)
    finding = diagnose.findings(made)[0]
    assert (finding.rule, finding.severity, finding.step) == ("non-finite", "error", 70)
    assert finding.tensors == ("fc2.weight",)
    assert finding.text == (
        "NaN or infinity in step 70 in the gradient of fc2.weight: 2 of 24 entries (the record before, step 60, was "
        "finite). At the end 1 of 4 tensors is hit."
    )


def test_non_finite_gradient_alone_is_a_warning():
    made = net()
    spoil(made.grads, made, "fc1.weight", [3])
    finding = found(made)["non-finite"]
    assert finding.severity == "warning"
    assert finding.text.endswith("The weights stayed finite.")


def test_non_finite_weights_that_recover():
    made = net()
    spoil(made.weights, made, "fc1.weight", [3])
    assert found(made)["non-finite"].text.endswith("The weights were hit in step 30 and are finite again.")


def test_non_finite_before_training():
    made = net()
    spoil(made.weights, made, "fc1.weight", range(11))
    finding = found(made)["non-finite"]
    assert finding.text.startswith("NaN or infinity before training in the weights of fc1.weight: 2 of 32 entries.")
    assert "initialization or checkpoint" in finding.remedy


def test_an_infinite_buffer_is_a_mask():
    made = trained([param("w.weight", (3, 3)), param("mask", (3,), role="buffer")], STEPS, steady)
    spoil(made.weights, made, "mask", range(11), -np.inf)
    assert "non-finite" not in found(made)


# -- all zero -----------------------------------------------------------------------------------------------------


def fading(name, t):
    return 0.0 if name == "fc2.weight" and t >= 0.4 else steady(name, t)


def test_all_zero_says_since_when():
    made = trained(net().params, STEPS, fading)
    finding = found(made)["all-zero"]
    assert finding.text == "fc2.weight has become zero in every entry, since step 40."
    assert finding.tensors == ("fc2.weight",)


def test_all_zero_from_the_start_is_told_apart_and_merged():
    made = trained(net().params, STEPS, lambda name, t: 0.0 if name.endswith("weight") else steady(name, t))
    finding = found(made)["all-zero"]
    assert finding.text == "fc1.weight, fc2.weight are zero in every entry, from the first record to step 100."


@pytest.mark.parametrize(
    ("name", "role", "fires"),
    [
        ("up.weight", "kernel", True),
        ("ln.weight", "scale", True),
        ("emb", "embedding", True),
        ("fc.bias", "bias", False),
    ],
)
def test_all_zero_asks_for_the_role(name, role, fires):
    made = trained(
        [param(name, (4,), role=role), param("w.weight", (3, 3))], STEPS, lambda n, t: 0.0 if n == name else 1 + t
    )
    assert ("all-zero" in found(made)) == fires


def test_zero_at_the_start_alone_is_on_purpose():
    made = trained(net().params, STEPS, lambda name, t: t if name == "fc2.weight" else steady(name, t))
    assert diagnose.findings(made) == []


def test_zero_before_training_says_nothing_yet():
    made = trained(net().params, [0], lambda name, t: 0.0)
    assert diagnose.findings(made) == []


# -- never updated ------------------------------------------------------------------------------------------------


def still(name, t):
    return 1.0 if name.startswith("fc1") else steady(name, t)


def test_never_got_a_gradient():
    made = trained(net().params, STEPS, still)
    for row in made.grads:
        row[0] = row[1] = None
    finding = found(made)["never-updated"]
    assert finding.text == "fc1.weight, fc1.bias never got a gradient in 100 steps and did not move."
    assert finding.remedy.startswith("The loss does not depend on them:")


def test_zero_gradient_and_learning_rate_zero_are_two_findings():
    made = trained(net().params, STEPS, still, grad=lambda name: 0.0 if name == "fc1.weight" else 1e-3)
    texts = [finding.text for finding in diagnose.findings(made)]
    assert texts == [
        "fc1.weight got a gradient of exactly 0 in every record and does not move.",
        "fc1.bias got gradients but no update in 100 steps.",
    ]


def test_without_gradients_on_record_a_standstill_is_seen_in_the_weights():
    made = trained(net().params, STEPS, still)
    made.grads, made.updates = [], []
    assert found(made)["never-updated"].text == "fc1.weight, fc1.bias are bit for bit the same after 100 steps."


def test_an_update_at_one_record_is_motion():
    made = trained(net().params, STEPS, still)
    for n in (0, 1):
        made.updates[4][n] = np.full(made.params[n].shape, 1e-9)
    assert diagnose.findings(made) == []


def test_frozen_tensors_may_stand_still():
    params = [param("fc1.weight", (8, 4), trainable=False), *net().params[2:]]
    assert diagnose.findings(trained(params, STEPS, still)) == []


def test_nothing_moves():
    made = trained(net().params, STEPS, lambda name, t: 1.0, scalars={"lr": np.zeros(11)})
    findings = diagnose.findings(made)
    assert [finding.rule for finding in findings] == ["nothing-moves"]
    assert findings[0].text == "Nothing moved: all 4 trainable tensors are bit for bit the same after 100 steps."
    assert findings[0].remedy == "The learning rate is 0 in every record."
    assert findings[0].severity == "error"


def test_the_first_step_of_a_warmup_may_move_nothing():
    assert diagnose.findings(trained(net().params, [0, 1], lambda name, t: 1.0)) == []


def test_in_no_optimizer_is_said_once():
    made = trained(net().params, STEPS, still, meta={"untrained": ["fc1.weight", "fc1.bias"]})
    findings = diagnose.findings(made)
    assert [finding.text for finding in findings] == [
        "fc1.weight, fc1.bias are trainable but in no optimizer, so no step changes them."
    ]


def test_many_tensors_are_counted():
    made = net(meta={"untrained": [f"h.{n}.weight" for n in range(12)]})
    assert found(made)["in-no-optimizer"].text.startswith("h.0.weight, h.1.weight, h.2.weight and 9 more are trainable")


# -- odd recordings -----------------------------------------------------------------------------------------------

ODD = {
    "no records": lambda: trained(net().params, [], steady),
    "no tensors": lambda: trained([], STEPS, steady),
    "neither": lambda: trained([], [], steady),
    "one record": lambda: trained(net().params, [0], steady),
    "last record only": lambda: trained(net().params, [500], steady),
    "no gradients": lambda: made_up.MadeUp(net().params, np.arange(11), net().weights),
    "no weights": lambda: made_up.MadeUp(net().params, np.arange(11), []),
    "empty tensor": lambda: trained([param("e.weight", (0, 3)), param("s", (), role="other")], STEPS, steady),
    "NaN everywhere": lambda: trained(net().params, STEPS, lambda name, t: np.nan, grad=np.nan),
    "infinity everywhere": lambda: trained(net().params, STEPS, lambda name, t: np.inf, grad=np.inf),
    "half of them absent": lambda: absent(net()),
    "strange meta": lambda: net(meta={"untrained": None, "optimizers": None, "steps": None}),
}


def absent(made):
    for k in range(5):
        made.weights[k][0] = made.grads[k][0] = made.updates[k][0] = None
    return made


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the made-up numbers
def test_odd_recordings_are_no_reason_to_fail(name):
    findings = diagnose.findings(ODD[name]())
    assert all(isinstance(finding, Finding) and finding.text.endswith(".") for finding in findings)
    assert diagnose.text(findings).isprintable() or "\n" in diagnose.text(findings)


def test_the_gravest_comes_first():
    made = trained(net().params, STEPS, fading, meta={"untrained": ["x.weight"]})
    spoil(made.weights, made, "fc1.weight", [10])
    severities = [finding.severity for finding in diagnose.findings(made)]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert len(severities) == 3


# -- as text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 80, 200])
def test_text_keeps_to_the_width(width):
    text = diagnose.text(diagnose.findings(made_up.digits()), width)
    assert max(map(len, text.split("\n"))) <= width
    assert text.split("\n")[-1].endswith("theorem")
    assert "theorem" in text


def test_text_of_nothing_is_empty():
    assert diagnose.text([]) == ""


def test_names_cannot_steer_the_terminal():
    finding = Finding("r", "warning", "\x1b[2Jw is bad.", "Do \x07 this.")
    assert "\x1b" not in diagnose.text([finding])
    assert "\x07" not in diagnose.text([finding])
