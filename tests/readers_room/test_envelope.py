"""The envelope against float64 NumPy over what was put: scales, windows, layouts, attempts, thinned runs."""

import numpy as np
import pytest

from normkit.readers import Recording
from normkit.readers.envelope import ROWS
from normkit.store.writer import Writer
from normkit.types import Param, Reading
from written import params

MB = 1 << 20
SUMS_ROW = {"l1": 1, "l2": 2, "linf": 3, "rms": 2, "mean": 0, "zeros": 4, "nonfinite": 5}


def values(step, width, quantities=("weight", "grad", "update")):
    """Sums that tell step and tensor; one tensor in five is NaN at a step."""
    rng = np.random.default_rng([step, width])
    out = {}
    for place, quantity in enumerate(quantities):
        matrix = rng.random((7 - (place == 0), width)) * 10 + 0.5
        matrix[:, rng.random(width) < 0.2] = np.nan
        out[quantity] = matrix
    return out


def put(writer, layout, steps, width, **more):
    for step in steps:
        writer.put(Reading(step, layout, 1.7e9 + step, values(step, width), **more))


def make(path, steps, width=4, **more):
    writer = Writer(path, {}, **more)
    put(writer, writer.layout(params(width)), steps, width)
    writer.close()
    assert writer.error is None
    return path


def assert_envelope(recording, *, norm="l2", quantity="weight", spans=20, start=None, stop=None):
    """Every span says what the recorded steps in it say, each step is in one span, and there are at most `spans`."""
    found = recording.envelope(norm, quantity, spans=spans, start=start, stop=stop)
    steps, matrix = recording.steps, recording.matrix(norm, quantity)
    inside = (steps >= (steps.min(initial=0) if start is None else start)) & (
        steps <= (steps.max(initial=0) if stop is None else stop)
    )
    assert len(found.first) == len(found.last) == len(found.records) <= spans
    assert found.records.sum() == inside.sum()
    assert (found.first[1:] > found.last[:-1]).all()
    for first, last, records, *planes in zip(*found, strict=True):
        here = matrix[(steps >= first) & (steps <= last)]
        assert len(here) == records
        known = [column[~np.isnan(column)] for column in here.T]
        for plane, of in zip(planes, (np.min, None, np.max), strict=True):
            if of is not None:
                np.testing.assert_allclose(plane, [of(one) if one.size else np.nan for one in known], rtol=4e-7)
    assert_ordered(found)
    return found


def assert_ordered(found):
    there = ~np.isnan(found.mean)
    np.testing.assert_array_equal(there, ~np.isnan(found.least))
    assert (found.least[there] <= found.mean[there]).all()
    assert (found.mean[there] <= found.most[there]).all()
    assert {plane.dtype for plane in found[3:]} == {np.dtype(np.float32)}


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    return make(tmp_path_factory.mktemp("long") / "a.norms", range(0, 3000, 3))


@pytest.mark.parametrize("spans", [1, 2, 3, 7, 16, 20, 50, 63, 64, 300, 999, 1000, 5000])
def test_at_every_scale(long, spans):
    found = assert_envelope(Recording(long), spans=spans)
    assert found.first[0] == 0
    assert found.last[-1] == 2997
    assert len(found.first) >= min(spans, 1000) / 16


@pytest.mark.parametrize("norm", ROWS)
@pytest.mark.parametrize("quantity", ["weight", "grad", "update"])
@pytest.mark.parametrize("spans", [1, 30, 1000])
def test_of_every_norm_and_quantity(long, norm, quantity, spans):
    assert_envelope(Recording(long), norm=norm, quantity=quantity, spans=spans)


def test_one_span_per_record_is_the_matrix(long):
    recording = Recording(long)
    found = recording.envelope("rms", "grad", spans=1000)
    for plane in found[3:]:
        np.testing.assert_allclose(plane, recording.matrix("rms", "grad"), rtol=1e-6)
    assert found.records.tolist() == [1] * 1000


@pytest.mark.parametrize(("spans", "many"), [(1, 1), (3, 3), (20, 20)])
def test_means_without_gaps_are_means_of_all_records(spans, many, tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(2))
    truth = []
    for step in range(700):
        matrix = np.random.default_rng(step).random((6, 2)) + 0.1
        truth.append(np.sqrt(matrix[2]))
        writer.put(Reading(step, layout, 0.0, {"weight": matrix}))
    writer.close()
    found = Recording(tmp_path / "a.norms").envelope(spans=spans)
    assert len(found.first) == many
    for first, last, mean in zip(found.first, found.last, found.mean, strict=True):
        np.testing.assert_allclose(mean, np.mean(truth[first : last + 1], axis=0), rtol=4e-7)


