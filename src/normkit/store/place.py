"""What kind of file system a file is on, as the kernel's mount table says."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

# SQLite's write-ahead log needs memory that all processes on the file share, which only a local disk gives.
REMOTE = """
    9p acfs afs beegfs ceph cifs drvfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs panfs prl_fs pvfs2 smb3
    smbfs vboxsf vmhgfs wekafs
    fuse.blobfuse fuse.blobfuse2 fuse.ceph-fuse fuse.davfs2 fuse.gcsfuse fuse.glusterfs fuse.goofys fuse.juicefs
    fuse.mount-s3 fuse.rclone fuse.s3fs fuse.sshfs fuse.vmhgfs-fuse
"""


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Is `path` on a network file system? False where the system does not say."""
    return kind_of(path) in REMOTE.split()


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """The file system's name, such as "ext4" or "nfs4"; None where there is no mount table to ask."""
    try:
        real = os.path.realpath(path)
        table = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    mounts = [mount for line in table.splitlines() if (mount := _mount(line)) and _inside(real, mount[0])]
    mounts.reverse()  # of several in one place (autofs and what it mounted) the last one is seen
    return max(mounts, key=lambda mount: len(mount[0]), default=("", None))[1]


def _mount(line: str) -> tuple[str, str] | None:
    """Mount point and kind of one line: `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw`."""
    before, _, after = line.partition(" - ")
    fields, kind = before.split(), after.split()
    if len(fields) < 5 or not kind:
        return None
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]), kind[0]


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
