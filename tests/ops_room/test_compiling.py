"""Kernels are compiled once per machine, and the user is told only when it really happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import normkit

SAID = "normkit: compiling its kernels (once per machine) ...\n"
ASK = "import numpy as np; from normkit.sums import stats_of; print(stats_of(np.ones(5)).sum)"


def run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_second_process_compiles_nothing(tmp_path):
    script = ASK + "; stats_of(np.ones(5, np.float32))"
    first = run(script, NUMBA_CACHE_DIR=str(tmp_path))
    assert (first.stdout, first.stderr) == ("5.0\n", SAID)  # said once for two kernels
    second = run(script, NUMBA_CACHE_DIR=str(tmp_path))
    assert (second.stdout, second.stderr) == ("5.0\n", "")


def test_a_package_that_cannot_be_written_uses_the_users_cache(tmp_path):
    package = tmp_path / "site" / "normkit"
    shutil.copytree(Path(normkit.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "ops" / "__pycache__").write_text("a file stands where the folder would be")
    environment = {"PYTHONPATH": str(package.parent), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    script = ASK + "; import normkit; print(normkit.__file__)"
    first = run(script, **environment)
    assert str(package) in first.stdout
    assert first.stderr == SAID
    assert list((tmp_path / "cache").rglob("*.nbc"))
    assert run(script, **environment).stderr == ""


def test_without_any_cache_each_process_compiles():
    script = "from numba.core import caching; caching.CacheImpl._locator_classes = []; " + ASK
    for _ in range(2):
        done = run(script)
        assert (done.stdout, done.stderr) == ("5.0\n", SAID)


def test_a_full_disk_does_not_matter():
    script = f"""
        from numba.core import caching
        def full(self, *args):
            raise OSError(28, "No space left on device")
        caching.IndexDataCacheFile.save = full
        caching.IndexDataCacheFile.load = lambda self, *args: None
        {ASK}
    """
    assert run(script).stdout == "5.0\n"


def test_numba_is_not_imported_before_a_kernel_is_needed():
    run("import sys, normkit.norms, normkit.ops.numpy; assert 'numba' not in sys.modules")


def test_float16_is_read_rightly_where_the_processor_cannot_convert_it(tmp_path):
    script = """
        import numpy as np
        from normkit.ops import cpu, kernels
        kernels._converts_float16 = lambda: False
        bits = np.arange(2**16, dtype=np.uint16)
        places = bits.ctypes.data + 2 * np.arange(2**16)
        found = cpu.sums(cpu.Table(places, np.ones(2**16), np.full(2**16, cpu.KINDS["float16"])))
        np.seterr(invalid="ignore")
        np.testing.assert_array_equal(found[0], bits.view(np.float16).astype(np.float64))
        print("right")
    """
    assert run(script, NUMBA_CACHE_DIR=str(tmp_path)).stdout == "right\n"


def test_quietly_says_nothing(tmp_path):
    script = f"""
        from normkit.ops.announce import quietly
        with quietly():
            {ASK}
        stats_of(np.ones(5, np.float32))
    """
    done = run(script, NUMBA_CACHE_DIR=str(tmp_path))
    assert (done.stdout, done.stderr) == ("5.0\n", SAID)  # of the second kernel
    quiet = "from normkit.ops.announce import quietly; hushed = quietly(); hushed.__enter__(); "
    assert run(quiet + ASK, NUMBA_CACHE_DIR=str(tmp_path / "other")).stderr == ""
