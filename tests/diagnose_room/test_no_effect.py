"""Biases without effect: cancelled gradients are told from small ones."""

from __future__ import annotations

import numpy as np
import pytest

import made_up
from made_up import param, trained
from normkit import diagnose

STEPS = range(0, 101, 10)


def steady(name, t):
    return 1 + 0.01 * t


def found(made):
    return {finding.rule: finding for finding in diagnose.findings(made)}


def test_a_bias_before_batch_norm():
    finding = found(made_up.digits())["no-effect"]
    assert finding.tensors == ("conv1.bias", "conv2.bias")
    assert finding.text.startswith("conv1.bias, conv2.bias have no effect: rms gradient of conv1.bias 1")
    assert finding.remedy == "A bias before BatchNorm cancels. Use Conv2d(..., bias=False)."
    assert finding.basis == "theorem"


def convolution(dtype, kernel, bias, other=1e-3):
    params = [
        param("conv.weight", (8, 3), layer="Conv2d", dtype=dtype),
        param("conv.bias", (8,), layer="Conv2d", dtype=dtype),
        param("fc.weight", (3, 8), dtype=dtype),
        param("fc.bias", (3,), dtype=dtype),
    ]
    sizes = {"conv.weight": kernel, "conv.bias": bias, "fc.weight": other, "fc.bias": other}
    return trained(params, STEPS, steady, grad=sizes.get)


@pytest.mark.parametrize(
    ("dtype", "kernel", "bias", "other", "fires"),
    [
        ("float32", 1e-2, 3e-8, 1e-2, True),
        ("float32", 1e-2, 3e-6, 1e-2, False),
        ("float64", 1e-2, 3e-8, 1e-2, False),
        ("float64", 1e-2, 1e-17, 1e-2, True),
        ("bfloat16", 1e-2, 1e-9, 1e-2, False),  # its rounding, 4e-3, would hide a true gradient
        ("float32", 1e4, 1e-3, 1e-3, False),  # inputs of size 1e7: the bias is as strong as any other
    ],
)
def test_no_effect_knows_the_rounding_of_the_dtype(dtype, kernel, bias, other, fires):
    assert ("no-effect" in found(convolution(dtype, kernel, bias, other))) == fires


@pytest.mark.parametrize("orthogonal", [True, False])
def test_no_effect_is_surer_where_the_kernels_length_is_lost_too(orthogonal):
    made = convolution("float32", 1e-2, 5e-7, 1e-2)
    if orthogonal:
        for weights, grads in zip(made.weights[1:], made.grads[1:], strict=True):
            grads[0] = grads[0] - weights[0] * (grads[0] * weights[0]).sum() / (weights[0] ** 2).sum()
    assert ("no-effect" in found(made)) == orthogonal


def test_one_true_gradient_clears_a_bias():
    made = convolution("float32", 1e-2, 1e-9)
    made.grads[5][1] = np.full(8, 1e-4)
    assert diagnose.findings(made) == []


def test_a_keys_bias():
    params = [
        param(f"attn.{name}_proj.{kind}", (8, 8) if kind == "weight" else (8,), layer="Linear")
        for name in "qkv"
        for kind in ("weight", "bias")
    ]
    made = trained(params, STEPS, steady, grad=lambda name: 1e-10 if name == "attn.k_proj.bias" else 1e-3)
    finding = found(made)["no-effect"]
    assert finding.tensors == ("attn.k_proj.bias",)
    assert finding.remedy.startswith("A key's bias adds the same to every score")


NORMED = [
    param("conv.weight", (8, 3), part="effective", layer="Conv2d"),
    param("conv.weight.g", (8, 1), role="kernel", part="g", layer="Conv2d"),
    param("conv.weight.v", (8, 3), role="kernel", part="v", layer="Conv2d"),
    param("conv.bias", (8,), layer="Conv2d"),
    param("bn.bias", (8,), layer="InstanceNorm2d"),
]


def normed(bias, *, length=1.0, radial=1.0):
    """A weight-normed layer: v of `length` times the weight, its gradient orthogonal; dL/dg times `radial`."""
    made = trained(NORMED, STEPS, steady, grad=lambda name: bias if name == "conv.bias" else 1e-3)
    for weights, grads in zip(made.weights, made.grads, strict=True):
        w, across = weights[2], np.roll(weights[2], 1, axis=1)
        sizes = np.linalg.norm(w, axis=1, keepdims=True)
        weights[0], weights[1], weights[2] = w, sizes, w * length
        if grads[2] is not None:
            away = across - w * (across * w).sum(1, keepdims=True) / sizes**2
            grads[1], grads[2] = radial * 1e-3 * np.ones((8, 1)), 1e-3 * away / length
    return made


