"""Weight decay on a 4x5 matrix, number by number, and on the parameters of a ResNet-50.

    python examples/decay_by_hand.py

The loss is the sum of `x @ w`, the rate 0.1, the numbers those of NumPy's generator seeded with 123. One step of SGD
without decay, one with `weight_decay=1`, and one of the formula `w - lr dw - weight_decay w`, which is another thing.
"""

import numpy as np
import torch
from torch import nn

import normkit.torch as nk

LR = 0.1


def numbers():
    np.random.seed(123)
    return np.random.random((3, 4)), np.random.random((4, 5))


def one_step(decay, value, kind="l2"):
    """The weight after a step, with the optimizer's own decay (`decay="own"`) or ours."""
    x, start = map(torch.tensor, numbers())
    w = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([w], lr=LR, weight_decay=value if decay == "own" else 0)
    if decay == "ours":
        nk.decay(optimizer, value, kind=kind)
    (x @ w).sum().backward()
    optimizer.step()
    return w.detach().numpy()


def show(title, w):
    print(title)
    for row in w:
        print("   ", " ".join(f"{number:8.4f}" for number in row))


class Bottleneck(nn.Module):
    """A block of a ResNet-50, with the names that such blocks usually have."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet50(nn.Module):
    """The layers of a ResNet-50 under their usual names, narrow: `width=64` is the usual size."""

    def __init__(self, width=4, classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage, count in enumerate((3, 4, 6, 3)):
            blocks = []
            for block in range(count):
                blocks.append(Bottleneck(inputs, width * 2**stage, 2 if stage and not block else 1))
                inputs = 4 * width * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


def main():
    x, start = numbers()
    without, own = one_step("own", 0), one_step("own", 1)
    show("at the start", start)
    show("after one step, weight decay 0", without)
    show("after one step, weight decay 1", own)

    dw = x.sum(axis=0)[:, None]
    assert np.allclose(own, start - LR * (dw + 1 * start))
    assert np.array_equal(one_step("ours", 1), own)
    print("SGD computes   w - lr (dw + weight_decay w):  decay is times lr, so it takes 10 % of w here")

    formula = one_step("ours", 1, kind="independent")
    assert np.allclose(formula, start - LR * dw - 1 * start)
    show("w - lr dw - weight_decay w, as the notebook writes it: it takes all of w", formula)
    assert np.allclose(one_step("ours", LR, kind="independent"), own)
    print("The two agree where the formula's weight_decay is lr times SGD's: 0.1 there is 1 here.")

    longer = np.abs(own) > np.abs(without)
    lengths = [np.linalg.norm(each) for each in (start, without, own)]
    print("lengths: start {:.4f}, decay 0 {:.4f}, decay 1 {:.4f}".format(*lengths))
    print(f"{longer.sum()} of {own.size} entries are larger in size with decay than without it:", own[longer].round(4))
    print("Decay pulls by the weight before the step; where the step crosses 0, the pull goes on in its direction.")

    model = ResNet50()
    groups = nk.decay_groups(model, 1e-4)
    decayed = sum(len(group["params"]) for group in groups if group.get("weight_decay"))
    print(f"a ResNet-50 has {len(list(model.parameters()))} parameters; {decayed} of them are kernels, which decay")
    print(groups.explain())


if __name__ == "__main__":
    main()
