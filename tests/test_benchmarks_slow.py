"""Each script in benchmarks/ runs and prints its table; at the size used here its ratios mean nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text())
HEADER = r"^what +normkit +peer +against +ratio +target$"
ROW = r"^.* [\d.e+-]+x +[<>]= [\d.]+x +(ok|miss)$"


def assert_prints_a_table(output):
    assert re.search(HEADER, output, re.MULTILINE), f"no table in:\n{output}"
    assert re.search(ROW, output, re.MULTILINE), f"no row with a ratio, its target and ok or miss in:\n{output}"


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_script_runs_and_prints_its_table(script, tmp_path):
    offline = {**os.environ, "WANDB_MODE": "offline"}
    command = [sys.executable, str(BENCHMARKS / script), "--tiny"]
    done = subprocess.run(command, cwd=tmp_path, env=offline, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert_prints_a_table(done.stdout)


def test_scripts_are_those_that_make_bench_runs():
    recipe = (BENCHMARKS.parent / "Makefile").read_text()
    assert sorted(f"{name}.py" for name in re.search(r"for script in ([a-z ]+);", recipe).group(1).split()) == SCRIPTS


def test_the_assertion_asks_for_a_header_and_a_row():
    header = "what       normkit  peer  against  ratio  target"
    assert_prints_a_table(f"title\n{header}\none record  1 ms     2 ms  np.dot   0.5x   <= 1.2x   ok\n")
    with pytest.raises(AssertionError, match="no table"):
        assert_prints_a_table("title\n")
    with pytest.raises(AssertionError, match="no row with a ratio"):
        assert_prints_a_table(f"title\n{header}\nskipped: wandb is not installed\n")
