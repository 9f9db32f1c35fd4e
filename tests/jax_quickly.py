"""A fixture for files of tests that compile much and run it once: XLA leaves out what makes programs fast."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def quickly():
    """For the tests of the file that imports it; half of the time of a compilation."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
