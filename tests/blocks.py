"""Records whose numbers follow from their seq, and what the blocks of a pyramid must say of them."""

import itertools

import numpy as np

from normkit.store import jobs
from normkit.store.pyramid import RADIX, Pyramid
from normkit.types import SUMS, Reading

SQ = SUMS.index("sq")


def made(seq, width, *, lines=7, update=True, scalars=None, layout=0, attempt=0):
    """A record whose numbers follow from its seq; one value in eight is NaN."""
    rng = np.random.default_rng([seq, width])

    def matrix(count):
        values = np.abs(rng.normal(size=(count, width))) + 0.01
        values[:, rng.random(width) < 0.125] = np.nan
        return values

    values = {"weight": matrix(6), "grad": matrix(lines)} | ({"update": matrix(7)} if update else {})
    return Reading(seq * 3, layout, 1.7e9, values, attempt=attempt, scalars=scalars or {})


def row(seq, width=3, **more):
    one = made(seq, width, **more)
    return jobs.row(seq, one, width, attempt=0, now=0.0)


def taken(records, pyramid=None):
    """All blocks of the records, closed."""
    pyramid = pyramid or Pyramid()
    return [block for one in records for block in pyramid.take(one)] + pyramid.close()


def numbers(one, place):
    """The sums of one quantity of a packed record, [7][width], as the pyramid keeps them; None where there are none."""
    if one.blobs[place] is None:
        return None
    flat = np.frombuffer(one.blobs[place], "<f8").reshape(-1, max(one.width, 1))
    full = np.full((len(SUMS), one.width), np.nan)
    full[: len(flat)] = flat
    full[SQ] = np.sqrt(full[SQ])
    return full


def expected(records, place):
    """[sum][min, mean, max][tensor] of records in float64, NaN left out; None where there are none."""
    there = [found for one in records if (found := numbers(one, place)) is not None]
    if not there or not records[0].width:
        return None
    values, out = np.array(there), np.full((len(SUMS), 3, records[0].width), np.nan)
    for line, column in itertools.product(range(len(SUMS)), range(records[0].width)):
        known = values[:, line, column][~np.isnan(values[:, line, column])]
        if known.size:
            out[line, :, column] = known.min(), known.mean(), known.max()
    return out[: max(len(one.blobs[place]) // 8 // one.width for one in records if one.blobs[place] is not None)]


def weighted(block, blocks, records, place):
    """The same of a block of any level: in a coarser mean a finer one counts as often as it has records."""
    truth = expected([one for one in records if block.first <= one.seq <= block.last], place)
    if truth is None or block.level == 1:
        return truth
    total, weight = np.zeros((2, *truth[:, 1].shape))
    for finer in blocks:
        if finer.level == block.level - 1 and block.first <= finer.first <= block.last:
            means = np.full(truth.shape, np.nan)
            if (part := weighted(finer, blocks, records, place)) is not None:
                means[: len(part)] = part
            there = ~np.isnan(means[:, 1])
            total[there] += finer.records * means[:, 1][there]
            weight += finer.records * there
    with np.errstate(invalid="ignore"):
        truth[:, 1] = total / weight
    return truth


def assert_stands_for(block, blocks, records):
    """The block says what its records say."""
    here = [one for one in records if block.first <= one.seq <= block.last]
    assert (block.first, block.last, block.records) == (here[0].seq, here[-1].seq, len(here))
    assert (block.first_step, block.last_step) == (here[0].head[0], here[-1].head[0])
    assert {block.family} == {one.family for one in here}
    for place, planes in enumerate(block.planes):
        truth = weighted(block, blocks, records, place)
        if truth is None or planes is None:
            assert truth is None
            assert planes is None
            continue
        assert planes.dtype == np.float32
        np.testing.assert_allclose(planes, truth, rtol=3e-7)
        there = ~np.isnan(planes[:, 1])
        assert (planes[:, 0][there] <= planes[:, 1][there]).all()
        assert (planes[:, 1][there] <= planes[:, 2][there]).all()


def assert_consistent(blocks, records):
    """Every block stands for the records between its ends, and each level for all that the level below stands for."""
    for block in blocks:
        assert_stands_for(block, blocks, records)
        below = [one for one in blocks if one.level == block.level - 1 and block.first <= one.first <= block.last]
        if block.level > 1:
            assert sum(one.records for one in below) == block.records
            assert len(below) <= RADIX
    assert sum(block.records for block in blocks if block.level == 1) == len(records)
