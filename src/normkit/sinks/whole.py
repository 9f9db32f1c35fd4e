"""Bytes that stand in a file at once, without a buffer: a forked process has none of them to write a second time."""

from __future__ import annotations

from typing import BinaryIO


def write_whole(file: BinaryIO, data: bytes) -> int:
    """Write all of `data` to an unbuffered file; returns how much that is. Raises: OSError; a part may be written."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    return len(data)
