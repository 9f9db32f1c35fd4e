"""Finds the messages of the package: the strings in `raise XError(...)` and `warnings.warn(...)`, and string seams."""

from __future__ import annotations

import ast
import io
import itertools
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

FIELD = "{}"  # stands in a message's text for a formatted value
QUIET = {"AssertionError", "NotImplementedError", "SystemExit", "KeyboardInterrupt", "StopIteration"}


@dataclass(frozen=True)
class Message:
    """One message as a reader would see it, its formatted values replaced by `{}`."""

    place: str
    text: str


def messages(path: str, code: str) -> list[Message]:
    """Every message of a file; both branches where it is chosen by a condition."""
    found = []
    for scope in scopes(ast.parse(code)):
        known = assigned_strings(scope)
        for node in own_nodes(scope):
            argument = message_argument(node)
            found += [Message(f"{path}:{node.lineno}", text) for text in texts(argument, known)] if argument else []
    return found


def scopes(tree: ast.Module) -> list[ast.AST]:
    return [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))]


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the functions inside it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from own_nodes(child)


def assigned_strings(scope: ast.AST) -> dict[str, ast.expr]:
    """Names that the scope gives a string, so that `message = f"..."; raise E(message)` is read too."""
    return {
        node.targets[0].id: node.value
        for node in own_nodes(scope)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and list(texts(node.value, {}))
    }


def message_argument(node: ast.AST) -> ast.expr | None:
    """The message in `raise XError(message)` and in `warn(message)`."""
    call = node.exc if isinstance(node, ast.Raise) else node
    if not (isinstance(call, ast.Call) and call.args):
        return None
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    is_message = name not in QUIET if isinstance(node, ast.Raise) else name == "warn"
    return call.args[0] if is_message else None


def texts(node: ast.expr, known: dict[str, ast.expr]) -> Iterator[str]:
    """The texts that an expression may give, as far as they are written out in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else FIELD for part in node.values)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [list(texts(side, known)) or [FIELD] for side in (node.left, node.right)]
        if sides != [[FIELD], [FIELD]]:
            yield from (left + right for left, right in itertools.product(*sides))
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body, known)
        yield from texts(node.orelse, known)
    elif isinstance(node, ast.Name) and node.id in known:
        yield from texts(known[node.id], {})


def seams(code: str) -> Iterator[tuple[int, str, str]]:
    """Line, left body and right body wherever two string literals stand side by side and become one."""
    previous: str | None = None
    for line, body in literals(code):
        if previous is not None and body is not None:
            yield line, previous, body
        previous = body


def literals(code: str) -> Iterator[tuple[int, str | None]]:
    """The bodies of string literals as written; None for any other token between them."""
    depth, pieces = 0, []  # Python 3.12 splits an f-string into tokens, from FSTRING_START to FSTRING_END
    starts, ends = (getattr(tokenize, name, -1) for name in ("FSTRING_START", "FSTRING_END"))
    lines = code.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == starts:
            depth, pieces = depth + 1, pieces or [token.start]
        elif token.type == ends:
            depth -= 1
            if not depth:
                yield token.start[0], body_of(written(lines, pieces.pop(), token.end))
        elif depth or token.type in (tokenize.NL, tokenize.COMMENT):
            continue
        else:
            yield token.start[0], body_of(token.string) if token.type == tokenize.STRING else None


def written(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The source between two places."""
    inside = lines[start[0] - 1 : end[0]]
    inside[-1] = inside[-1][: end[1]]
    inside[0] = inside[0][start[1] :]
    return "".join(inside)


def body_of(literal: str) -> str:
    """The text between the quotes."""
    quoted = literal.lstrip("rRbBuUfF")
    quote = quoted[:3] if quoted[:3] in ('"""', "'''") else quoted[:1]
    return quoted[len(quote) : -len(quote)]
