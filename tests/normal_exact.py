"""The float64 oracles of weight standardization, group by group, and of spectral normalization: plain iteration."""

from __future__ import annotations

import numpy as np

import normal


def standard(w, kept, gain=None, eps=0.0):
    """Each group by two passes of long doubles."""
    w = np.asarray(w, np.longdouble)
    out = np.zeros_like(w)
    for index in normal.groups(w.shape, kept):
        group = w[index]
        away = group - group.mean() if np.ptp(group) else group * 0
        spread = np.sqrt(np.mean(away * away) + eps)
        out[index] = away / spread if spread else 0
        if gain is not None:
            out[index] *= gain / np.sqrt(max(group.size, 1))
    return out.astype(np.float64)


def matrix(w, kept):
    """A row per index of the kept axes."""
    rows = [np.asarray(w, np.float64)[index].ravel() for index in normal.groups(w.shape, sorted(kept))]
    return np.array(rows).reshape(len(rows), -1)


def start(count):
    return (37 * np.arange(1.0, count + 1) % 101) / 101


def directions(w, kept, iterations, u=None):
    """u, v and sigma after plain power iteration."""
    m = matrix(w, kept)
    u = start(len(m)) if u is None else np.asarray(u, np.float64).ravel()
    for _ in range(iterations):
        u = m @ (m.T @ u)
        u = u / np.linalg.norm(u)
    back = m.T @ (u / np.linalg.norm(u))
    sigma = np.linalg.norm(back)
    return u / np.linalg.norm(u), back / sigma, sigma


def spectral(w, kept, iterations):
    w = np.asarray(w, np.float64)
    if not w.any():
        return w * 0
    top = np.abs(w).max()
    return w / top / directions(w / top, kept, iterations)[2]
