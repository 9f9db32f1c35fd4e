"""L2 and L1 penalties written by hand, line by line: what each line computes, and which of them are `weight_decay`.

    python examples/penalty_by_hand.py

Every claim that is printed is checked first; where one does not hold, the script stops.
"""

import torch
from torch import nn

import normkit.torch as nk


def model_and_data():
    torch.manual_seed(1)
    x, y = torch.randn(10, 5), torch.randn(10, 1)
    return nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 1)), x, y


def gradient(value, w):
    return torch.autograd.grad(value, w, retain_graph=True)[0]


def say(what, number=""):
    print(f"  {what:78}{number}")


def the_loop():
    """`None` first or 0 first, the missing square, the half, the biases."""
    print("the loop")
    model, *_ = model_and_data()
    from_none, from_zero = None, 0
    for w in model.parameters():
        from_none = w.norm(2) if from_none is None else from_none + w.norm(2)
        from_zero = from_zero + w.norm(2)
    assert from_none.requires_grad
    assert from_zero.requires_grad
    assert torch.equal(from_none, from_zero)
    say("a sum that begins with 0 is recorded as one that begins with None")

    w = model[0].weight
    unsquared, squared, half = w.norm(2), w.norm(2) ** 2, 0.5 * (w**2).sum()
    say("gradient of norm(2): w / |w|, so its length is 1 however large w is:", f"{gradient(unsquared, w).norm():.4f}")
    assert torch.allclose(gradient(squared, w), 2 * w)
    assert torch.equal(gradient(half, w), w)
    say("gradient of norm(2)**2: 2 w;   of 0.5 * (w**2).sum(): w, which is what weight_decay adds")

    every, kernels = nk.penalty(model, l2=1.0, select=["kernel", "bias"]), nk.penalty(model, l2=1.0)
    say("1/2 sum w^2 with the biases, and without:", f"{every():.4f}  {kernels():.4f}")
    by_hand = sum(0.5 * (w**2).sum() for w in model.parameters())
    assert torch.allclose(every(), by_hand)


def as_weight_decay():
    """One hundred steps with the term in the loss, and with the optimizer's own."""
    print("the term in the loss beside SGD(weight_decay=)")
    results = []
    for own in (0.9, 0.0):
        model, x, y = model_and_data()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, weight_decay=own)
        penalty = nk.penalty(model, l2=0.9, select=["kernel", "bias"])
        for _ in range(100):
            loss = nn.functional.mse_loss(model(x), y)
            loss = loss if own else loss + penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        results.append(torch.cat([w.detach().flatten() for w in model.parameters()]))
    apart = (results[0] - results[1]).abs().max()
    assert apart < 1e-6
    say("largest difference of a weight after 100 steps:", f"{apart:.1e}")


def at_zero():
    """A tensor of zeros: first and second derivatives."""
    print("a weight that is zero")
    w = torch.zeros(3, requires_grad=True)
    assert torch.equal(gradient(w.norm(2), w), torch.zeros(3))
    assert gradient((w**2).sum().sqrt(), w).isnan().all()
    say("gradient of norm(2) at 0 is 0 today; of (w**2).sum().sqrt() it is", gradient((w**2).sum().sqrt(), w).tolist())
    for name, value in (("norm(2)**2", w.norm(2) ** 2), ("nk.penalty(w, l2=1)", nk.penalty(w, l2=1.0)())):
        (first,) = torch.autograd.grad(value, w, create_graph=True)
        second = gradient(first.sum(), w) if first.requires_grad else None
        say(f"gradient and second derivative of {name}:", f"{first.tolist()} {second.tolist()}")
    (first,) = torch.autograd.grad(nk.penalty(w, group=1.0, per="tensor")(), w, create_graph=True)
    assert torch.equal(first, torch.zeros(3))
    assert gradient(first.sum(), w).isfinite().all()


def a_second_backward():
    """A graph that is made once and used twice."""
    print("backward, twice")
    model, x, y = model_and_data()
    by_hand = sum((w**2).sum() for w in model.parameters())  # outside of the loop: one graph
    penalty = nk.penalty(model, l2=2.0)
    (nn.functional.mse_loss(model(x), y) + by_hand).backward()
    try:
        (nn.functional.mse_loss(model(x), y) + by_hand).backward()
    except RuntimeError as error:
        say("a sum made outside of the loop:", str(error)[:46] + " ...")
    for _ in range(2):
        (nn.functional.mse_loss(model(x), y) + penalty()).backward()
    say("penalty() makes a graph at each call: no retain_graph is needed")
    try:
        nn.functional.mse_loss(model(x), y) + penalty
    except (TypeError, ValueError) as error:
        say(f"without the call: {error}")


def to_infinity():
    """A coefficient too large for the rate."""
    print("values that run to infinity")
    w = torch.tensor([1.0], requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    penalty, seen = nk.penalty(w, l2=30.0), []
    for _ in range(4):
        optimizer.zero_grad()
        value = penalty()
        value.backward()
        optimizer.step()
        seen.append(round(value.item(), 1))
    say("lr * lambda = 3: every step multiplies w by 1 - 3 = -2, the term by 4:", seen)
    try:
        nk.decay(optimizer, 30.0, select="all")
    except ValueError as error:
        say(f"nk.decay refuses it: {error}")


def the_coefficient():
    """`reg_lambda` as our lambda, and what the loss is divided by."""
    print("what reg_lambda is")
    w = torch.tensor([3.0, -4.0], requires_grad=True)
    reg = 0.25
    for text, value, ours in (
        ("reg * W.norm(2)**2        is nk.penalty(l2=2 * reg)", reg * w.norm(2) ** 2, nk.penalty(w, l2=2 * reg)),
        ("reg * 0.5 * (W**2).sum()  is nk.penalty(l2=reg)", reg * 0.5 * (w**2).sum(), nk.penalty(w, l2=reg)),
        ("reg * W.abs().sum()       is nk.penalty(l1=reg)", reg * w.abs().sum(), nk.penalty(w, l1=reg)),
        (
            "reg * W.norm(2)           is nk.penalty(group=reg / sqrt(n), per='tensor')",
            reg * w.norm(2),
            nk.penalty(w, group=reg / 2**0.5, per="tensor"),
        ),
    ):
        assert torch.allclose(value, ours()), text
        assert torch.allclose(gradient(value, w), gradient(ours(), w)), text
        say(text)

    predicted, wanted = torch.randn(10, 4), torch.randn(10, 4)
    mean, by_hand = nn.functional.mse_loss(predicted, wanted), (predicted - wanted).pow(2).sum() / 10
    assert torch.allclose(4 * mean, by_hand)
    say("(1/N) sum over 4 outputs is 4 times MSELoss: the same lambda weighs 4 times as much with MSELoss")


def not_a_normalization():
    """`conv.weight += lambda * conv.weight**2`."""
    print("conv.weight += lamda * (conv.weight**2)")
    conv = nn.Conv2d(1, 2, 2)
    try:
        conv.weight += 0.1 * conv.weight**2
    except RuntimeError as error:
        say("as it stands:", str(error)[:46] + " ...")
    with torch.no_grad():
        before = conv.weight.clone()
        conv.weight += 0.1 * conv.weight**2
        assert (conv.weight >= before).all()
    say("with no_grad: every entry moves up, the negative ones toward 0, the positive ones away")
    nk.weight_norm(conv)
    say("weight normalization of it:", "nk.weight_norm(conv)")


def main():
    for part in (the_loop, as_weight_decay, at_zero, a_second_backward, to_infinity, the_coefficient):
        part()
    not_a_normalization()


if __name__ == "__main__":
    main()
