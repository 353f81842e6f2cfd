"""Configuration as data: sections are frozen dataclasses, and each key says what it may be.

A section's fields are made with `key`; its annotations are the types. `build` makes a section of plain
values that came from somewhere (a file's line, the environment, a flag) and says in its errors from where,
which key, and what would be right. `describe` lists all keys, so that documents and samples can be checked.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

__all__ = ["ConfigError", "Key", "Setting", "build", "describe", "key", "section", "unfold"]

T = TypeVar("T")


class ConfigError(Exception):
    """A configuration that cannot be used. The message is one line: where, which key, what to do."""


class Setting(NamedTuple):
    """A plain value, and where it was given."""

    value: Any
    origin: str
    """`file:line`, the name of an environment variable, or the flag as it was typed."""
    text: str | None = None
    """As it was typed (environment, flag): what a key of text takes."""


class Key(NamedTuple):
    """One key of a configuration, as documents show it."""

    name: str
    """Dotted, from the top."""
    type: Any
    default: Any
    unit: str
    words: str


class _Facts(NamedTuple):
    """What `key` notes about a field."""

    words: str
    unit: str
    minimum: float
    maximum: float
    check: Callable[[Any], Any] | None


def key(
    default: Any,
    words: str,
    *,
    unit: str = "",
    minimum: float = -math.inf,
    maximum: float = math.inf,
    check: Callable[[Any], Any] | None = None,
) -> Any:
    """A field of a section.

    `words` say what it is for. `unit` names what a number counts; `minimum` and `maximum` bound it, both
    included. `check` takes the value and returns it, perhaps in another form, or raises `ConfigError` that
    says what is wrong with it.
    """
    facts = _Facts(words, unit, minimum, maximum, check)
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=default.copy, metadata={"facts": facts})
    return dataclasses.field(default=default, metadata={"facts": facts})


def section(cls: Callable[[], Any]) -> Any:
    """A field that is a section of its own, all defaults."""
    return dataclasses.field(default_factory=cls)


def describe(cls: type[Any], prefix: str = "") -> Iterator[Key]:
    """Every key below the section `cls`, in order."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            yield from describe(hints[field.name], name + ".")
        else:
            facts = field.metadata["facts"]
            yield Key(name, hints[field.name], _default(field), facts.unit, facts.words)


def build(cls: type[T], settings: Mapping[str, Any], prefix: str = "") -> T:
    """Return the section `cls` made of `settings`, a tree of dicts whose leaves are `Setting`s.

    What is not given has its default. Raises `ConfigError`.
    """
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for name, given in settings.items():
        if name not in hints:
            raise ConfigError(
                f"{_origin(given)}: unknown key {prefix}{name}; {_nearest(name, hints, prefix)}"
            )
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            if isinstance(given, Setting):
                given = unfold(given)
            if isinstance(given, Setting):
                if given.value is not None and given.value != {}:
                    shown = _show(given.value)
                    raise ConfigError(f"{given.origin}: {prefix}{name} is a section of keys, not {shown}")
                given = {}
            found[name] = build(typing.cast("type[Any]", hint), given, f"{prefix}{name}.")
        else:
            field = next(field for field in dataclasses.fields(typing.cast("Any", cls)) if field.name == name)
            found[name] = _convert(field.metadata["facts"], hint, given, prefix + name)
    return cls(**found)


def unfold(setting: Setting) -> Any:
    """A setting that is a map, as a tree of settings; another as it is."""
    if not isinstance(setting.value, dict) or not setting.value:
        return setting
    return {name: unfold(Setting(item, setting.origin)) for name, item in setting.value.items()}


# -- one value -------------------------------------------------------------------------------------


def _convert(facts: _Facts, hint: Any, given: Any, name: str) -> Any:
    origin = _origin(given)
    value = given.value if isinstance(given, Setting) else _plain(given)
    converted = _as(hint, value, given.text if isinstance(given, Setting) else None)
    if converted is _WRONG:
        raise ConfigError(f"{origin}: {name} must be {_expected(hint, facts)}, not {_show(value)}")
    number = isinstance(converted, (int, float)) and not isinstance(converted, bool)
    if number and not facts.minimum <= converted <= facts.maximum:
        raise ConfigError(f"{origin}: {name} must be {_expected(hint, facts)}, not {_show(value)}")
    if facts.check is not None and converted is not None:
        try:
            return facts.check(converted)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {name}: {error}") from None
    return converted


_WRONG: Any = object()


def _as(hint: Any, value: Any, text: str | None) -> Any:
    """`value`, typed as `text` perhaps, as the type `hint`, or `_WRONG`."""
    shape = get_origin(hint)
    if shape in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        options = [_as(option, value, text) for option in get_args(hint) if option is not type(None)]
        return next((option for option in options if option is not _WRONG), _WRONG)
    if shape is Literal:
        return value if value in get_args(hint) and isinstance(value, str) else _WRONG
    if shape is tuple:
        if text is not None and not isinstance(value, (list, dict)):
            value = [text]
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, (list, tuple)):
            return _WRONG
        items = [_as(get_args(hint)[0], item, None) for item in value]
        return _WRONG if _WRONG in items else tuple(items)
    if shape is not None:
        return value if isinstance(value, dict) else _WRONG
    if hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        return _WRONG
    if hint is str and text is not None:
        return text
    return value if type(value) is hint else _WRONG


def _expected(hint: Any, facts: _Facts) -> str:
    """What would be right, in words."""
    shape = get_origin(hint)
    if shape in (Union, types.UnionType):
        options = ["null" if option is type(None) else _expected(option, facts) for option in get_args(hint)]
        return " or ".join(options)
    if shape is Literal:
        return "one of " + ", ".join(get_args(hint))
    if shape is tuple:
        return "a text or a list of texts"
    if shape is not None:
        return "a map"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[hint]
    if facts.unit and hint in (int, float):
        words += f" of {facts.unit}"
    if hint in (int, float):
        if math.isfinite(facts.minimum) and math.isfinite(facts.maximum):
            words += f" from {facts.minimum:.10g} to {facts.maximum:.10g}"
        elif math.isfinite(facts.minimum):
            words += f", at least {facts.minimum:.10g}"
        elif math.isfinite(facts.maximum):
            words += f", at most {facts.maximum:.10g}"
    return words


def _show(value: Any) -> str:
    """`value` as a user would have written it, short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list" if len(repr(value)) > 60 else repr(value)
    return repr(value) if len(repr(value)) <= 60 else repr(value)[:60] + "..."


def _nearest(name: str, known: Mapping[str, Any], prefix: str) -> str:
    """A hint at what may have been meant."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return "known here: " + ", ".join(prefix + other for other in known)


def _origin(given: Any) -> str:
    """Where the first leaf of `given` came from."""
    while isinstance(given, dict):
        given = next(iter(given.values()), Setting(None, "config"))
    return str(given.origin)


def _plain(given: Any) -> Any:
    """A tree of settings as plain dicts and values."""
    return {name: _plain(item) for name, item in given.items()} if isinstance(given, dict) else given.value


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
