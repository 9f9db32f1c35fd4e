"""The language of `select` on a real network: ResNet-50 under torchvision's names."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from normkit.select import select
from normkit.torch.walk import walk


class Bottleneck(nn.Module):
    def __init__(self, planes_in, planes, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(planes_in, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
        if planes_in != 4 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(planes_in, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
            )


class ResNet50(nn.Module):
    """torchvision's ResNet-50 in names and number of layers; narrow, and without its forward."""

    def __init__(self, width=2):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, bias=False), nn.BatchNorm2d(width)
        planes_in = width
        for number, blocks in enumerate((3, 4, 6, 3)):
            planes = width * 2**number
            layers = [Bottleneck(planes_in if i == 0 else 4 * planes, planes, 1 + (i == 0)) for i in range(blocks)]
            self.add_module(f"layer{number + 1}", nn.Sequential(*layers))
            planes_in = 4 * planes
        self.fc = nn.Linear(planes_in, 10)


def test_select_on_a_resnet():
    places = walk(ResNet50())
    params = [place.param for place in places]
    roles = {p.name: p.role for p in params}
    assert roles["layer1.0.downsample.1.weight"] == "scale"
    assert roles["layer1.0.downsample.0.weight"] == "kernel"
    assert sum(role == "kernel" for role in roles.values()) == 54
    assert sum(role == "scale" for role in roles.values()) == 53
    assert len([p for p in params if p.trainable]) == 161

    convolutions = [p.name for p in select(params, "conv*", default="kernel").chosen]
    assert "layer1.0.conv1.weight" in convolutions
    assert len(convolutions) == 49
    assert len(select(params, nn.Conv2d, default="kernel").chosen) == 53
    assert [p.name for p in select(params, ["bias", "fc.*"], default="kernel").chosen] == ["fc.bias"]
    assert [p.name for p in select(params, ["kernel", "layer4.2.*"], default="bias").chosen] == [
        f"layer4.2.conv{i}.weight" for i in (1, 2, 3)
    ]
    assert len(select(params, None, default="trainable").chosen) == 161
    assert str(select(params, "conv*", default="kernel").explain()).count("\n") < 120
