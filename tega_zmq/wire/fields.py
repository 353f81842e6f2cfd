"""What the fields of a message may be, derived from the annotations in `messages`.

`reader` makes of a message type the functions that check and build it. As `NamedTuple` does, it writes source
and has that compiled: so a message is read by one function, straight on, without a call for each field. That
of `Result` is

    def read(raw, leaves):
        _, x1, x2, x3, = raw
        if not (type(x1) is int and not x1 >> 63):
            return None
        if not (type(x2) is bool):
            return None
        if leaves and type(x3) not in leaves:
            return None
        return new(cls, (x1, x2, x3, ))

All that it says of a message that does not fit is that it does not. Where, is found out afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any, Final, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

from tega_zmq.errors import ProtocolError
from tega_zmq.wire import messages
from tega_zmq.wire.messages import AnyMessage

__all__ = ["Reader", "name_of", "reader"]

_NAMES: Final[dict[type, str]] = {
    bool: "a boolean",
    float: "a float",
    str: "text",
    bytes: "binary data",
    list: "a list",
    dict: "a map",
}


class Kind(NamedTuple):
    """One annotation, made ready for checking."""

    source: Callable[[str], tuple[list[str], str]]
    """For the name of a variable: the lines that check what is in it, and the expression for the field.

    The lines return None or raise `TypeError` or `ValueError` if it does not fit.
    """
    fault: Callable[[Any], str]
    """Says what is wrong with a value, beginning with where in it; empty if nothing is."""


Quick: TypeAlias = Callable[[list[Any], frozenset[type] | None], AnyMessage | None]


class Reader(NamedTuple):
    """What makes messages of one type from lists that msgpack made, the code first."""

    quick: Quick
    """Takes a list, which stays as it is, and the types that a value may have where the message holds any;
    None: those that msgpack makes. If the list does not fit, and it must have exactly the known fields, this
    returns None or raises `TypeError` or `ValueError`."""
    explaining: Callable[[list[Any]], AnyMessage]
    """Takes any list. Raises `ProtocolError` with the first field that is missing or wrong."""


def name_of(value: Any) -> str:
    """Describe what came, for an error."""
    if value is None:
        return "nil"
    if type(value) is int:
        return f"the integer {value}"
    return _NAMES[type(value)]


def _expecting(expected: str, value: Any) -> str:
    return f": expected {expected}, got {name_of(value)}"


# -- single values ---------------------------------------------------------------------------------


def _plain(test: str, expected: str, *types: type, within: str = "", made: str = "{x}") -> Kind:
    """What `test`, an expression of `{x}`, is true of.

    The others are of another type, and `expected` is told, or they are not `within` the bounds.
    """
    fits: Callable[[Any], bool] = eval("lambda x: " + test.format(x="x"))  # noqa: S307  # written below

    def source(x: str) -> tuple[list[str], str]:
        return [f"if not ({test.format(x=x)}):", "    return None"], made.format(x=x)

    def fault(value: Any) -> str:
        if type(value) not in types:
            return _expecting(expected, value)
        if fits(value):
            return ""
        return _expecting(within, value) if type(value) is int else f": expected {within}"

    return Kind(source, fault)


def _any_source(x: str) -> tuple[list[str], str]:
    return [f"if leaves and type({x}) not in leaves:", "    return None"], x


def _map_source(x: str) -> tuple[list[str], str]:
    return [f"if type({x}) is not dict or {x} and leaves:", "    return None"], x


def _map_fault(value: Any) -> str:
    return "" if type(value) is dict else _expecting("a map", value)


def _maybe_source(x: str) -> tuple[list[str], str]:
    lines = [
        f"if type({x}) is not list or len({x}) > 1:",
        "    return None",
        f"if leaves and {x} and type({x}[0]) not in leaves:",
        "    return None",
    ]
    return lines, f"tuple({x})"


def _maybe_fault(value: Any) -> str:
    if type(value) is list and len(value) <= 1:
        return ""
    got = f"one of {len(value)}" if type(value) is list else name_of(value)
    return f": expected a list of at most one value, got {got}"


_SIGNED: Final = f"-{1 << 63} <= {{x}} < {1 << 63}"
_FINITE: Final = "(type({x}) is float or type({x}) is int) and {x} - {x} == 0"

_ANY: Final = Kind(_any_source, lambda _: "")
_TEXT: Final = _plain("type({x}) is str", "text", str)
_NAMED: Final[dict[Any, Kind]] = {
    Any: _ANY,
    str: _TEXT,
    bytes: _plain("type({x}) is bytes", "binary data", bytes),
    bool: _plain("type({x}) is bool", "a boolean", bool),
    float: _plain(_FINITE, "a finite number", float, int, within="a finite number", made="float({x})"),
    int: _plain(
        f"type({{x}}) is int and {_SIGNED}", "an integer", int, within="an integer from -2^63 to 2^63-1"
    ),
    messages.Count: _plain(
        "type({x}) is int and not {x} >> 63", "an integer", int, within="an integer from 0 to 2^63-1"
    ),
    int | None: _plain(
        f"{{x}} is None or type({{x}}) is int and {_SIGNED}",
        "an integer or nil",
        int,
        NoneType,
        within="an integer from -2^63 to 2^63-1",
    ),
    int | str | None: _plain(
        f"{{x}} is None or type({{x}}) is str or type({{x}}) is int and {_SIGNED}",
        "an integer, text or nil",
        int,
        str,
        NoneType,
        within="an integer from -2^63 to 2^63-1, text or nil",
    ),
    float | None: _plain(
        f"{{x}} is None or {_FINITE}",
        "a finite number",
        float,
        int,
        NoneType,
        within="a finite number",
        made="None if {x} is None else float({x})",
    ),
    dict[str, Any]: Kind(_map_source, _map_fault),
    messages.Maybe: Kind(_maybe_source, _maybe_fault),
}


# -- lists -----------------------------------------------------------------------------------------


def _sequence(kind: Kind) -> Kind:
    """A list of `kind` of any length."""

    def source(x: str) -> tuple[list[str], str]:
        lines = [f"if type({x}) is not list:", "    return None"]
        if kind is _TEXT:
            # The fastest way to see that all are text: of any other the join makes a `TypeError`.
            return [*lines, f"''.join({x})"], f"tuple({x})"
        inner, made = kind.source(f"{x}_each")
        if kind is _ANY:
            loop = ["if leaves:", f"    for {x}_each in {x}:", *_indented(inner, 2)]
            return [*lines, *loop], f"tuple({x})"
        loop = [f"{x}_made = []", f"for {x}_each in {x}:", *_indented([*inner, f"{x}_made.append({made})"])]
        return [*lines, *loop], f"tuple({x}_made)"

    def fault(value: Any) -> str:
        if type(value) is not list:
            return _expecting("a list", value)
        return next((f"[{at}]{wrong}" for at, each in enumerate(value) if (wrong := kind.fault(each))), "")

    return Kind(source, fault)


def _fixed(kinds: tuple[Kind, ...]) -> Kind:
    """A list of exactly these, in this order."""

    def source(x: str) -> tuple[list[str], str]:
        lines, parts, made = _parts(kinds, f"{x}_")
        # Another number of them makes a `ValueError`.
        return [f"if type({x}) is not list:", "    return None", f"{parts} = {x}", *lines], f"({made})"

    def fault(value: Any) -> str:
        if type(value) is not list or len(value) != len(kinds):
            got = f"one of {len(value)}" if type(value) is list else name_of(value)
            return f": expected a list of {len(kinds)}, got {got}"
        faults = (kind.fault(each) for kind, each in zip(kinds, value, strict=True))
        return next((f"[{at}]{wrong}" for at, wrong in enumerate(faults) if wrong), "")

    return Kind(source, fault)


def _parts(kinds: tuple[Kind, ...], x: str) -> tuple[list[str], str, str]:
    """Return the lines that check these; and the variables and the expressions, a comma behind each."""
    names = [f"{x}{at}" for at in range(1, len(kinds) + 1)]
    sources = [kind.source(name) for kind, name in zip(kinds, names, strict=True)]
    lines = [line for lines, _ in sources for line in lines]
    return lines, "".join(f"{name}, " for name in names), "".join(f"{made}, " for _, made in sources)


def _indented(lines: list[str], steps: int = 1) -> list[str]:
    return ["    " * steps + line for line in lines]


def _kind(annotation: Any) -> Kind:
    """Return how a field with this annotation is checked."""
    if annotation in _NAMED:
        return _NAMED[annotation]
    if get_origin(annotation) is not tuple:
        raise TypeError(f"no check for a field of type {annotation}")
    parts = get_args(annotation)
    if len(parts) == 2 and parts[1] is Ellipsis:
        return _sequence(_kind(parts[0]))
    return _fixed(tuple(map(_kind, parts)))


# -- one reader a message --------------------------------------------------------------------------


def reader(cls: type[Any]) -> Reader:
    """Return what makes a `cls` of the lists that msgpack makes."""
    hints = get_type_hints(cls, include_extras=True)
    names = tuple(hints)
    kinds = tuple(map(_kind, hints.values()))
    size = len(kinds) + 1
    quick: Quick = _compiled(cls, kinds)

    def explaining(raw: list[Any]) -> AnyMessage:
        del raw[size:]
        try:
            message = quick(raw, None)
        except (TypeError, ValueError):
            message = None
        if message is None:
            raise ProtocolError(fault(raw))
        return message

    def fault(raw: list[Any]) -> str:
        if len(raw) < size:
            return f"{cls.__name__}: {len(raw) - 1} fields, expected {size - 1}: no {names[len(raw) - 1]}"
        faults = (kind.fault(value) for kind, value in zip(kinds, raw[1:], strict=True))
        return next(
            f"{cls.__name__}.{name}{wrong}" for name, wrong in zip(names, faults, strict=True) if wrong
        )

    return Reader(quick, explaining)


def _compiled(cls: type[Any], kinds: tuple[Kind, ...]) -> Any:
    """Return `Reader.quick` for `cls`, which has fields of these kinds."""
    lines, parts, made = _parts(kinds, "x")
    body = _indented([f"_, {parts} = raw", *lines, f"return new(cls, ({made}))"])
    names = {"cls": cls, "new": tuple.__new__}
    exec("\n".join(["def read(raw, leaves):", *body]), names)  # noqa: S102  # of the annotations alone
    return names["read"]
