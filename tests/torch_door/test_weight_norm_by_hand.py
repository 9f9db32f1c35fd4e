"""The worked example prints the numbers that people have seen torch print for the same three rows and one step."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEN = {  # printed with four digits, from rows known to four digits: one in the last may differ
    "  per=0: g": [0.6400, 0.6961, 0.6579],
    "  g": [0.6162, 0.6924, 0.6708],
    "  v": [0.2619, 0.5746, 0.1042, -0.4715, 0.5084, -0.0660, -0.5581, 0.0611, -0.3437],
}


@pytest.fixture(scope="module")
def printed():
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *texts, sep=" ", **_: lines.extend(sep.join(texts).splitlines()))
        runpy.run_path(str(ROOT / "examples" / "weight_norm_by_hand.py"), run_name="__main__")
    return lines


def numbers(lines, title):
    """Those on the line that begins with `title` and on those below it that have no title."""
    at = next(i for i, line in enumerate(lines) if line[:42].rstrip() == title)
    block = [lines[at][42:]]
    while at + len(block) < len(lines) and not lines[at + len(block)][:42].strip():
        block.append(lines[at + len(block)])
    return [float(text) for text in re.findall(r"-?\d+\.\d+", " ".join(block))]


@pytest.mark.parametrize("title", SEEN)
def test_the_numbers_are_those_seen(printed, title):
    assert numbers(printed, title) == pytest.approx(SEEN[title], abs=1.01e-4)


def test_the_page_shows_the_numbers_that_the_example_prints(printed):
    page = (ROOT / "docs" / "weight-norm-by-hand.md").read_text("utf-8")
    for title in ("  per=0: g", "  per=1: g", "  per='tensor': g", "  g", "  v", "  weight = g v / |v|"):
        assert all(f"{number:.4f}" in page for number in numbers(printed, title)), title
