"""`normkit.merge`: replicas, stages side by side and pieces, against sums of the arrays themselves."""

import numpy as np
import pytest

import normkit
from made_up import sums_of
from normkit.errors import ArgumentError, FileError
from normkit.store.writer import Writer
from normkit.types import SUMS, Param, Reading
from written import write


def array(name, step, shape):
    rng = np.random.default_rng([step, *map(ord, name)])
    return rng.normal(size=shape)


def record(path, tensors, steps=range(4), *, arrays=array, scalars=None, events=()):
    """A recording of {name: shape}, whose update is the half of its weight."""
    writer = Writer(path, {"framework": "made up", "findings": 3})
    layout = writer.layout([Param(name, shape, "float32", "kernel") for name, shape in tensors.items()])
    for step in steps:
        weights = [arrays(name, step, shape) for name, shape in tensors.items()]
        weight = np.array([sums_of(one)[:6] for one in weights]).T
        update = np.array([sums_of(one / 2, one) for one in weights]).T
        values = {"weight": weight} | ({"update": update} if step else {})
        writer.put(Reading(step, layout, 1.7e9 + step, values, epoch=1, scalars=scalars or {"loss": float(step)}))
    for event in events:
        writer.event(*event)
    writer.close()
    assert writer.error is None
    return path


def test_stages_stand_side_by_side(tmp_path):
    a = record(tmp_path / "a.norms", {"one": (2, 3), "two": (4,)})
    b = record(tmp_path / "b.norms", {"three": (5, 1)}, range(1, 6), scalars={"loss": 99.0, "aux": 1.0})
    run = normkit.load(normkit.merge([a, b], to=tmp_path / "whole"))
    assert run.path == tmp_path / "whole.norms"
    assert run.tensors == ("one", "two", "three")
    assert run.steps.tolist() == [0, 1, 2, 3, 4, 5]
    for name, source in (("one", a), ("two", a), ("three", b)):
        there = np.isin(run.steps, normkit.load(source).steps)
        for quantity in ("weight", "update"):
            found = run.series(name, quantity=quantity)
            np.testing.assert_array_equal(found[there], normkit.load(source).series(name, quantity=quantity))
            assert np.isnan(found[~there]).all()
    assert run.scalar("loss").tolist() == [0, 1, 2, 3, 99, 99]
    assert run.scalar("aux")[1:].tolist() == [1] * 5
    assert run.epochs.tolist() == [1] * 6
    assert run.meta["framework"] == "made up"
    assert len(run.meta["merged"]) == 2
    assert run.envelope(spans=2).records.sum() == 6


def test_replicas_are_taken_once(tmp_path):
    files = [record(tmp_path / f"{n}.norms", {"one": (2, 3)}) for n in range(3)]
    run = normkit.load(normkit.merge(files, to=tmp_path / "whole"))
    for quantity in ("weight", "update"):
        np.testing.assert_array_equal(run.matrix(quantity=quantity), normkit.load(files[0]).matrix(quantity=quantity))


def test_replicas_that_hold_nan_are_equal(tmp_path):
    def broken(name, step, shape):
        return np.full(shape, np.nan)

    files = [record(tmp_path / f"{n}.norms", {"one": (2, 3)}, arrays=broken) for n in range(2)]
    assert (normkit.load(normkit.merge(files, to=tmp_path / "whole")).matrix("nonfinite") == 6).all()


def test_replicas_that_differ_are_refused_and_leave_nothing(tmp_path):
    a = record(tmp_path / "a.norms", {"same": (2,), "one": (2, 3)})
    b = record(
        tmp_path / "b.norms",
        {"same": (2,), "one": (2, 3)},
        arrays=lambda name, step, shape: array(name, step, shape) + (step == 2 and name == "one"),
    )
    with pytest.raises(ArgumentError, match=r"^'one' differs at step 2 between '.*b\.norms' and .*, say pieces=True$"):
        normkit.merge([a, b], to=tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.norms", "b.norms"]


@pytest.mark.parametrize(
    ("shapes", "whole"),
    [([(2, 3), (4, 3)], (6, 3)), ([(2, 3), (2, 5)], (2, 8)), ([(4,), (3,)], (7,)), ([(2, 3), (4, 5)], (26,))],
)
def test_pieces_are_added(shapes, whole, tmp_path):
    def piece(number):
        return lambda name, step, shape: array(f"{name}{number}", step, shape)

    files = [record(tmp_path / f"{n}.norms", {"one": shape}, arrays=piece(n)) for n, shape in enumerate(shapes)]
    run = normkit.load(normkit.merge(files, to=tmp_path / "whole", pieces=True))
    assert run.params[0].shape == whole
    for place, step in enumerate(run.steps.tolist()):
        flat = np.concatenate([array(f"one{n}", step, shape).ravel() for n, shape in enumerate(shapes)])
        for quantity, truth in (("weight", sums_of(flat)), ("update", sums_of(flat / 2, flat))):
            for row, expected in list(zip(SUMS, truth, strict=True))[: 6 if quantity == "weight" else 7]:
                found = run.sums(row, quantity)[place, 0]
                assert (
                    np.isnan(found)
                    if quantity == "update" and not step
                    else found == pytest.approx(expected, rel=1e-13)
                )


def test_what_happened_is_told_once(tmp_path):
    events = [("resumed", "goes on", 3, None), ("parameters", "new", 1, "one")]
    files = [record(tmp_path / f"{n}.norms", {f"t{n}": (2,)}, events=events[n:]) for n in range(2)]
    run = normkit.load(normkit.merge(files, to=tmp_path / "whole"))
    assert {event.kind for event in run.events} == {"resumed", "parameters"}


def test_findings_of_one_part_are_not_those_of_the_whole(tmp_path):
    files = [record(tmp_path / f"{n}.norms", {f"t{n}": (2,)}) for n in range(2)]
    run = normkit.load(normkit.merge(files, to=tmp_path / "whole"))
    assert "findings" not in run.meta


def test_a_file_that_is_there_is_kept(tmp_path):
    files = [record(tmp_path / f"{n}.norms", {f"t{n}": (2,)}) for n in range(2)]
    assert [normkit.merge(files).name for _ in range(2)] == ["0-merged.norms", "0-merged-2.norms"]


@pytest.mark.parametrize(
    ("names", "kind", "sentence"),
    [
        ([], ArgumentError, r"paths=\[\]: expected two recordings or more"),
        (["a.norms"], ArgumentError, r"paths=\['.*a\.norms'\]: expected two recordings or more"),
        (["a.norms", "a.norms"], ArgumentError, r"\[.*a\.norms'\] names a file twice; give each once"),
        (["a.norms", "none.norms"], FileError, r"there is no recording at '.*none\.norms'"),
    ],
)
def test_what_cannot_be_merged(names, kind, sentence, tmp_path):
    write(tmp_path / "a.norms")
    with pytest.raises(kind, match=f"^{sentence}"):
        normkit.merge([tmp_path / name for name in names])


def test_one_path_is_not_a_list_of_letters(tmp_path):
    with pytest.raises(ArgumentError, match=r"^paths='.*a\.norms': expected two recordings or more$"):
        normkit.merge(str(write(tmp_path / "a.norms")))
