"""The balance of g and v: the figure, when it is a finding, and what the other rules say of parts."""

from __future__ import annotations

import numpy as np
import pytest

from made_up import param, trained
from normkit import diagnose
from normkit.norms import balance

STEPS = range(0, 101, 10)
SGD = {"optimizers": [{"name": "SGD", "groups": [{"lr": 0.1}]}]}


def normed(course, *, names=("conv.weight",), meta=SGD, shape=(4, 9), unit=(4, 1)):
    """Weights of four groups of nine entries; `course(name, t)` gives |g| and |v| of each group."""
    params = [
        param(f"{name}{suffix}", unit if suffix == ".g" else shape, role="kernel", part=part)
        for name in names
        for suffix, part in ((".g", "g"), (".v", "v"), ("", "effective"))
    ]
    made = trained(params, STEPS, lambda name, t: 1 + t, meta=meta)
    for step, weights in zip(made.steps, made.weights, strict=True):
        for n in range(0, len(params), 3):
            g, length = course(names[n // 3], step / 100)
            v = np.random.default_rng(int(step)).normal(size=shape)
            v *= length / np.linalg.norm(v, axis=1, keepdims=True)
            weights[n : n + 3] = [np.full(unit, float(g)), v, v * g / length]
    return made


def found(made):
    return {finding.rule: finding for finding in diagnose.findings(made)}


def test_the_figure_is_what_noise_does_to_both():
    rng = np.random.default_rng(0)
    for g, length in ((1.0, 1.0), (1.0, 4.0), (3.0, 1.0)):
        v = rng.normal(size=(2000, 65))
        v *= length / np.linalg.norm(v, axis=1, keepdims=True)
        noise = rng.normal(size=v.shape)
        by_g = (noise * v).sum(1, keepdims=True) / length
        by_v = g / length * (noise - by_g * v / length)
        turned, stretched = np.linalg.norm(by_v, axis=1) / length, by_g[:, 0] / g
        measured = np.sqrt((turned**2).mean() / (stretched**2).mean())
        assert balance(g, length, 65) == pytest.approx(measured, rel=0.05)


def test_of_groups_that_differ_it_is_the_mean_by_squares_of_lengths():
    g, length = np.array([1.0, 2.0, 5.0]), np.array([3.0, 1.0, 2.0])
    each = balance(g, length, 10)
    whole = balance(np.linalg.norm(g), np.linalg.norm(length), 10)
    assert whole == pytest.approx(np.average(each, weights=length**2))


def test_no_figure_without_a_direction():
    assert np.isnan(balance([1.0, 1.0], [0.0, 1.0], [9, 1])).all()


def test_first_and_last_record():
    (one,) = diagnose.balances(diagnose.Columns.of(normed(lambda name, t: (1, 1 + t))))
    assert (one.name, one.entries) == ("conv.weight", 9)
    assert (one.first, one.last) == pytest.approx((8**0.5, 8**0.5 / 4))
    assert one.lengths == pytest.approx((2, 4))  # four groups of 1 and of 2


def test_a_frozen_direction():
    finding = found(normed(lambda name, t: (1, 1 + 3 * t)))["direction-frozen"]
    assert (finding.severity, finding.basis, finding.tensors) == ("warning", "model", ("conv.weight",))
    assert finding.text == (
        "conv.weight turns slower than its length changes: R is 0.18, at the first record 2.8; 1 is balanced."
    )
    assert finding.remedy == (
        "v is too long for its steps to turn it. Divide v by 2.4: the weight g v / |v| stays the same."
    )
    assert finding.evidence["r_last"] == pytest.approx(8**0.5 / 16)


def test_groups_of_two_begin_balanced_and_may_leave_that_a_little():
    made = normed(lambda name, t: (1, 1 + 0.3 * t), shape=(4, 2))
    assert balance(1.0, 1.3, 2) == pytest.approx(0.59, abs=0.01)
    assert "direction-frozen" not in found(made)


def test_the_remedy_balances():
    made = normed(lambda name, t: (1, 1 + 3 * t))
    last = made.weights[-1]
    assert balance(np.linalg.norm(last[0]), np.linalg.norm(last[1] / 2.38), 9) == pytest.approx(1, rel=0.01)


DRIFTS = {
    "longer": (
        lambda name, t: (4, 1 + 1.2 * t),
        "4.8 times slower than at the first record, learning rate and g alike: |v| 2 -> 4.4, R 45 -> 9.4.",
        "Every step of SGD lengthens v.",
    ),
    "shorter": (
        lambda name, t: (4, 4 - 2.2 * t),
        "4.9 times faster than at the first record, learning rate and g alike: |v| 8 -> 3.6, R 2.8 -> 14.",
        "Decay shortens v.",
    ),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_drift(name):
    course, text, why = DRIFTS[name]
    finding = found(normed(course))["direction-drift"]
    assert (finding.severity, finding.text) == ("note", f"conv.weight turns {text}")
    assert finding.remedy == f"{why} Scale v back to undo it: the weight g v / |v| stays the same."


@pytest.mark.parametrize(
    "course",
    [lambda name, t: (4, 4 + 8 * t), lambda name, t: (9, 9 * (1 + 0.9 * t)), lambda name, t: (1 + 3 * t, 1)],
    ids=["frozen is said alone", "by 3.6", "by a change of g"],
)
def test_no_drift(course):
    assert "direction-drift" not in found(normed(course))


def test_many_that_drifted_are_one_finding_of_the_worst():
    made = normed(lambda name, t: (9, 9 - (4 + int(name[2])) * t), names=["h.1.weight", "h.2.weight"])
    finding = found(made)["direction-drift"]
    assert finding.text.startswith("h.1.weight, h.2.weight turn up to 9 times faster than at the first record")
    assert "|v| of h.2.weight 18 -> 6" in finding.text


def test_many_layers_are_one_finding_of_the_worst():
    names = [f"h.{n}.weight" for n in range(6)]
    finding = found(normed(lambda name, t: (1, 1 + 2 * t * int(name[2])), names=names))["direction-frozen"]
    assert finding.text.startswith(
        "h.1.weight, h.2.weight, h.3.weight and 2 more turn slower than their length changes"
    )
    assert "R of h.5.weight is 0.023" in finding.text


@pytest.mark.parametrize(
    "meta", [{}, {"optimizers": [{"name": "AdamW"}]}, {"optimizers": [{"name": "SGD"}, {"name": "Muon"}]}]
)
def test_the_model_is_of_sgd(meta):
    assert diagnose.findings(normed(lambda name, t: (1, 1 + 3 * t), meta=meta)) == []


def test_a_balanced_run_and_one_that_has_not_begun_have_no_findings():
    assert diagnose.findings(normed(lambda name, t: (1, 1 + 0.1 * t))) == []
    made = normed(lambda name, t: (1, 9))
    made.steps, made.weights, made.grads, made.updates = made.steps[:1], made.weights[:1], [], []
    assert "direction-frozen" not in found(made)


# -- what other rules say of parts ----------------------------------------------------------------------------------


def test_the_weight_may_stand_still_while_its_direction_only_grows():
    made = normed(lambda name, t: (1, 1 + 0.1 * t))
    for weights, updates in zip(made.weights, made.updates, strict=True):
        weights[2], updates[2] = np.ones((4, 9)), None if updates[2] is None else np.zeros((4, 9))
    assert diagnose.findings(made) == []


def test_a_frozen_g_is_no_fault_and_a_trained_one_that_stands_is():
    made = normed(lambda name, t: (1, 1 + 0.1 * t))
    for updates in made.updates[1:]:
        updates[0] = np.zeros((4, 1))
    assert found(made)["never-updated"].tensors == ("conv.weight.g",)
    made.params[0] = param("conv.weight.g", (4, 1), role="kernel", part="g", trainable=False)
    assert diagnose.findings(made) == []


def test_a_direction_of_one_entry_cannot_turn():
    made = normed(lambda name, t: (1 + t, 1), shape=(4, 1))
    for weights, updates, grads in zip(made.weights, made.updates, made.grads, strict=True):
        weights[1] = np.ones((4, 1))
        if updates[1] is not None:
            updates[1], grads[1] = np.zeros((4, 1)), np.zeros((4, 1))
    assert diagnose.findings(made) == []


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the made-up numbers
def test_zero_parts_are_said_once_of_the_weight():
    made = normed(lambda name, t: (0, 1 + 0.1 * t))
    assert found(made)["all-zero"].tensors == ("conv.weight",)
    assert "direction-frozen" not in found(made)


def test_parts_alone_in_a_recording():
    made = normed(lambda name, t: (1, 1 + 3 * t))
    made.params = made.params[:2]
    for rows in (made.weights, made.grads, made.updates):
        rows[:] = [row[:2] for row in rows]
    assert found(made)["direction-frozen"].tensors == ("conv.weight",)
    made.params = made.params[1:]
    for rows in (made.weights, made.grads, made.updates):
        rows[:] = [row[1:] for row in rows]
    made.taken.clear()
    assert diagnose.findings(made) == []
