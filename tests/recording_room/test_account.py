"""What a recorder says at its end is what the file holds."""

import errno
import warnings

import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import net, one_step
from normkit.recording.account import readable
from normkit.store.keeper import Keeper


def full(keeper):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_is_no_reason_to_claim_records(tmp_path, monkeypatch, capfd):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rec = nk.record(model, optimizer, to=tmp_path / "a.norms", every=1)
    with warnings.catch_warnings(record=True) as said, rec:
        warnings.simplefilter("always")
        for step in range(1, 7):
            one_step(model, optimizer, step)
            if step == 2:
                rec._writer.flush()
                monkeypatch.setattr(Keeper, "write", full)
    monkeypatch.undo()
    assert "No space left on device; training goes on" in str(said[0].message)
    there = len(normkit.load(tmp_path / "a.norms"))
    assert 1 <= there <= 3
    assert rec.records == there
    last = [line for line in capfd.readouterr().err.splitlines() if line.startswith("normkit: recorded")]
    assert last[0].startswith(f"normkit: recorded {there - 1} of 6 steps x ")
    assert last[0].endswith("; what went wrong: [Errno 28] No space left on device")


def test_a_file_that_nobody_can_read_holds_nothing(tmp_path):
    (tmp_path / "a.norms").write_bytes(b"no recording")
    assert readable(tmp_path / "a.norms") == readable(tmp_path / "b.norms") == 0
