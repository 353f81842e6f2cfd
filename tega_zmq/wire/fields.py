"""What the fields of a message may be, derived from the annotations in `messages`.

`reader` makes of a message type the function that checks and builds it. The types of all fields are compared
at once: the tuple of their types is looked up in the set of those that are allowed. Only where that does not
say enough (ranges, sequences) a further step runs for the field, and only when something is wrong the fault
is located. That is several times as fast as one check a field.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from types import NoneType
from typing import Any, Final, NamedTuple, cast, get_args, get_origin, get_type_hints

from tega_zmq.errors import ProtocolError
from tega_zmq.wire import messages
from tega_zmq.wire.messages import AnyMessage

__all__ = ["name_of", "reader"]

PLAIN_TYPES: Final = (NoneType, bool, int, float, str, bytes, list, dict)
"""What a value is made of when it comes out of msgpack."""

_NAMES: Final[dict[type, str]] = {
    bool: "a boolean",
    float: "a float",
    str: "text",
    bytes: "binary data",
    list: "a list",
    dict: "a map",
}


class Misfit(Exception):
    """A message does not fit its type. Where, is found out by `Kind.fault`."""


class Kind(NamedTuple):
    """One annotation, made ready for checking."""

    types: tuple[type, ...]
    """The types that may come out of msgpack."""
    refine: Callable[[Any], Any] | None
    """Makes the value of the field, or raises `Misfit`; None: the type says it all."""
    fault: Callable[[Any], str]
    """Says what is wrong with a value, beginning with where in it; empty if nothing is."""


def name_of(value: Any) -> str:
    """Describe what came, for an error."""
    if value is None:
        return "nil"
    if type(value) is int:
        return f"the integer {value}"
    return _NAMES[type(value)]


def _scalar(expected: str, *types: type) -> Kind:
    def fault(value: Any) -> str:
        return "" if type(value) in types else f": expected {expected}, got {name_of(value)}"

    return Kind(types, None, fault)


def _checked(kind: Kind, expected: str, fits: Callable[[Any], bool]) -> Kind:
    """Return `kind` narrowed to what `fits`."""

    def refine(value: Any) -> Any:
        if fits(value):
            return value
        raise Misfit

    def fault(value: Any) -> str:
        return kind.fault(value) or ("" if fits(value) else f": expected {expected}, got {name_of(value)}")

    return Kind(kind.types, refine, fault)


def _float() -> Kind:
    kind = _scalar("a finite number", float, int)

    def refine(value: float) -> float:
        if value - value == 0:
            return float(value)
        raise Misfit

    def fault(value: Any) -> str:
        return kind.fault(value) or ("" if value - value == 0 else ": expected a finite number")

    return Kind(kind.types, refine, fault)


def _float_or_nil() -> Kind:
    kind = _float()
    assert kind.refine is not None
    number = kind.refine

    def refine(value: float | None) -> float | None:
        return None if value is None else number(value)

    def fault(value: Any) -> str:
        return "" if value is None else kind.fault(value)

    return Kind((*kind.types, NoneType), refine, fault)


def _refined(kind: Kind, value: Any) -> Any:
    """Return the value of `kind` that `value` stands for, or raise `Misfit`."""
    if type(value) not in kind.types:
        raise Misfit
    return value if kind.refine is None else kind.refine(value)


def _sequence(kind: Kind) -> Kind:
    """A list of `kind` of any length."""
    if kind == _ANY:
        refine: Callable[[Any], Any] = tuple
    elif kind == _TEXT:

        def refine(value: list[Any]) -> tuple[Any, ...]:
            try:
                "".join(value)  # the fastest way to see that all are text
            except TypeError:
                raise Misfit from None
            return tuple(value)
    elif kind.types == (list,) and kind.refine is not None:
        part = kind.refine

        def refine(value: list[Any]) -> tuple[Any, ...]:
            return tuple([part(each) if type(each) is list else _misfit() for each in value])
    else:

        def refine(value: list[Any]) -> tuple[Any, ...]:
            return tuple([_refined(kind, each) for each in value])

    def fault(value: Any) -> str:
        if type(value) is not list:
            return f": expected a list, got {name_of(value)}"
        return next((f"[{at}]{wrong}" for at, each in enumerate(value) if (wrong := kind.fault(each))), "")

    return Kind((list,), refine, fault)


def _misfit() -> Any:
    raise Misfit


def _fixed(kinds: tuple[Kind, ...]) -> Kind:
    """A list of exactly these, in this order."""
    allowed = frozenset(product(*(kind.types for kind in kinds)))
    steps = tuple((at, kind.refine) for at, kind in enumerate(kinds) if kind.refine is not None)

    def refine(value: list[Any]) -> tuple[Any, ...]:
        if tuple(map(type, value)) not in allowed:
            raise Misfit
        made = value.copy()  # what came is kept for `fault`
        for at, step in steps:
            made[at] = step(made[at])
        return tuple(made)

    def fault(value: Any) -> str:
        if type(value) is not list or len(value) != len(kinds):
            got = f"one of {len(value)}" if type(value) is list else name_of(value)
            return f": expected a list of {len(kinds)}, got {got}"
        faults = (kind.fault(each) for kind, each in zip(kinds, value, strict=True))
        return next((f"[{at}]{wrong}" for at, wrong in enumerate(faults) if wrong), "")

    return Kind((list,), refine, fault)


def _zero_or_one() -> Kind:
    def refine(value: list[Any]) -> tuple[Any, ...]:
        return tuple(value) if len(value) <= 1 else _misfit()

    def fault(value: Any) -> str:
        if type(value) is list and len(value) <= 1:
            return ""
        got = f"one of {len(value)}" if type(value) is list else name_of(value)
        return f": expected a list of at most one value, got {got}"

    return Kind((list,), refine, fault)


_ANY: Final = _scalar("a value", *PLAIN_TYPES)
_TEXT: Final = _scalar("text", str)
_INT: Final = _checked(
    _scalar("an integer", int), "an integer from -2^63 to 2^63-1", lambda value: -(1 << 63) <= value < 1 << 63
)
_COUNT: Final = _checked(
    _scalar("an integer", int), "an integer from 0 to 2^63-1", lambda value: not value >> 63
)
_INT_OR_NIL: Final = _checked(
    _scalar("an integer or nil", int, NoneType),
    "an integer from -2^63 to 2^63-1",
    lambda value: value is None or -(1 << 63) <= value < 1 << 63,
)
_VERSION: Final = _checked(
    _scalar("an integer, text or nil", int, str, NoneType),
    "an integer from -2^63 to 2^63-1, text or nil",
    lambda value: type(value) is not int or -(1 << 63) <= value < 1 << 63,
)
_NAMED: Final[dict[Any, Kind]] = {
    Any: _ANY,
    str: _TEXT,
    bytes: _scalar("binary data", bytes),
    bool: _scalar("a boolean", bool),
    float: _float(),
    int: _INT,
    messages.Count: _COUNT,
    int | None: _INT_OR_NIL,
    int | str | None: _VERSION,
    float | None: _float_or_nil(),
    dict[str, Any]: _scalar("a map", dict),
    messages.Maybe: _zero_or_one(),
}


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


def reader(cls: type[Any]) -> Callable[[list[Any]], AnyMessage]:
    """Return the function that makes a `cls` of what msgpack made: a list, the code first.

    That function uses up the list, and raises `ProtocolError` with the first field that is missing or wrong.
    """
    hints = get_type_hints(cls, include_extras=True)
    names = ("code", *hints)
    kinds = (_COUNT, *map(_kind, hints.values()))
    size = len(kinds)
    allowed = frozenset(product(*(kind.types for kind in kinds)))
    is_request = cls in messages.REQUESTS
    first = 4 if is_request else 1
    steps = tuple(
        (at, kind.refine) for at, kind in enumerate(kinds) if at >= first and kind.refine is not None
    )
    new = tuple.__new__

    def read(raw: list[Any]) -> AnyMessage:
        if len(raw) > size:
            del raw[size:]
        # Of the three counts: negative if one is negative, and not 0 if one has more than 63 bits.
        if tuple(map(type, raw)) not in allowed or (is_request and (raw[1] | raw[2] | raw[3]) >> 63):
            raise explained(raw)
        try:
            for at, step in steps:
                raw[at] = step(raw[at])
        except Misfit:
            raise explained(raw) from None
        del raw[0]
        return cast(AnyMessage, new(cls, raw))

    def explained(raw: list[Any]) -> ProtocolError:
        if len(raw) < size:
            text = f"{cls.__name__}: {len(raw) - 1} fields, expected {size - 1}: no {names[len(raw)]}"
            return ProtocolError(text)
        # What is a tuple already was made by a step before the one that failed: that is right.
        faults = (
            "" if type(value) is tuple else kind.fault(value) for kind, value in zip(kinds, raw, strict=True)
        )
        return ProtocolError(
            next(f"{cls.__name__}.{name}{wrong}" for name, wrong in zip(names, faults, strict=True) if wrong)
        )

    return read
