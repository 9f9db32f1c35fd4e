"""How the package speaks: one sentence, lower case, no full stop, and the value it is about.

An error says what was given, what was expected and what to do; without the value that was given a reader has to
run it again under a debugger.
"""

from __future__ import annotations

import re

import pytest

from messages import FIELD, Message, messages, seams
from sources import PACKAGE

# Messages that have no value to show, by their beginning, and why.
WITHOUT_VALUE: dict[str, str] = {
    "record(): expected a model": "nothing was given",
    "a recorder that is not enabled": "it is about the moment, not a value",
}

# Names that may begin a message with a capital letter and no bracket behind.
NAMES = {"Python", "Adam", "Keras"}

# What may stand at a seam without a space: an opening on the left, a closing on the right.
OPENING = (*tuple(" ([{/-=_'\"`"), "\\n", "\n")
CLOSING = (*tuple(" )]},.;:/='\"`"), "\\n", "\n")


def glued(path: str, code: str) -> list[str]:
    """One line per seam of two string literals where a space is missing or doubled."""
    lines = []
    for line, left, right in seams(code):
        if left and right:
            both = f"{path}:{line} ...{left[-20:]}|{right[:20]}..."
            if left.endswith(" ") and right.startswith(" "):
                lines.append(f"{both}: two spaces")
            elif not ends_open(left) and not starts_closed(right):
                lines.append(f"{both}: no space")
    return lines


def ends_open(left: str) -> bool:
    return left.endswith(OPENING) and not left.endswith("'")


def starts_closed(right: str) -> bool:
    return right.startswith(CLOSING)


def ill_spoken(message: Message) -> list[str]:
    """What is wrong with one message, in words."""
    text = message.text
    first = re.match(r"[A-Z][a-z]+(?= )", text)
    return [
        fault
        for fault, found in {
            "has two spaces in a row": "  " in text,
            "begins with a capital letter": first is not None and first[0] not in NAMES,
            "ends with a full stop": text.rstrip().endswith((".", "!")),
            "is more than one sentence": re.search(r"[a-z)`'][.!] [A-Z][a-z]", text) is not None,
            "begins or ends with a space": text != text.strip(),
            "shows no value": FIELD not in text and not text.startswith(tuple(WITHOUT_VALUE)),
        }.items()
        if found
    ]


def all_messages() -> list[Message]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [each for file in files for each in messages(str(file.relative_to(PACKAGE)), file.read_text("utf-8"))]


def test_messages_are_one_sentence_with_a_value():
    lines = [f"{each.place} {fault}: {each.text!r}" for each in all_messages() for fault in ill_spoken(each)]
    assert not lines, "\n" + "\n".join(lines)


def test_no_words_are_glued_together():
    files = sorted(PACKAGE.rglob("*.py"))
    lines = [line for file in files for line in glued(str(file.relative_to(PACKAGE)), file.read_text("utf-8"))]
    assert not lines, "\n" + "\n".join(lines)


def test_exceptions_are_still_needed():
    texts = [each.text for each in all_messages()]
    assert [each for each in WITHOUT_VALUE if not any(text.startswith(each) for text in texts)] == []


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ('x = ("expected a number"\n     "above 0")', 1),
        ('x = (f"got {value}"\n     "above 0")', 1),
        ('x = (f"{left}"\n     f"{right}")', 1),
        ('x = ("expected a number, "\n     "above 0")', 0),
        ('x = ("expected a number"\n     " above 0")', 0),
        ('x = ("expected a number "\n     " above 0")', 1),
        ('x = ("expected "  # why\n     "above 0")', 0),
        ('x = ("runs/"\n     f"{name}")', 0),
        ('x = "one", "two"', 0),
        ('x = ("see"\n     ", or not")', 0),
    ],
)
def test_glued_can_fail(code, count):
    assert len(glued("norms.py", code)) == count


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("raise ArgumentError(f'every={every!r}: no')", "every={}: no"),
        ("raise ArgumentError('a ' f'{b} ' 'c')", "a {} c"),
        ("warnings.warn(f'{x} is odd', RuntimeWarning, stacklevel=2)", "{} is odd"),
        ("raise FileError('a ' + b + ' c') from None", "a {} c"),
        ("def f():\n    text = f'of {x}'\n    raise ModelError(text)", "of {}"),
    ],
)
def test_messages_are_found(code, text):
    assert [each.text for each in messages("norms.py", code)] == [text]


def test_messages_takes_both_branches():
    found = messages("norms.py", "raise ArgumentError(f'{x} is low' if x < 0 else f'{x} is high')")
    assert [each.text for each in found] == ["{} is low", "{} is high"]


def test_messages_leaves_other_calls_alone():
    assert messages("norms.py", "print('Hello.')\nraise\nraise AssertionError('unreachable')\nraise error") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("every={}:  expected", "has two spaces in a row"),
        ("Expected a number, got {}", "begins with a capital letter"),
        ("every={}: expected a number.", "ends with a full stop"),
        ("{} is a directory. Give a file", "is more than one sentence"),
        ("{} is a directory ", "begins or ends with a space"),
        ("expected a number", "shows no value"),
    ],
)
def test_ill_spoken_can_fail(text, fault):
    assert ill_spoken(Message("norms.py:1", text)) == [fault]


@pytest.mark.parametrize("text", ["{} is a directory; give a file", "Every(steps={}): expected one", "SQLite says {}"])
def test_ill_spoken_leaves_good_ones_alone(text):
    assert ill_spoken(Message("norms.py:1", text)) == []
