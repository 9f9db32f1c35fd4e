"""Pieces that arrive late become one record, in order, or none."""

import numpy as np
import pytest

from normkit.recording.packet import Packet, Piece


class Slow:
    def __init__(self, *arrays):
        self.arrays, self.here = arrays, False

    def ready(self):
        return self.here

    def wait(self):
        return self.arrays


def Now(arrays):  # noqa: N802  # beside Slow
    here = Slow(*arrays)
    here.here = True
    return here


def packet(*pieces, **more):
    return Packet(step=5, layout=0, tensors=3, wall=0.0, pieces=pieces, **more)


def test_columns_land_where_they_belong_and_the_rest_is_nan():
    weights = Piece(Now((np.arange(12.0).reshape(6, 2),)), np.array([2, 0]), ("weight",))
    values = packet(weights).reading().values
    assert values["weight"].shape == (6, 3)
    assert values["weight"][1].tolist()[::2] == [3.0, 2.0]
    assert np.isnan(values["weight"][:, 1]).all()


def test_later_pieces_win():
    pieces = [Piece(Now((np.full((6, 3), x),)), np.arange(3), ("weight",)) for x in (1.0, 2.0)]
    assert (packet(*pieces).reading().values["weight"] == 2.0).all()


def test_a_scale_is_divided_out_of_gradients_alone():
    both = (np.ones((7, 3)), np.ones((6, 3)))
    piece = Piece(Now(both), np.arange(3), ("grad", "weight"), unscale=Now((np.array([4.0]),)))
    values = packet(piece).reading().values
    assert values["grad"][:, 0].tolist() == [0.25, 0.25, 0.0625, 0.25, 1.0, 1.0, 0.25]
    assert (values["weight"] == 1.0).all()


def test_ready_only_when_everything_is():
    lates = [Slow(np.ones((6, 3))), Slow(np.array([0.0, 0.0])), Slow(np.array([0.1]))]
    waiting = packet(Piece(lates[0], np.arange(3), ("weight",)), fate=lates[1], late_scalars={"lr": lates[2]})
    for late in lates:
        assert not waiting.ready()
        late.here = True
    assert waiting.ready()
    assert waiting.reading().scalars == {"lr": 0.1}


@pytest.mark.parametrize(("fate", "step"), [([0.0, 0.0], 5), ([0.0, 2.0], 3), ([1.0, 0.0], None)])
def test_a_skipped_step_is_dropped_and_not_counted(fate, step):
    reading = packet(Piece(Now((np.ones((6, 3)),)), np.arange(3), ("weight",)), fate=Now((np.array(fate),))).reading()
    assert (reading and reading.step) == step
