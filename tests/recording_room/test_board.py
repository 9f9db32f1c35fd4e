"""Which curves are written: what is given, and the sentences for what cannot be."""

import pytest

import made_up
from normkit.errors import ArgumentError
from normkit.recording.board import TensorBoard


@pytest.mark.parametrize("given", ["logs", TensorBoard("logs"), TensorBoard("logs", norms="l2")])
def test_a_folder_is_short_for_all_the_rest(given):
    assert TensorBoard.of(given) == TensorBoard("logs", norms=("l2",), select=None, most=200)


def test_nothing_stays_nothing():
    assert TensorBoard.of(None) is None


def test_norms_have_one_name_each():
    assert TensorBoard("logs", norms=["fro", "l2", "L1"]).norms == ("l2", "l1")


@pytest.mark.parametrize("norms", [(), "spectral", ["l2", "nuclear"]])
def test_norms_follow_from_sums(norms):
    with pytest.raises(
        ArgumentError, match=r"^TensorBoard\(norms=.*\): expected some of l1, l2, linf, rms, mean, std, "
    ):
        TensorBoard("logs", norms=norms)


@pytest.mark.parametrize("norms", ["l3", ["l2", "big"]])
def test_a_norm_that_does_not_exist_is_named(norms):
    with pytest.raises(ArgumentError, match=r"is not the name of a norm; .*the names are l1, l2"):
        TensorBoard("logs", norms=norms)


@pytest.mark.parametrize("most", [0, -1, True, 2.5, "all"])
def test_most_is_a_number(most):
    with pytest.raises(
        ArgumentError, match=r"^TensorBoard\(most=.*\): expected a whole number of at least 1, or None$"
    ):
        TensorBoard("logs", most=most)


def test_select_is_the_language_of_all_verbs():
    params = [made_up.param("a.weight", (2, 2)), made_up.param("a.bias", (2,)), made_up.param("b.weight", (2, 2))]
    assert TensorBoard("logs").chosen(params) == {"a.weight", "a.bias", "b.weight"}
    assert TensorBoard("logs", select=["kernel", "!b*"]).chosen(params) == {"a.weight"}
    with pytest.raises(ArgumentError, match="nosuch"):
        TensorBoard("logs", select="nosuch").chosen(params)
