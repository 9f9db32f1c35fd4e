"""Weight normalization worked out by hand, on three rows of three: what g and v are, and what a step does to them.

    python examples/weight_norm_by_hand.py

The layer is `Linear(3, 3)` without a bias, the loss the sum of its outputs, the optimizer SGD with lr 0.01. Every line
that the layer prints stands beside the same numbers by plain arithmetic.
"""

import torch
from torch import nn

import normkit.torch as nk

ROWS = [[0.2672, 0.5720, 0.1048], [-0.4538, 0.5243, -0.0612], [-0.5537, 0.0813, -0.3459]]
INPUT = [[1.5245, 1.8654, 0.4509]]  # the sums of the inputs, which are all that the gradient of this loss knows of them


def layer(per):
    linear = nn.Linear(3, 3, bias=False)
    nk.set_weight(linear, torch.tensor(ROWS))
    return nk.weight_norm(linear, per=per)


def parts(linear):
    found = linear.parametrizations.weight
    return found.original0, found.original1


def show(what, layers_own, by_hand):
    """Print a line of the table. Raises: AssertionError where the two disagree."""
    assert torch.allclose(layers_own, by_hand, atol=1e-6), what
    rows = [" ".join(f"{number:7.4f}" for number in row) for row in torch.atleast_2d(layers_own.detach()).tolist()]
    print(f"{what:42}{rows[0]}", *(f"{'':42}{row}" for row in rows[1:]), sep="\n")


def main():
    w = torch.tensor(ROWS)

    print("at wrap: v is the weight, g its lengths over everything that per does not keep")
    lengths = {0: w.norm(dim=1, keepdim=True), 1: w.norm(dim=0, keepdim=True), "tensor": w.norm().reshape(1, 1)}
    for per, length in lengths.items():
        linear = layer(per)
        g, v = parts(linear)
        show(f"  per={per!r}: g", g, length)
        assert torch.equal(v, w)
        assert torch.equal(linear.weight, w)
        assert torch.allclose(g * v / length, linear.weight)

    linear = layer(0)
    g, v = parts(linear)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.01)
    linear(torch.tensor(INPUT)).sum().backward()

    print("the gradient of w: the inputs, once for each row; those of g and v follow from it")
    grad_w = torch.tensor(INPUT).expand(3, 3)
    length = lengths[0]
    grad_g = (grad_w * w).sum(dim=1, keepdim=True) / length
    show("  of g: <grad_w, v> / |v|", g.grad, grad_g)
    show("  of v: g/|v| (grad_w - grad_g v/|v|)", v.grad, length / length * (grad_w - grad_g * w / length))

    optimizer.step()
    print("after one step: the optimizer has moved g and v; the weight is worked out from them when it is asked for")
    g_new, v_new = length - 0.01 * grad_g, w - 0.01 * (grad_w - grad_g * w / length)
    show("  g", g, g_new)
    show("  v", v, v_new)
    w_new = g_new * v_new / v_new.norm(dim=1, keepdim=True)
    show("  weight = g v / |v|", linear.weight, w_new)
    wrong = g_new * v_new / v_new.norm()
    print(f"  g v / (one length for all of v) is off by {(wrong - w_new).abs().max():.4f}: that is per='tensor'")

    nk.remove_weight_norm(linear, optimizer)
    print("after removal: the weight stands alone again, as it was trained; not the one from before the wrap")
    show("  weight", linear.weight, w_new)
    assert [name for name, _ in linear.named_parameters()] == ["weight"]
    assert optimizer.param_groups[0]["params"] == [linear.weight]


if __name__ == "__main__":
    main()
