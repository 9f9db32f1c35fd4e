"""Which file systems are remote, by a made-up mount table, and what a file on one is like."""

import pytest

from normkit.readers import Recording
from normkit.store import place
from normkit.store.writer import Writer
from written import assert_holds, finished, params, reading, rows, start, write

TABLE = """
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /home rw shared:5 - nfs4 server:/home rw,vers=4.2
31 30 0:27 / /home/me/local rw - xfs /dev/sdb1 rw
32 22 0:28 / /mnt/with\\040space\\134 rw master:1 shared:2 - fuse.sshfs me@host: rw
33 22 0:29 / /auto rw - autofs /etc/auto rw
34 33 0:30 / /auto rw - nfs server:/auto rw
35 22 0:31 / /opt/
nonsense - line
"""


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    monkeypatch.setattr(place, "MOUNTS", table)
    return table


@pytest.mark.parametrize(
    ("path", "kind", "remote"),
    [
        ("/", "ext4", False),
        ("/data/a.norms", "ext4", False),
        ("/home", "nfs4", True),
        ("/home/me/a.norms", "nfs4", True),
        ("/homes/a.norms", "ext4", False),
        ("/home/me/local/a.norms", "xfs", False),
        ("/home/me/local/../a.norms", "nfs4", True),
        ("/mnt/with space\\/a.norms", "fuse.sshfs", True),
        ("/auto/a.norms", "nfs", True),
        ("/opt/a.norms", "ext4", False),
    ],
)
def test_the_nearest_mount_counts_and_of_two_in_one_place_the_upper(mounts, path, kind, remote):
    assert place.kind_of(path) == kind
    assert place.is_remote(path) == remote


def test_without_a_table_nothing_is_remote(monkeypatch, tmp_path):
    monkeypatch.setattr(place, "MOUNTS", tmp_path / "none")
    assert place.kind_of("/home") is None
    assert not place.is_remote("/home")


def test_a_link_is_where_it_leads(mounts, tmp_path):
    (tmp_path / "link").symlink_to("/home/me")
    assert place.is_remote(tmp_path / "link" / "a.norms")


@pytest.fixture
def remote(tmp_path, monkeypatch):
    table = tmp_path / "mountinfo"
    table.write_text("30 22 0:26 / / rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(place, "MOUNTS", table)
    return tmp_path


def test_a_remote_file_has_no_log_and_is_read_while_it_is_written(remote):
    writer = Writer(remote / "a.norms", {})
    layout = writer.layout(params(3))
    for step in range(40):
        writer.put(reading(step, layout, 3))
        if step % 10 == 9:
            writer.flush()
            assert_holds(remote / "a.norms", range(step + 1), 3)
    assert not list(remote.glob("*-wal"))
    assert rows(remote / "a.norms", "PRAGMA journal_mode") == [("delete",)]
    writer.close()
    assert writer.error is None
    assert sorted(path.name for path in remote.iterdir()) == ["a.norms", "mountinfo"]


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from normkit.store import place
from normkit.store.writer import Writer
from written import params, reading
place.MOUNTS = Path(sys.argv[2])
writer = Writer(sys.argv[3], {})
layout = writer.layout(params(3))
for step in range(50):
    writer.put(reading(step, layout, 3))
writer.flush()
print("flushed", flush=True)
for step in range(50, 90):
    writer.put(reading(step, layout, 3))
os.kill(os.getpid(), 9)
"""


def test_a_remote_file_after_kill_9(remote):
    from pathlib import Path

    process = start(KILLED, Path(__file__).parents[1], remote / "mountinfo", remote / "a.norms")
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("flushed\n", -9), err
    steps = Recording(remote / "a.norms").steps.tolist()
    assert steps[:50] == list(range(50))
    assert_holds(remote / "a.norms", steps, 3)
    Writer(remote / "a.norms", {}, resume=True).close()
    assert_holds(remote / "a.norms", steps, 3)


def test_a_local_file_has_a_log(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    writer.layout(params(1))
    writer.flush()
    assert (tmp_path / "a.norms-wal").exists()
    writer.close()


def test_another_process_reads_a_remote_file(remote):
    write(remote / "a.norms")
    code = "import sys, normkit; print(normkit.load(sys.argv[1]).steps.tolist())"
    assert finished(start(code, remote / "a.norms")) == "[0, 1, 2, 3, 4]\n"
