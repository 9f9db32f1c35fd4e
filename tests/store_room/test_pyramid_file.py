"""The pyramid in its file: what a writer, a killed one and a resumed one leave."""

import json
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks import assert_consistent, made, row, taken
from normkit.store import jobs, schema
from normkit.store.keeper import Keeper
from normkit.store.pyramid import RADIX, Pyramid, read
from normkit.store.writer import Writer
from written import params, rows

META = {"framework": "made up"}
HEADS = "level, first, last, records, first_step, last_step, attempt, layout"
EVERYTHING = f'SELECT {HEADS}, scalars, weight, grad, "update" FROM pyramid ORDER BY level, first'


def put(writer, layout, seqs, width, **more):
    for seq in seqs:
        writer.put(made(seq, width, layout=layout, **more))


def undisturbed(path, count, width=3):
    writer = Writer(path, META)
    put(writer, writer.layout(params(width)), range(count), width)
    writer.close()
    return path


def test_the_file_holds_the_blocks(tmp_path):
    path = undisturbed(tmp_path / "a.norms", 300)
    records = [row(seq) for seq in range(300)]
    blocks = sorted(taken(records), key=lambda block: (block.level, block.first))
    found = rows(path, EVERYTHING)
    assert [line[:8] for line in found] == [
        (b.level, b.first, b.last, b.records, b.first_step, b.last_step, b.attempt, b.layout) for b in blocks
    ]
    for line, block in zip(found, blocks, strict=True):
        assert line[9:] == tuple(planes.astype("<f4").tobytes() for planes in block.planes)


def test_late_scalars_reach_the_block_of_the_file(tmp_path):
    writer = Writer(tmp_path / "a.norms", META)
    layout = writer.layout(params(2))
    seqs = [writer.put(made(seq, 2, layout=layout)) for seq in range(3)]
    writer.flush()
    writer.amend(seqs[0], {"loss": float("inf")})
    writer.amend(seqs[1], {"loss": float("nan")})
    writer.close()
    ((scalars,),) = rows(tmp_path / "a.norms", "SELECT scalars FROM pyramid")
    assert json.loads(scalars) == {"loss": ["inf", "inf", "inf"]}


def killed(path, count, width=3):
    """A file as a killed writer leaves it: records, and of their blocks only those that were full."""
    keeper = Keeper(path, META, resume=False, budget=None)
    named = [jobs.tensor_row(number, param) for number, param in enumerate(params(width))]
    keeper.take([jobs.Insert(jobs.TENSOR, named)], last=False)
    columns = [(0, place, place, None, None) for place in range(width)]
    keeper.take([jobs.Insert(jobs.LAYOUT, columns, width=width)], last=False)
    keeper.take([row(seq, width) for seq in range(count)], last=False)
    keeper.write()
    keeper.finish()
    return path


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40, 256, 270, 300])
def test_a_killed_run_gets_its_blocks_when_it_is_resumed(count, tmp_path):
    path = killed(tmp_path / "a.norms", count)
    before = rows(path, "SELECT count(*) FROM pyramid WHERE level = 1")[0][0]
    assert before == count // RADIX
    Writer(path, META, resume=True).close()
    assert rows(path, EVERYTHING) == rows(undisturbed(tmp_path / "b.norms", count), EVERYTHING)


def test_resuming_again_and_again_adds_no_blocks(tmp_path):
    path = undisturbed(tmp_path / "a.norms", 300)
    before = rows(path, EVERYTHING)
    for _ in range(3):
        Writer(path, META, resume=True).close()
    assert rows(path, EVERYTHING) == before


def test_an_empty_file_is_resumed(tmp_path):
    path = undisturbed(tmp_path / "a.norms", 0)
    writer = Writer(path, META, resume=True)
    put(writer, writer.layout(params(3)), range(4), 3)
    writer.close()
    assert writer.error is None
    assert [line[:4] for line in rows(path, EVERYTHING)] == [(1, 0, 3, 4)]


def test_a_resumed_writer_numbers_on(tmp_path):
    path = undisturbed(tmp_path / "a.norms", 5)
    writer = Writer(path, META, resume=True)
    assert writer.attempt == 1
    assert writer.layout(params(3)) == 1
    put(writer, 1, range(5), 3)
    writer.close()
    assert rows(path, "SELECT seq, attempt, layout FROM record") == [(n, n // 5, n // 5) for n in range(10)]
    assert rows(path, "SELECT DISTINCT tensor FROM layout WHERE layout = 1") == [(3,), (4,), (5,)]
    assert [line[:4] for line in rows(path, EVERYTHING)] == [(1, 0, 4, 5), (1, 5, 9, 5)]


def test_a_run_killed_just_after_a_change_of_layout_lacks_no_block(tmp_path):
    keeper = Keeper(tmp_path / "a.norms", META, resume=False, budget=None)
    keeper._at_once = 1  # each job is committed by itself, as with a small budget
    for layout in (0, 1):
        columns = [(layout, place, place, None, None) for place in range(3)]
        keeper.take([jobs.Insert(jobs.LAYOUT, columns, width=3)], last=False)
    keeper.take([row(seq, layout=int(seq >= 21)) for seq in range(22)], last=False)
    done = next(place for place, job in enumerate(keeper.batch) if isinstance(job, jobs.Row) and job.seq == 21)
    del keeper.batch[done + 1 :]
    keeper.write()
    keeper.finish()
    Writer(tmp_path / "a.norms", META, resume=True).close()
    blocks = [line[:4] for line in rows(tmp_path / "a.norms", EVERYTHING)]
    assert blocks == [(1, 0, 15, 16), (1, 16, 20, 5), (1, 21, 21, 1), (2, 0, 20, 21)]


DONE = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 40)),
    st.tuples(st.just("layout"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["close", "kill"]), st.just(0)),
)


@given(st.lists(DONE, min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_course_of_a_run_leaves_a_whole_pyramid(course):
    """Puts, changes of layout, and ends, clean or not, each followed by a resume."""
    con = sqlite3.connect(":memory:")
    for statement in schema.statements():
        con.execute(statement)
    for layout in range(4):
        columns = [(layout, place, 0, None, None) for place in range(layout)]
        con.executemany(jobs.LAYOUT, columns)
    pyramid, records, layout, attempt, seq = Pyramid(), [], 1, 0, 0
    for what, number in [*course, ("close", 0)]:
        if what == "put":
            for _ in range(number):
                one = row(seq, layout, layout=layout, attempt=attempt, update=seq % 7 > 0, lines=6 + seq % 2)
                blocks, seq = pyramid.take(one), seq + 1
                records.append(one)
                for job in (one, *blocks):
                    job.run(con)
        elif what == "layout":
            layout = number
        else:
            for block in pyramid.close() if what == "close" else []:
                block.run(con)
            pyramid, attempt = Pyramid(), attempt + 1
            for block in pyramid.resume(con):
                block.run(con)
    assert_consistent(list(read(con, "1 ORDER BY level, first")), records)
    again = Pyramid()
    assert [(b.level, b.first, b.last) for b in taken(records, again)] == [
        tuple(line) for line in con.execute("SELECT level, first, last FROM pyramid ORDER BY id")
    ]
    con.close()
