"""NumPy does the work on JAX arrays that lie in memory, and on no others."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

from normkit.ops.jax_host import on_host, outright


def seen(log):
    def function(x):
        log.append(type(x).__module__.partition(".")[0])
        return x + 1

    return function


def test_arrays_in_memory_go_through_numpy_and_come_back_where_they_were():
    log, x = [], jax.device_put(np.ones(3, np.float32), jax.devices()[0])
    found = outright(seen(log), x)
    assert log == ["numpy"]
    assert isinstance(found, jax.Array)
    assert found.committed == x.committed
    assert found.tolist() == [2.0, 2.0, 2.0]


def test_numpy_arrays_stay_numpys():
    assert type(outright(seen([]), np.ones(3))) is np.ndarray


def test_traced_arrays_stay_in_the_trace():
    log = []
    assert jax.jit(lambda x: outright(seen(log), x))(np.ones(2, np.float32)).tolist() == [2.0, 2.0]
    assert log == ["jax"]


def test_a_deleted_array_is_not_read():
    x = jax.numpy.ones(2)
    x.delete()
    assert not on_host(x)
    assert on_host(np.ones(2), jax.numpy.ones(2))
