"""The model that the benchmarks train and record: a GPT of 99 tensors."""

from __future__ import annotations

import math

import torch
from torch import nn


class Block(nn.Module):
    """Attention, then two layers, each on the normed residual stream: 12 tensors."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._attention(self.ln_1(x))
        hidden: torch.Tensor = self.down(nn.functional.gelu(self.up(self.ln_2(x))))
        return x + hidden

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        attended: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return attended


class GPT(nn.Module):
    """Tokens [batch][length] -> the mean cross-entropy of each next token. The embedding is the output layer, too.

    As given: 8 blocks x 12 tensors, the embedding and the last norm's two = 99 tensors, 20.5 M parameters.
    """

    def __init__(self, blocks: int = 8, width: int = 384, heads: int = 6, vocabulary: int = 16384) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.ln = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + waves(tokens.shape[1], self.tokens.embedding_dim)
        for block in self.blocks:
            x = block(x)
        logits = self.ln(x) @ self.tokens.weight.T
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def waves(length: int, width: int) -> torch.Tensor:
    """Positions as sines and cosines (Vaswani et al. 2017): no parameter."""
    turns = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.cat([turns.sin(), turns.cos()], dim=1)


def small_gpt() -> GPT:
    """The same in a size that trains in no time."""
    return GPT(blocks=2, width=32, heads=2, vocabulary=128)
