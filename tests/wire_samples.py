"""Messages for the tests of the codec: strategies made from the annotations, and one plain sample each."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from tega_zmq.wire import messages

INT64 = st.integers(-(2**63), 2**63 - 1)
COUNT = st.integers(0, 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
LEAF = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOAT | TEXT | st.binary(max_size=8)
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


def of_annotation(annotation: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a field with this annotation."""
    known = {
        Any: VALUE,
        str: TEXT,
        bytes: st.binary(max_size=20),
        bool: st.booleans(),
        float: FLOAT,
        int: INT64,
        messages.Count: COUNT,
        int | None: st.none() | INT64,
        int | str | None: st.none() | INT64 | TEXT,
        float | None: st.none() | FLOAT,
        dict[str, Any]: st.dictionaries(TEXT, VALUE, max_size=3),
        messages.Maybe: st.just(()) | st.tuples(VALUE),
    }
    if annotation in known:
        return known[annotation]
    assert get_origin(annotation) is tuple, annotation
    parts = get_args(annotation)
    if parts[-1] is Ellipsis:
        return st.lists(of_annotation(parts[0]), max_size=3).map(tuple)
    return st.tuples(*map(of_annotation, parts))


def of_message(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for messages of type `cls`."""
    hints = get_type_hints(cls, include_extras=True)
    return st.builds(cls, **{name: of_annotation(hint) for name, hint in hints.items()})


ANY_MESSAGE = st.one_of([of_message(cls) for cls in messages.CODES.values()])


def sample(cls: type[Any]) -> Any:
    """Return one fixed message of type `cls`, in which every field has content."""
    return cls(*(_filled(hint) for hint in get_type_hints(cls, include_extras=True).values()))


def _filled(annotation: Any) -> Any:
    known = {
        Any: {"mtu": 1500, "on": [True, None, 2.5]},
        str: "eth0 \u00fc",
        bytes: b"\x93\x16\x01\xc4",
        bool: True,
        float: 12.5,
        int: -7,
        messages.Count: 77,
        int | None: 3,
        int | str | None: "golden",
        float | None: 1.5,
        dict[str, Any]: {"speed": 100},
        messages.Maybe: ({"mtu": 1500},),
    }
    if annotation in known:
        return known[annotation]
    parts = get_args(annotation)
    if parts[-1] is Ellipsis:
        return (_filled(parts[0]), _filled(parts[0]))
    return tuple(map(_filled, parts))
