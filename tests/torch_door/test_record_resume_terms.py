"""`nk.record(resume=, step=, budget=, ranks=)`: what is refused, and what each leaves behind."""

import os

import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import net, one_step
from normkit.errors import ArgumentError, FileError, StateError
from written import change

OPTIMIZERS = {"sgd": lambda p: torch.optim.SGD(p, lr=0.1)}


def start(to, **more):
    model = net()
    return nk.record(model, OPTIMIZERS["sgd"](model.parameters()), to=to, quiet=True, **more)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"resume": "yes"}, r"resume='yes': expected True, False or 'auto'"),
        ({"step": 5}, r"step=5 says where a resumed run stands; it needs resume=True or 'auto'"),
        ({"step": -1, "resume": True}, r"step=-1: expected a whole number of at least 0"),
        ({"budget": "big"}, r"budget='big': expected a size such as '256 MB' or '1 GB', or None"),
        ({"budget": 1000}, r"budget=1000: a recording needs at least 1 MB"),
        ({"ranks": "last"}, r"ranks='last': expected 'first' or 'all'"),
    ],
)
def test_arguments_that_make_no_sense(arguments, sentence, tmp_path):
    with pytest.raises(ArgumentError, match=f"^{sentence}$"):
        start(tmp_path / "a", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(FileError, match=r"^there is no recording '.*a\.norms' to resume; leave resume= out, or say"):
        start(tmp_path / "a", resume=True)


def test_a_file_that_is_being_written_is_not_resumed(tmp_path):
    with (
        start(tmp_path / "a"),
        pytest.raises(StateError, match=r"a\.norms' is still being written by this very process"),
    ):
        start(tmp_path / "a", resume=True)


def test_another_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "a.norms").write_text("mine")
    with pytest.raises(FileError, match=r"a\.norms' is not a normkit recording: it begins with b'mine'"):
        start(tmp_path / "a", resume=True)
    assert (tmp_path / "a.norms").read_text() == "mine"


def test_a_newer_file_is_refused_and_left_alone(tmp_path):
    start(tmp_path / "a").close()
    change(tmp_path / "a.norms", "PRAGMA user_version = 99")
    before = (tmp_path / "a.norms").read_bytes()
    with pytest.raises(FileError, match=r"a\.norms' was written by a newer normkit: its format is 99"):
        start(tmp_path / "a", resume=True)
    assert (tmp_path / "a.norms").read_bytes() == before


def test_a_start_that_fails_keeps_the_file_that_it_meant_to_resume(tmp_path):
    start(tmp_path / "a").close()
    with pytest.raises(ArgumentError, match="matches none of 4 parameters"):
        start(tmp_path / "a", resume=True, select="nowhere")
    assert len(normkit.load(tmp_path / "a.norms"))


def test_each_rank_has_a_file(tmp_path, monkeypatch):
    for number in (0, 1):
        monkeypatch.setenv("RANK", str(number))
        start(tmp_path / "a", ranks="all").close()
    assert sorted(os.listdir(tmp_path)) == ["a.rank0.norms", "a.rank1.norms"]
    merged = normkit.merge([tmp_path / "a.rank0.norms", tmp_path / "a.rank1.norms"])
    assert merged.name == "a.rank0-merged.norms"
    monkeypatch.setenv("RANK", "1")
    assert start(tmp_path / "b").path is None


def test_a_small_budget(tmp_path):
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with nk.record(model, optimizer, to=tmp_path / "a", every=1, budget="1 MB", per="out", quiet=True) as rec:
        for step in range(1, 501):
            one_step(model, optimizer, step)
    run = normkit.load(rec.path)
    assert run.meta["budget"] == 1 << 20
    assert run.meta["thinned"]
    assert rec.path.stat().st_size <= 1 << 20
    assert run.envelope(spans=40).records.sum() == 501
