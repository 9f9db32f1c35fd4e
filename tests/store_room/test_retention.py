"""A budget: the file stays within it, its newer half whole, its past ever coarser and never lost."""

import os

import numpy as np
import pytest

from normkit.readers import Recording
from normkit.store.retention import LEAST
from normkit.store.writer import Writer
from normkit.types import Param, Reading
from written import params, rows

MB = 1 << 20


def values(step, width):
    """Three quantities; the l2 of tensor n at a step is step + n + 1."""
    matrix = np.ones((7, width))
    matrix[2] = (step + np.arange(width) + 1.0) ** 2
    return {"weight": matrix[:6], "grad": matrix, "update": matrix}


def size(path):
    return sum(os.path.getsize(name) for name in (path, f"{path}-wal") if os.path.exists(name))


def run(path, budget, megabytes, width, *, groups=0, attempts=1, most=None):
    """A run of some megabytes of records, looked at on its way; returns its steps and the greatest size seen."""
    columns = width + groups
    steps = min(int(megabytes * MB / (20 * 8 * columns)), most or 1 << 30)
    seen = 0
    for attempt in range(attempts):
        writer = Writer(path, {"framework": "made up"}, resume=attempt > 0, budget=budget)
        named = params(width) if not groups else (*params(width - 1), Param("head", (groups, 2), "float32", "kernel"))
        layout = writer.layout(named, [(named[-1], "out", groups)] if groups else ())
        for step in range(steps * attempt // attempts, steps * (attempt + 1) // attempts):
            writer.put(Reading(step, layout, 1.7e9 + step, values(step, columns)))
            if step % max(steps // 60, 1) == 0:
                writer.flush()
                seen = max(seen, size(path))
        writer.close()
        assert writer.error is None
        assert writer.dropped == 0
        seen = max(seen, size(path))
    return steps, seen


@pytest.mark.parametrize(
    ("budget", "width", "groups"),
    [(1, 1, 0), (1, 10, 0), (1, 100, 0), (1, 4, 60), (2, 20, 0), (2, 250, 0), (2, 3, 200), (8, 200, 0), (8, 1000, 0)],
)
def test_the_file_stays_within_its_budget(budget, width, groups, tmp_path):
    path = tmp_path / "a.norms"
    steps, seen = run(path, budget * MB, 4 * budget, width, groups=groups, most=6000)
    assert budget * MB / 4 < seen <= budget * MB
    seqs = [seq for (seq,) in rows(path, "SELECT seq FROM record ORDER BY seq")]
    assert len(seqs) < steps
    assert seqs == [seq for (seq,) in rows(path, "SELECT seq FROM sums ORDER BY seq")]
    assert_thinned(path, seqs, {0})


def assert_thinned(path, seqs, firsts):
    """The first of each attempt, then one in each power of two, then all of the newer half."""
    kept = Recording(path).meta["thinned"]
    stride = kept["stride"]
    assert stride > 1
    assert stride & (stride - 1) == 0
    assert firsts <= set(seqs)
    gaps = np.diff([seq for seq in seqs if seq % stride == 0 or seq not in firsts])
    whole = len(gaps) - int(np.argmax(gaps[::-1] > 1)) if (gaps > 1).any() else 0
    assert (gaps[whole:] == 1).all()
    assert len(seqs) - whole >= len(seqs) // 2, "the newer half is whole"
    old = [seq for seq in seqs[:whole] if seq not in firsts]
    assert all(seq % 2 == 0 for seq in old)
    assert (np.diff(gaps[:whole]) <= 0).all(), "the older, the sparser"


def test_what_is_within_its_budget_is_left_alone(tmp_path):
    path = tmp_path / "a.norms"
    steps, _ = run(path, 4 * MB, 2, 50)
    assert rows(path, "SELECT count(*) FROM record") == [(steps,)]
    assert "thinned" not in Recording(path).meta
    assert Recording(path).meta["budget"] == 4 * MB


def test_without_a_budget_nothing_goes(tmp_path):
    path = tmp_path / "a.norms"
    steps, seen = run(path, None, 6, 200)
    assert rows(path, "SELECT count(*) FROM record") == [(steps,)]
    assert seen > 6 * MB
    assert Recording(path).meta["budget"] is None


def test_the_first_record_of_each_attempt_stays(tmp_path):
    path = tmp_path / "a.norms"
    steps, seen = run(path, MB, 6, 30, attempts=4)
    assert seen <= MB
    firsts = {steps * attempt // 4 for attempt in range(4)}
    recording = Recording(path)
    assert firsts <= set(recording.steps.tolist())
    assert rows(path, "SELECT count(DISTINCT attempt) FROM record") == [(4,)]
    assert_thinned(path, [seq for (seq,) in rows(path, "SELECT seq FROM record ORDER BY seq")], firsts)


def test_strides_only_grow_when_a_thinned_run_is_resumed(tmp_path):
    path, strides = tmp_path / "a.norms", []
    for attempt in range(3):
        writer = Writer(path, {}, resume=attempt > 0, budget=MB)
        layout = writer.layout(params(40))
        for step in range(400 * attempt, 400 * attempt + 400):
            writer.put(Reading(step, layout, 1.7e9, values(step, 40)))
        writer.close()
        strides.append(Recording(path).meta["thinned"]["stride"])
    assert strides == sorted(strides)
    assert strides[-1] > 2
    assert size(path) <= MB


def test_some_records_are_kept_whatever_the_budget(tmp_path):
    path = tmp_path / "a.norms"
    writer = Writer(path, {}, budget=MB)
    layout = writer.layout(params(2000))
    for step in range(80):
        writer.put(Reading(step, layout, 1.7e9, values(step, 2000)))
    writer.close()
    assert writer.error is None
    steps = Recording(path).steps
    assert len(steps) >= LEAST // 2
    assert steps[0] == 0
    assert steps[-1] == 79


@pytest.mark.parametrize(("budget", "megabytes", "width"), [(1, 5, 10), (1, 8, 40), (2, 10, 120)])
def test_every_step_stays_in_the_pyramid(budget, megabytes, width, tmp_path):
    path = tmp_path / "a.norms"
    steps, _ = run(path, budget * MB, megabytes, width, most=4000)
    spans = rows(path, "SELECT first, last, records FROM pyramid")
    assert all(last - first + 1 == records for first, last, records in spans)
    covered = np.zeros(steps, bool)
    for first, last, _ in spans:
        covered[first : last + 1] = True
    assert covered.all()


def test_no_coarse_block_loses_a_part_of_what_it_was_made_of(tmp_path):
    """All of its finer blocks are there, or none: else nobody could look closer without a gap."""
    path = tmp_path / "a.norms"
    run(path, MB, 8, 10, most=6000)
    blocks = rows(path, "SELECT level, first, last, records FROM pyramid")
    gone = 0
    for level, first, last, records in blocks:
        finer = sum(n for lev, a, b, n in blocks if lev == level - 1 and a >= first and b <= last)
        assert level == 1 or finer in (0, records)
        gone += level > 1 and finer == 0
    assert gone
