"""How deep below the head each parameter of a model lies, by the numbers in its name."""

from __future__ import annotations

from collections.abc import Sequence

INSIDE = ("blocks", "layers")  # numbered things inside a numbered stage: stages.0.layers.1


def depths(names: Sequence[str]) -> dict[str, int]:
    """0 for what stands after the last numbered block, or is it; one more for each block before; most for the stem.

    Names in the model's order; what stands between two blocks goes with the first of them.

    >>> depths(["embed.weight", "layers.0.fc.weight", "layers.1.fc.weight", "ln.weight", "head.weight"])
    {'embed.weight': 3, 'layers.0.fc.weight': 2, 'layers.1.fc.weight': 1, 'ln.weight': 0, 'head.weight': 0}
    """
    blocks = [block_of(name) for name in names]
    last = max((i for i, block in enumerate(blocks) if block), default=-1)
    order: dict[str, int] = {}
    station, stations = "", []
    for i, block in enumerate(blocks):
        station = block or ("after" if i > last else station)
        order.setdefault(station, len(order))
        stations.append(station)
    return {name: len(order) - 1 - order[station] for name, station in zip(names, stations, strict=True)}


def block_of(name: str) -> str:
    """The numbered block that a parameter belongs to, "" for none.

    >>> block_of("encoder.layer.3.mlp.0.weight"), block_of("stages.0.layers.1.conv.weight"), block_of("head.weight")
    ('encoder.layer.3', 'stages.0.layers.1', '')
    """
    segments = name.split(".")[:-1]
    end = next((i for i, segment in enumerate(segments) if segment.isdigit()), None)
    if end is None:
        return ""
    if len(segments) > end + 2 and segments[end + 1] in INSIDE and segments[end + 2].isdigit():
        end += 2
    return ".".join(segments[: end + 1])
