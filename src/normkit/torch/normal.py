"""The parametrization itself: `layer.parametrizations.<name>[0]`, whose parts are original0 (g) and original1 (v)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from normkit.errors import ArgumentError
from normkit.torch.fused import lengths, weight


class WeightNorm(nn.Module):
    """w = g v / |v|_p, one length for each index of the axes in `kept`.

    `blocks` is more than 1 for a grouped transposed convolution with one group per output channel: its v of shape
    [in, out/blocks, ...] is read as [blocks, in/blocks, out/blocks, ...], and g has shape [blocks, out/blocks, 1, ...].
    `order` holds the names of the layer's parameters as they stood, so that removing can put the weight back there.
    """

    def __init__(
        self, kept: tuple[int, ...], p: float = 2, *, blocks: int = 1, per: object = None, order: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.kept, self.p, self.blocks = kept, p, blocks
        self.per, self.order = per, order

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        if self.blocks == 1:
            return weight(g, v, self.kept, self.p)
        self._refuse_shape(g, v)
        return weight(g.unsqueeze(1), self._in_blocks(v), (0, 2), self.p).reshape(v.shape)

    def length(self, v: Tensor) -> Tensor:
        """What g is where w is v."""
        if self.blocks == 1:
            return lengths(v, self.kept, self.p)
        return lengths(self._in_blocks(v), (0, 2), self.p).squeeze(1)

    def right_inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        return self.length(w), w

    def extra_repr(self) -> str:
        p = "" if self.p == 2 else f", p={'math.inf' if self.p == math.inf else self.p}"
        return f"per={self.per!r}{p}"

    def _in_blocks(self, v: Tensor) -> Tensor:
        return v.reshape(self.blocks, v.shape[0] // self.blocks, *v.shape[1:])

    def _refuse_shape(self, g: Tensor, v: Tensor) -> None:
        expected = (self.blocks, v.shape[1], *[1] * (v.ndim - 2))
        if tuple(g.shape) != expected:
            raise ArgumentError(f"g has shape {tuple(g.shape)} beside v of shape {tuple(v.shape)}; expected {expected}")