def test_a_weight_normed_layer_is_measured_by_the_gradient_of_its_weight():
    for length in (1, 1e4):
        finding = found(normed(1e-10, length=length))["no-effect"]
        assert "(conv.weight: 0.00" in finding.text
        assert finding.remedy == "A bias before InstanceNorm cancels. Use Conv2d(..., bias=False)."


def test_a_long_direction_hides_no_idle_bias():
    assert "no-effect" in found(normed(2e-9, length=1e6))  # beside dL/dv, 1e-9, that would be a gradient


def test_a_direction_is_orthogonal_to_its_gradient_whatever_follows():
    assert "no-effect" not in found(normed(2e-8))  # small, but the length of the weight matters
    assert "no-effect" in found(normed(2e-8, radial=1e-5))


def test_the_option_is_called_as_the_layer_calls_it():
    params = [param("dense/kernel", (4, 4), layer="Dense"), param("dense/bias", (4,), layer="Dense")]
    params += [param("norm/gamma", (4,), role="scale", layer="BatchNormalization")]
    made = trained(params, STEPS, steady, grad=lambda name: 1e-10 if name == "dense/bias" else 1e-3)
    assert (
        found(made)["no-effect"].remedy == "A bias before BatchNormalization cancels. Use Dense(..., use_bias=False)."
    )


def slowly(made):
    """The rule as its docstring says it, bias by bias."""
    grads, sums = made.matrix("rms", "grad")[1:], made.all_sums("grad")[1:]
    fires = set()
    for n, one in enumerate(made.params):
        if one.role == "bias" and one.dtype in ("float32", "float64"):
            unit = {"float32": 2.0**-24, "float64": 2.0**-53}[one.dtype]
            kernel = made.tensors.index(one.name.replace("bias", "weight"))
            others = [m for m, other in enumerate(made.params) if other.role in ("bias", "scale") and m != n]
            lengths = made.matrix("l2")[1:, kernel] * made.matrix("l2", "grad")[1:, kernel]
            cosines = np.abs(sums[lengths > 0, 6, kernel] / lengths[lengths > 0])
            share = unit**0.5 if (cosines < 1e-2).all() and cosines.size else unit * 3e4**0.5
            strongest = np.fmax.reduce(grads[:, others], axis=1)
            known = np.isfinite(grads[:, n]) & (grads[:, kernel] > 0) & (strongest > 0)
            below = grads[known, n] < share * np.fmin(grads[known, kernel], strongest[known])
            if known.any() and below.all() and grads[known, n].any():
                fires.add(one.name)
    return fires


@pytest.mark.parametrize("seed", range(5))
def test_all_biases_at_once_are_judged_as_one_by_one(seed):
    rng = np.random.default_rng(seed)
    dtypes = ["float32", "float32", "float32", "float64", "bfloat16"]
    params, sizes = [], {}
    for n in range(30):
        for kind, shape in (("weight", (4, 3)), ("bias", (4,))):
            params.append(param(f"fc{n}.{kind}", shape, layer="Linear", dtype=dtypes[n % 5]))
            sizes[f"fc{n}.{kind}"] = 10 ** rng.uniform(-2, 0) * (
                1.0 if kind == "weight" or n % 3 else 10 ** rng.uniform(-9, -4)
            )
    made = trained(params, STEPS, steady, grad=sizes.get)
    for n in range(0, 30, 2):
        for weights, grads in zip(made.weights[1:], made.grads[1:], strict=True):
            w, g = weights[2 * n], grads[2 * n]
            grads[2 * n] = g - w * (g * w).sum() / (w * w).sum()
    for n in range(1, 60, 7):
        made.grads[1 + n % 9][n] = None if n % 2 else np.full(made.params[n].shape, np.nan)
    for n in range(3, 60, 11):
        for grads in made.grads[1:]:
            grads[n] = np.zeros(made.params[n].shape)
    finding = found(made).get("no-effect")
    assert set(finding.tensors if finding else ()) == slowly(made)
    assert 0 < len(slowly(made)) < 10
