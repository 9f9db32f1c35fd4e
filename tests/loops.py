"""A small model, its batches and steps, for tests of recording in torch."""

import numpy as np
import torch


def net(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).to(dtype)


def batch(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 6, generator=generator).to(dtype), torch.randn(4, 3, generator=generator).to(dtype)


def one_step(model, optimizer, seed, *, zero=True):
    x, y = batch(seed, next(model.parameters()).dtype)
    if zero:
        optimizer.zero_grad()
    loss = ((model(x) - y) ** 2).mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def as64(tensor):
    return tensor.detach().to(torch.float64).numpy().copy()


def assert_close(given, expected, rel=1e-12):
    assert np.shape(given) == np.shape(expected)
    np.testing.assert_allclose(given, expected, rtol=rel, atol=0)
