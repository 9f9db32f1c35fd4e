"""The terms of a recording, and the checks of what it is given."""

from pathlib import Path

import numpy as np
import pytest

from normkit.errors import ArgumentError
from normkit.recording.checks import check_budget, check_step
from normkit.recording.terms import Terms


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (None, None),
        ("256 MB", 256 << 20),
        ("256mb", 256 << 20),
        (" 1.5 GB ", 3 << 29),
        ("2TB", 2 << 40),
        ("1024 kB", 1 << 20),
        ("1048576", 1 << 20),
        ("1048576 B", 1 << 20),
        (10_000_000, 10_000_000),
        (1e8, 100_000_000),
        (np.int64(1 << 20), 1 << 20),
    ],
)
def test_a_budget(given, size):
    assert check_budget(given) == size
    assert Terms(budget=given).bytes == size


@pytest.mark.parametrize("given", ["", "much", "-5 MB", "5 PB", "1,5 GB", True, [], "1 MB 2", float("nan"), "9" * 400])
def test_what_is_no_budget(given):
    with pytest.raises(ArgumentError, match=r"^budget=.*: expected a size such as '256 MB' or '1 GB', or None$"):
        check_budget(given)


@pytest.mark.parametrize("given", [0, 1, "1 kB", "0.9 MB", (1 << 20) - 1])
def test_a_budget_that_is_too_small(given):
    with pytest.raises(ArgumentError, match=r"^budget=.*: a recording needs at least 1 MB$"):
        check_budget(given)


@pytest.mark.parametrize("resume", [True, "auto"])
@pytest.mark.parametrize("step", [0, 7, np.int32(7)])
def test_a_step(step, resume):
    assert check_step(step, resume) == step
    assert type(check_step(step, resume)) is int
    assert Terms(step=step, resume=resume).step == step


def test_no_step_is_no_step():
    assert check_step(None, False) is None


@pytest.mark.parametrize("step", [-1, 2.0, "7", True, np.array([1, 2]), [3]])
def test_what_is_no_step(step):
    with pytest.raises(ArgumentError, match=r"^step=.*: expected a whole number of at least 0$"):
        check_step(step, True)


@pytest.mark.parametrize("step", [0, 5])
def test_a_step_needs_something_to_resume(step):
    with pytest.raises(ArgumentError, match=rf"^step={step} says where a resumed run stands; it needs resume=True"):
        check_step(step, False)


@pytest.mark.parametrize("ranks", ["every", 0, None, True])
def test_ranks_are_first_or_all(ranks):
    with pytest.raises(ArgumentError, match=r"^ranks=.*: expected 'first' or 'all'$"):
        Terms(ranks=ranks)


def test_the_first_rank_keeps_its_terms():
    terms = Terms(to="mine")
    assert terms.for_rank(0) is terms.for_rank(3) is terms


@pytest.mark.parametrize(
    ("to", "name"), [("mine", "mine.rank3"), ("a/mine.norms", "a/mine.rank3"), (Path("a/mine.v2"), "a/mine.v2.rank3")]
)
def test_with_all_ranks_each_has_a_file(to, name):
    terms = Terms(to=to, ranks="all", step=4, resume=True)
    other = terms.for_rank(3)
    assert (other.to, other.quiet, other.step, other.resume) == (name, True, 4, True)
    assert not terms.for_rank(0).quiet
    assert Terms(ranks="all", quiet=True).for_rank(0).quiet


def test_a_schedule_is_made_anew_each_time():
    terms = Terms(every=5)
    assert terms.schedule() is not terms.schedule()


@pytest.mark.parametrize("every", [0, -1, "often"])
def test_a_bad_schedule_is_said_at_once(every):
    with pytest.raises(ArgumentError, match="every="):
        Terms(every=every)


@pytest.mark.parametrize("given", [True, 3, "", b"w.csv", ["w.csv"]])
def test_a_live_table_is_a_path(given):
    with pytest.raises(ArgumentError, match=r"^csv=.*: expected the path of a file, such as 'weights.csv'$"):
        Terms(csv=given)


@pytest.mark.parametrize("given", [True, 0, "", b"logs"])
def test_curves_go_into_a_folder(given):
    with pytest.raises(ArgumentError, match=r"^tensorboard=.*: expected the path of a folder, such as 'logs'$"):
        Terms(tensorboard=given)


def test_a_live_table_is_no_folder(tmp_path):
    for given in (tmp_path, f"{tmp_path}/new/"):
        with pytest.raises(ArgumentError, match=r"is a directory; give the name of a file, such as '.*weights.csv'$"):
            Terms(csv=given)


def test_a_folder_of_curves_is_no_file(tmp_path):
    (tmp_path / "logs").touch()
    with pytest.raises(ArgumentError, match=r"^tensorboard='.*' is a file; give the name of a folder, such as 'logs'$"):
        Terms(tensorboard=tmp_path / "logs")


@pytest.mark.parametrize("given", ["my-project", 1, {}, Path("run")])
def test_wandb_is_true_or_a_run(given):
    with pytest.raises(ArgumentError, match=r"^wandb=.*: expected True \(the active run\) or a run, as wandb.init\(\)"):
        Terms(wandb=given)


@pytest.mark.parametrize("given", ["", 1, {}, ["a"]])
def test_mlflow_is_true_or_a_run(given):
    with pytest.raises(ArgumentError, match=r"^mlflow=.*: expected True \(the active run\) or the id of a run$"):
        Terms(mlflow=given)


def test_only_the_first_rank_writes_live():
    terms = Terms(to="mine", ranks="all", csv="w.csv", tensorboard="logs", wandb=True, mlflow="abc")
    other = terms.for_rank(1)
    assert (other.csv, other.tensorboard, other.wandb, other.mlflow) == (None, None, None, None)
    assert terms.for_rank(0).csv == "w.csv"
