"""Calls as they are typed: `a.b.x(1, name='Alice')`.

The arguments are Python literals. They are parsed, never evaluated: no name, no call, no operator gets
through. What the wire cannot carry (bytes, sets, complex numbers) is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tega_zmq import paths
from tega_zmq.errors import InvalidValue

if TYPE_CHECKING:
    import ast

__all__ = ["MAX_TEXT", "TypedCall", "looks_like_call", "parse_call"]

MAX_TEXT = 65_536
"""Longest call that can be typed, in characters."""


class TypedCall(NamedTuple):
    """A call: the handler's path and the arguments."""

    path: paths.Path
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def looks_like_call(text: str) -> bool:
    """Return whether `text` is meant as a call: a `(` outside quotes, with no white space before it."""
    at = _parenthesis(text.strip())
    return at > 0


def parse_call(text: str) -> TypedCall:
    """Return the call that `text` stands for.

    Raises `InvalidPath` for the path, `InvalidValue` for the arguments: no literal, not closed, given twice,
    or of a kind that cannot be sent.
    """
    text = text.strip()
    if len(text) > MAX_TEXT:
        raise InvalidValue(f"a call of {len(text)} characters; at most {MAX_TEXT} can be typed")
    at = _parenthesis(text)
    if at < 0:
        raise InvalidValue(f"{text}: a call needs parentheses, as in a.b.x(1, name='Alice')")
    path = paths.parse(text[:at])
    source = "f" + text[at:]
    node = _parse(source)
    args = tuple(_literal(arg, source) for arg in node.args)
    kwargs: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise InvalidValue("** cannot be used here: name each argument")
        if keyword.arg in kwargs:
            raise InvalidValue(f"the argument {keyword.arg} is given twice")
        kwargs[keyword.arg] = _literal(keyword.value, source)
    return TypedCall(path, args, kwargs)


def _parenthesis(text: str) -> int:
    """Return where the arguments begin, or -1. A parenthesis inside a quoted oid is not meant."""
    quoted = False
    at = 0
    while at < len(text):
        char = text[at]
        if quoted and char == "\\":
            at += 1
        elif char == '"':
            quoted = not quoted
        elif not quoted and char == "(":
            return at
        elif not quoted and char.isspace():
            return -1
        at += 1
    return -1


def _parse(source: str) -> ast.Call:
    import ast
    import warnings

    try:
        with warnings.catch_warnings():
            # An odd backslash in a string is the user's business, not worth a warning.
            warnings.simplefilter("ignore")
            tree = ast.parse(source, mode="eval")
    except SyntaxError as error:
        raise InvalidValue(f"cannot read the arguments {_short(source[1:])}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidValue(f"cannot read the arguments: {str(error) or 'too deep'}") from None
    node = tree.body
    # `x(1)(2)`, `x(1).y` and `x(1) + 2` parse as well, but are no plain call of `f`.
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise InvalidValue(f"one call, nothing after its closing parenthesis: {_short(source[1:])}")
    return node


def _literal(node: ast.expr, source: str) -> Any:
    import ast

    if isinstance(node, ast.Starred):
        raise InvalidValue("* cannot be used here: write the arguments out")
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        text = ast.get_source_segment(source, node) or ""
        raise InvalidValue(
            f"{_short(text)} is no literal: text stands in quotes, as in 'Alice'; also allowed are"
            " numbers, True, False, None, lists and dicts"
        ) from None
    return _sendable(value)


def _sendable(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_sendable(item) for item in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InvalidValue(f"the key {_short(repr(key))} must be text, in quotes")
        return {key: _sendable(item) for key, item in value.items()}
    raise InvalidValue(f"{_short(repr(value))}: {type(value).__name__} cannot be sent")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
