"""Being there when a process ends, with the words for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = "import sys\nfrom normkit.recording.ending import at_end\nforget = at_end(lambda words: print('end:', words))\n"
IN_CHILD = """
import multiprocessing
def work():
    from normkit.recording.ending import at_end
    at_end(lambda words: print("end:", words, flush=True))
    {last}
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
"""
LASTS = {
    "pass": "interpreter exit",
    "raise ValueError": "error: ValueError",
    "raise KeyboardInterrupt": "interrupted",
}


def said(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout


@pytest.mark.parametrize("last", LASTS)
def test_words_for_the_end_of_a_process(last):
    assert said(BEGIN + last) == f"end: {LASTS[last]}\n"


@pytest.mark.parametrize("last", [*LASTS, "raise SystemExit(3)"])
def test_a_forked_child_ends_once_with_words(last):
    assert said(IN_CHILD.format(last=last)) == f"end: {LASTS.get(last, 'error: exit code 3')}\n"


def test_the_end_can_be_forgotten():
    assert said(BEGIN + "forget()") == ""
    assert (
        said(
            IN_CHILD.format(last="pass").replace("at_end(lambda", "forget = at_end(lambda").replace("pass", "forget()")
        )
        == ""
    )
