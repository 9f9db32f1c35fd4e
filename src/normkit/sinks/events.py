"""TensorBoard's event files, written directly: one event per step with all its scalars, as bytes that are cut once.

A file is a row of records: [length, 8 bytes][masked CRC-32C of it][event][masked CRC-32C of that]. An event is a
protocol buffer (tensorflow/core/util/event.proto); the part that holds the scalars has the same length at every step,
so it is kept as a template in which only the numbers change.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from normkit.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Keys of fields: their number, and how they are written. Event: wall_time, step, file_version, summary, session_log.
WALL_TIME, STEP, FILE_VERSION, SUMMARY, SESSION_LOG = b"\x09", b"\x10", b"\x1a", b"\x2a", b"\x3a"
VALUE, TAG, SIMPLE_VALUE = b"\x0a", b"\x0a", b"\x15"  # Summary: value. Value: tag, simple_value
START = b"\x08\x01"  # SessionLog: status = START; TensorBoard forgets the steps from the event's own on

Checksum = Callable[[bytes], int]


def checksum() -> Checksum:
    """CRC-32C of bytes. Raises: ArgumentError where google-crc32c is not installed."""
    try:
        import google_crc32c
    except ImportError as error:
        raise ArgumentError(
            f"TensorBoard files need google-crc32c ({error}); `pip install 'normkit[tensorboard]'` brings it"
        ) from None
    crc: Checksum = google_crc32c.value
    return crc


def framed(event: bytes, crc: Checksum) -> bytes:
    """The event as a record of the file."""
    length = struct.pack("<Q", len(event))
    return b"".join((length, _masked(crc(length)), event, _masked(crc(event))))


def version(wall: float) -> bytes:
    """The event that begins a file."""
    return _head(wall, 0) + _field(FILE_VERSION, b"brain.Event:2")


def start(wall: float, step: int) -> bytes:
    """The event that says that a run goes on at `step`, whatever stood in older files from there on."""
    return _head(wall, step) + _field(SESSION_LOG, START)


class Template:
    """The scalars of one step, by their tags, with room for the numbers.

    >>> Template(["loss"]).event(0.0, 3, np.array([1.0])).hex()
    '09000000000000000010032a0d0a0b0a046c6f7373150000803f'
    """

    def __init__(self, tags: Sequence[str]) -> None:
        parts, places, size = [], [], 0
        for tag in tags:
            value = _field(TAG, tag.encode("utf-8", "backslashreplace")) + SIMPLE_VALUE
            part = VALUE + varint(len(value) + 4) + value
            parts += [part, bytes(4)]
            places.append(size + len(part))
            size += len(part) + 4
        self._bytes = np.frombuffer(b"".join(parts), np.uint8).copy()
        self._places = np.array(places, dtype=np.intp)[:, None] + np.arange(4)
        self._key = SUMMARY + varint(size)

    def event(self, wall: float, step: int, values: NDArray[np.float64]) -> bytes:
        """The event of one step; a value beyond float32 is written as infinite.

        Shapes: values [tags].
        """
        with np.errstate(over="ignore", invalid="ignore"):
            floats = np.ascontiguousarray(values, dtype="<f4")
        self._bytes[self._places] = floats.view(np.uint8).reshape(-1, 4)
        return b"".join((_head(wall, step), self._key, self._bytes.tobytes()))


def varint(number: int) -> bytes:
    """A whole number of at least 0 in groups of seven bits, the lowest first.

    >>> varint(5), varint(300)
    (b'\\x05', b'\\xac\\x02')
    """
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _head(wall: float, step: int) -> bytes:
    return WALL_TIME + struct.pack("<d", wall) + STEP + varint(step)


def _field(key: bytes, content: bytes) -> bytes:
    return key + varint(len(content)) + content


def _masked(crc: int) -> bytes:
    """The checksum, turned so that the checksum of bytes that hold checksums is none of them."""
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