WINDOWS = [(0, 0), (3, 3), (0, 47), (1, 100), (750, None), (None, 751), (768, 2303), (2900, 10**30), (-(10**30), 5)]


@pytest.mark.parametrize(("start", "stop"), WINDOWS)
def test_windows_in_full_detail_are_exact(long, start, stop):
    assert_envelope(Recording(long), start=start, stop=stop, spans=1000)


@pytest.mark.parametrize(("start", "stop"), WINDOWS)
@pytest.mark.parametrize("spans", [1, 7])
def test_windows_hold_each_of_their_steps_once(long, start, stop, spans):
    """Blocks at their edges may stand out."""
    recording = Recording(long)
    found = recording.envelope(start=start, stop=stop, spans=spans)
    low, high = max(start or 0, 0), min(2997 if stop is None else stop, 2997)
    inside = recording.steps[(recording.steps >= low) & (recording.steps <= high)]
    assert len(found.first) <= spans
    assert found.first[0] <= inside[0]
    assert found.last[-1] >= inside[-1]
    assert (found.first[1:] > found.last[:-1]).all()
    assert found.records.sum() == ((found.last - found.first) // 3 + 1).sum()
    assert_ordered(found)


@pytest.mark.parametrize(("start", "stop"), [(3001, None), (None, -1), (100, 50)])
def test_windows_that_hold_nothing(long, start, stop):
    found = Recording(long).envelope(start=start, stop=stop)
    assert [len(part) for part in found[:3]] == [0, 0, 0]
    assert [part.shape for part in found[3:]] == [(0, 4)] * 3


@pytest.mark.parametrize("count", [0, 1, 2, 16, 17])
def test_of_few_records(count, tmp_path):
    path = make(tmp_path / "a.norms", range(count))
    for spans in (1, 5, 100):
        assert_envelope(Recording(path), spans=spans)


def test_of_a_run_in_course(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    put(writer, writer.layout(params(4)), range(200), 4)
    writer.flush()
    for spans in (1, 3, 50, 500):
        assert_envelope(Recording(tmp_path / "a.norms"), spans=spans)
    writer.close()


@pytest.mark.parametrize("back", [0, 1, 16, 150, 300])
def test_a_later_attempt_replaces_what_it_repeats(back, tmp_path):
    path = make(tmp_path / "a.norms", range(300))
    writer = Writer(path, {}, resume=True)
    layout = writer.layout(params(4))
    for step in range(300 - back, 400):
        writer.put(Reading(step, layout, 0.0, values(step + 10_000, 4)))
    writer.close()
    recording = Recording(path)
    assert recording.steps.tolist() == list(range(400))
    for spans in (1, 2, 10, 50, 1000):
        assert assert_envelope(recording, spans=spans).records.sum() == 400


@pytest.mark.parametrize("spans", [1, 3, 40, 1000])
def test_several_layouts(spans, tmp_path):
    """Tensors that come, go and change places; a column is NaN where its tensor was not there."""
    writer = Writer(tmp_path / "a.norms", {})
    a, b, c = params(3)
    for steps, named in ((range(100), (a, b)), (range(100, 250), (c, a)), (range(250, 260), (b, c, a))):
        put(writer, writer.layout(named), steps, len(named))
    writer.close()
    recording = Recording(tmp_path / "a.norms")
    assert recording.params == (a, b, c)
    found = assert_envelope(recording, spans=spans)
    if spans == 1000:
        assert np.isnan(found.mean[:100, 2]).all()
        assert np.isnan(found.mean[100:250, 1]).all()


@pytest.mark.parametrize("norm", ["rms", "mean", "l2"])
@pytest.mark.parametrize("spans", [2, 1000])
def test_a_tensor_that_changes_its_size(norm, spans, tmp_path):
    """Its norms are taken over the entries that it had then."""
    writer = Writer(tmp_path / "a.norms", {})
    for number, steps in enumerate((range(64), range(64, 128))):
        layout = writer.layout([Param("grows", (4 * (number + 1), 3), "float32", "kernel")])
        put(writer, layout, steps, 1)
    writer.close()
    assert_envelope(Recording(tmp_path / "a.norms"), norm=norm, spans=spans)


@pytest.mark.parametrize("norm", ROWS)
def test_a_tensor_without_entries(norm, tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout([Param("empty", (0,), "float32", "kernel")])
    for step in range(40):
        writer.put(Reading(step, layout, 0.0, {"weight": np.zeros((6, 1))}))
    writer.close()
    for spans in (1, 100):
        found = Recording(tmp_path / "a.norms").envelope(norm, spans=spans)
        assert np.isnan(found.mean).all() if norm in ("rms", "mean") else (found.mean == 0).all()


def test_numbers_that_float32_has_no_room_for(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(1))
    for step in range(40):
        writer.put(Reading(step, layout, 0.0, {"weight": np.full((6, 1), 1e200 if step % 2 else 1.0)}))
    writer.close()
    for spans in (1, 100):
        found = Recording(tmp_path / "a.norms").envelope("l1", spans=spans)
        assert found.least.min() == 1.0
        assert found.most.max() == np.inf


def test_columns_of_groups_stay_out_of_it(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    a, b = params(2)
    put(writer, writer.layout((a, b), [(a, "out", 4)]), range(50), 6)
    writer.close()
    recording = Recording(tmp_path / "a.norms")
    for spans in (2, 100):
        assert assert_envelope(recording, spans=spans).mean.shape[1] == 2


# a run that outgrew its budget


@pytest.fixture(scope="module")
def thinned(tmp_path_factory):
    path = make(tmp_path_factory.mktemp("thinned") / "a.norms", range(3000), 12, budget=MB)
    assert Recording(path).meta["thinned"]
    return path


@pytest.fixture(scope="module")
def thinned_recording(thinned):
    return Recording(thinned)


@pytest.mark.parametrize("spans", [*range(1, 51), 100, 200, 500, 1000, 3000, 10_000])
def test_a_thinned_run_is_seen_whole(thinned_recording, spans):
    """No step is missing, and none is counted twice."""
    found = thinned_recording.envelope(spans=spans)
    assert found.records.sum() == 3000
    assert found.first[0] == 0
    assert found.last[-1] == 2999
    np.testing.assert_array_equal(found.first[1:], found.last[:-1] + 1)
    np.testing.assert_array_equal(found.records, found.last - found.first + 1)
    assert len(found.first) <= spans
    assert_ordered(found)


@pytest.mark.parametrize("spans", [1, 10, 50, 3000])
def test_the_extremes_of_a_thinned_run_are_those_of_all_its_steps(thinned, spans):
    truth = np.sqrt(np.array([values(step, 12)["weight"][2] for step in range(3000)]))
    found = Recording(thinned).envelope(spans=spans)
    for first, last, least, most in zip(found.first, found.last, found.least, found.most, strict=True):
        here = truth[first : last + 1]
        known = ~np.isnan(here).all(axis=0)
        np.testing.assert_allclose(least[known], np.nanmin(here[:, known], axis=0), rtol=4e-7)
        np.testing.assert_allclose(most[known], np.nanmax(here[:, known], axis=0), rtol=4e-7)


@pytest.mark.parametrize(("start", "stop"), [(0, 2047), (2048, 2303), (2900, 2999), (256, None)])
@pytest.mark.parametrize("spans", [1, 8, 50])
def test_windows_of_a_thinned_run(thinned, start, stop, spans):
    found = Recording(thinned).envelope(spans=spans, start=start, stop=stop)
    last = 2999 if stop is None else stop
    assert found.first[0] <= start
    assert found.last[-1] >= last
    np.testing.assert_array_equal(found.first[1:], found.last[:-1] + 1)
    np.testing.assert_array_equal(found.records, found.last - found.first + 1)


def test_a_thinned_run_in_three_attempts(tmp_path):
    """Of a block of 16 records that a resume fell into, the earlier ones may be thinned."""
    path = tmp_path / "a.norms"
    for attempt in range(3):
        writer = Writer(path, {}, resume=attempt > 0, budget=MB)
        put(writer, writer.layout(params(12)), range(600 * attempt, 600 * attempt + 700), 12)
        writer.close()
    recording = Recording(path)
    for spans in (1, 5, 17, 50, 1000, 5000):
        found = recording.envelope(spans=spans)
        assert 1900 - 2 * 15 <= found.records.sum() <= 1900
        assert found.first[0] == 0
        assert found.last[-1] == 1899
        assert (found.first[1:] > found.last[:-1]).all()
