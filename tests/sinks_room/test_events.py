"""The bytes of TensorBoard's event files, against TensorBoard's own protocol buffers and reader."""

import struct
import sys

import numpy as np
import pytest

from board import parsed
from normkit.errors import ArgumentError
from normkit.sinks.events import Template, checksum, framed, start, varint, version


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31, 2**62])
def test_varint_reads_back(number):
    assert parsed(b"\x10" + varint(number)).step == number


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_a_template_is_an_event_of_scalars(count):
    tags = [f"layer{n}/größe/l2" for n in range(count)]
    values = np.linspace(-1e3, 1e3, count)
    event = parsed(Template(tags).event(1.7e9 + 0.25, 129, values))
    assert (event.wall_time, event.step) == (1.7e9 + 0.25, 129)
    assert [value.tag for value in event.summary.value] == tags
    assert [value.simple_value for value in event.summary.value] == values.astype(np.float32).tolist()


def test_a_template_is_used_again():
    template = Template(["a", "b"])
    first, second = (template.event(0.0, step, np.array([step, -step])) for step in (1, 2))
    assert [value.simple_value for value in parsed(first).summary.value] == [1, -1]
    assert [value.simple_value for value in parsed(second).summary.value] == [2, -2]


@pytest.mark.parametrize(("given", "read"), [(1e300, np.inf), (-np.inf, -np.inf), (1e-300, 0.0), (np.nan, np.nan)])
def test_values_beyond_float32_and_not_finite_are_stored(given, read):
    event = parsed(Template(["a"]).event(0.0, 1, np.array([given])))
    np.testing.assert_equal(event.summary.value[0].simple_value, read)


def test_half_a_surrogate_pair_becomes_its_code():
    assert parsed(Template(["a\ud800"]).event(0.0, 1, np.array([1.0]))).summary.value[0].tag == "a\\ud800"


def test_the_first_events_of_a_file():
    assert parsed(version(5.0)).file_version == "brain.Event:2"
    session = parsed(start(5.0, 7))
    assert (session.step, session.session_log.status) == (7, session.session_log.START)


def test_a_frame_is_a_length_the_event_and_their_checksums():
    event = b"123456789"
    crc = 0xE3069283  # CRC-32C of these nine bytes, in every table of test values
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    frame = framed(event, checksum())
    assert (frame[:8], frame[12:21], frame[21:]) == (struct.pack("<Q", 9), event, struct.pack("<I", masked))


def test_without_google_crc32c_one_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(
        ArgumentError, match=r"^TensorBoard files need google-crc32c .*pip install 'normkit\[tensorboard"
    ):
        checksum()
