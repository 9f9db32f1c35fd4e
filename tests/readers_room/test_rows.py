"""`Recording.rows`: the groups of a tensor, against the sums that were put."""

import numpy as np
import pytest

from normkit.errors import ArgumentError, FileError
from normkit.readers import Recording
from normkit.store.writer import Writer
from normkit.types import Param, Reading
from written import change, matrix, params, write

FORMULAS = {  # norm -> formula over the sums [6][...] and the count, apart from the room `norms`
    "l1": lambda s, n: s[1],
    "l2": lambda s, n: s[2] ** 0.5,
    "linf": lambda s, n: s[3],
    "rms": lambda s, n: (s[2] / n) ** 0.5,
    "mean": lambda s, n: s[0] / n,
    "std": lambda s, n: (s[2] / n - (s[0] / n) ** 2) ** 0.5,
    "zeros": lambda s, n: s[4],
    "nonfinite": lambda s, n: s[5],
}
SEEDS = {"weight": (6, 0), "grad": (7, 1), "update": (7, 2)}

W = Param("w", (4, 6), "float32", "kernel", out_axes=(0,), in_axes=(1,))
B = Param("b", (4,), "float32", "bias")


@pytest.fixture
def path(tmp_path):
    """Twelve columns: w, b, four rows and six columns of w."""
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout((W, B), [(W, "out", 4), (W, "in", 6)])
    for step in range(5):
        values = {quantity: matrix(step, 12, *how) for quantity, how in SEEDS.items()}
        writer.put(Reading(step, layout, 0.0, values))
    writer.close()
    assert writer.error is None
    return tmp_path / "a.norms"


@pytest.mark.parametrize("norm", FORMULAS)
@pytest.mark.parametrize("quantity", SEEDS)
@pytest.mark.parametrize(("per", "columns", "entries"), [("out", slice(2, 6), 6), ("in", slice(6, 12), 4)])
def test_every_norm_of_every_group(path, norm, quantity, per, columns, entries):  # noqa: PLR0917
    sums = np.stack([matrix(step, 12, *SEEDS[quantity]) for step in range(5)], axis=1)[:, :, columns]
    found = Recording(path).rows("w", norm, quantity, per=per)
    np.testing.assert_allclose(found, FORMULAS[norm](sums, entries), rtol=1e-13)


def test_whole_tensors_stay_by_themselves(path):
    recording = Recording(path)
    assert recording.tensors == ("w", "b")
    np.testing.assert_array_equal(recording.sums("sq"), [matrix(step, 12, 6)[2, :2] for step in range(5)])
    np.testing.assert_array_equal(recording.reading(3).values["grad"], matrix(3, 12, 7, 1)[:, :2])
    assert set(recording.at(2)) == {"w", "b"}


@pytest.mark.parametrize("norm", ["rms", "mean", "l2"])
def test_a_tensor_that_grows_has_its_norms_over_what_it_was(norm, tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    for step, size in enumerate((2, 5)):
        one = Param("w", (size, 3 + size), "float32", "kernel")
        layout = writer.layout((one,), [(one, "out", size)])
        writer.put(Reading(step, layout, 0.0, {"weight": matrix(step, size + 1, 6)}))
    writer.close()
    found = Recording(tmp_path / "a.norms").rows("w", norm)
    assert found.shape == (2, 5)
    assert np.isnan(found[0, 2:]).all()
    np.testing.assert_allclose(found[0, :2], FORMULAS[norm](matrix(0, 3, 6)[:, 1:], 5), rtol=1e-13)
    np.testing.assert_allclose(found[1], FORMULAS[norm](matrix(1, 6, 6)[:, 1:], 8), rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        ("b", {}, r"'b' was not recorded per='out'; record\(\.\.\., per='out'\) does so"),
        ("w", {"per": "row"}, r"'w' was not recorded per='row'"),
        ("v", {}, r"there is no tensor 'v'; there are 'w', 'b'"),
        ("w", {"norm": "spectral"}, r"'spectral' does not follow from the sums"),
        ("w", {"quantity": "dot"}, r"there is no quantity 'dot'"),
    ],
)
def test_what_is_not_there(path, name, more, sentence):
    with pytest.raises(ArgumentError, match=f"^{sentence}"):
        Recording(path).rows(name, **more)


def test_a_recording_without_groups(tmp_path):
    with pytest.raises(ArgumentError, match=r"was not recorded per='out'"):
        Recording(write(tmp_path / "a.norms")).rows(params(1)[0].name)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("UPDATE layout SET per = x'ff' WHERE per = 'in'", None),
        ("UPDATE layout SET per = NULL WHERE per = 'in'", None),
        ("UPDATE layout SET \"group\" = 'first' WHERE per = 'out'", None),
        ("UPDATE layout SET \"group\" = 9223372036854775807 WHERE per = 'out'", None),
        ("UPDATE layout SET tensor = 77 WHERE position = 4", r"layout 0 is wrong at column 4: position 4, tensor 77"),
        ("DELETE FROM layout WHERE position = 4", r"layout 0 is wrong at column 4: position 5, tensor 0"),
        ("UPDATE sums SET weight = zeroblob(96)", r"take 96 bytes where 576 or 672 were expected"),
    ],
)
def test_odd_layouts_are_a_sentence_or_a_plain_answer(path, damage, sentence):
    change(path, damage)
    if sentence is None:
        assert Recording(path).rows("w").shape == (5, 4)
        return
    with pytest.raises(FileError, match=sentence):
        Recording(path).rows("w")
