"""The two examples on penalties and decay run, and print what people have seen torch print for the same numbers."""

import io
import re
import runpy
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SEEN = {  # as printed, four digits
    "at the start": """
        0.4386 0.0597 0.3980 0.7380 0.1825   0.1755 0.5316 0.5318 0.6344 0.8494
        0.7245 0.6110 0.7224 0.3230 0.3618   0.2283 0.2937 0.6310 0.0921 0.4337""",
    "after one step, weight decay 0": """
        0.2489 -0.1300 0.2084 0.5483 -0.0072   0.0653 0.4214 0.4217 0.5243 0.7393
        0.5694 0.4559 0.5674 0.1679 0.2067     0.0317 0.0972 0.4345 -0.1044 0.2372""",
    "after one step, weight decay 1": """
        0.2050 -0.1360 0.1686 0.4745 -0.0254   0.0478 0.3683 0.3685 0.4608 0.6544
        0.4969 0.3948 0.4951 0.1356 0.1705""",
}


def lines_of(example):
    with redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(ROOT / "examples" / example), run_name="__main__")
    return printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def decay():
    return lines_of("decay_by_hand.py")


@pytest.fixture(scope="module")
def penalty():
    return lines_of("penalty_by_hand.py")


def matrix_below(lines, title):
    at = lines.index(title)
    return [float(text) for line in lines[at + 1 : at + 5] for text in line.split()]


@pytest.mark.parametrize("title", SEEN)
def test_the_tables_are_those_seen(decay, title):
    seen = [float(text) for text in SEEN[title].split()]
    assert matrix_below(decay, title)[: len(seen)] == seen


def test_the_page_shows_the_first_rows_of_the_tables(decay):
    page = (ROOT / "docs" / "decay-by-hand.md").read_text("utf-8")
    for title in SEEN:
        row = " ".join(f"{number:7.4f}" for number in matrix_below(decay, title)[:5])
        assert row.split() in [line.split("`")[1].split() for line in page.splitlines() if line.count("`") == 2]


def test_the_page_shows_the_lengths(decay):
    line = next(line for line in decay if line.startswith("lengths:"))
    start, without, own = (float(text) for text in re.findall(r"\d+\.\d+", line))
    assert (start, without, own) == pytest.approx((2.2452, 1.6719, 1.4552), abs=1e-4)
    assert f"{own:.3f} in the place of {without:.3f}" in (ROOT / "docs" / "decay-by-hand.md").read_text("utf-8")


def test_by_its_own_formula_the_notebook_would_take_all_of_the_weight(decay):
    title = "w - lr dw - weight_decay w, as the notebook writes it: it takes all of w"
    start, without = (np.array(matrix_below(decay, name)) for name in list(SEEN)[:2])
    assert np.allclose(matrix_below(decay, title), without - start, atol=1.1e-4)


def test_three_of_twenty_entries_are_larger_with_decay(decay):
    assert any(line.startswith("3 of 20 entries") for line in decay)


def test_of_a_resnet_50_54_of_161_parameters_decay(decay):
    assert "a ResNet-50 has 161 parameters; 54 of them are kernels, which decay" in decay


@pytest.mark.parametrize(
    "said",
    [
        "a sum that begins with 0 is recorded as one that begins with None",
        "penalty() makes a graph at each call: no retain_graph is needed",
        "lr * lambda = 3: every step multiplies w by 1 - 3 = -2, the term by 4:",
        "reg * W.norm(2)**2        is nk.penalty(l2=2 * reg)",
    ],
)
def test_the_penalty_says_what_it_has_checked(penalty, said):
    assert any(said in line for line in penalty)
