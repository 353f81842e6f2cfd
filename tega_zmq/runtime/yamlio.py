"""Documents of people: YAML and JSON, read strictly, written so that they read back as the same value.

What is read is data and nothing else: no tags, no duplicate keys, one document, UTF-8. The scalars are
those of YAML 1.2 rather than 1.1, since interface settings are full of words that 1.1 takes for something
else:

=================  ===========================================================================
`true`, `false`    booleans; `on`, `off`, `yes`, `no` stay text
`~`, `null`, ``    null
`12`, `0x1f`       integers; `0777` and `1_000` stay text
`1.5`, `1e3`       floats; also `.inf` and `.nan`, which a node refuses to store
all else           text: dates, times like `22:22`, addresses, versions with two dots
=================  ===========================================================================

A key is always text, as it is written: `100:` is the key "100". An anchor may be used again by an alias,
within `MAX_ALIASED`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any, NamedTuple

import yaml

from tega_zmq.errors import InvalidValue

__all__ = [
    "MAX_ALIASED",
    "MAX_DOCUMENT",
    "MAX_NESTING",
    "Where",
    "dump",
    "dump_json",
    "load",
    "load_file",
    "load_json",
    "load_with_lines",
    "read_file",
    "save_file",
]

MAX_DOCUMENT = 256 * 1024 * 1024
"""Longest document that is read, in bytes."""

MAX_NESTING = 128
"""Most containers inside one another; a node allows fewer."""

MAX_ALIASED = 100_000
"""Most nodes that aliases may repeat in one document."""

Where = tuple[str | int, ...]
"""A place in a document: keys and list positions, from the top down."""

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_OCTAL = re.compile(r"0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
_NAN = re.compile(r"\.(?:nan|NaN|NAN)")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(text: str | bytes, name: str = "value") -> Any:
    """Return the value of a YAML document (every JSON text is one); an empty document is None.

    `name` is what errors call it: a file's name, or what the text is. Raises `InvalidValue` that names the
    line and what is wrong there.
    """
    return _Builder(name, None).build(_text(text, name))


def load_with_lines(text: str | bytes, name: str) -> tuple[Any, dict[Where, int]]:
    """As `load`, with the line, from 1, of each place: where its key, or it itself in a list, begins."""
    lines: dict[Where, int] = {}
    return _Builder(name, lines).build(_text(text, name)), lines


def load_json(text: str | bytes, name: str = "value") -> Any:
    """Return the value of a JSON text. Raises `InvalidValue`, on duplicate keys too."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                raise InvalidValue(f"{name}: the key {key!a} stands twice in one map")
            found[key] = value
        return found

    try:
        return json.loads(_text(text, name), object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise InvalidValue(f"{name}:{error.lineno}: no JSON: {error.msg}") from None
    except RecursionError:
        raise InvalidValue(f"{name}: too many containers inside one another") from None
    except ValueError as error:
        raise InvalidValue(f"{name}: {error}") from None


def read_file(path: str | os.PathLike[str], limit: int = MAX_DOCUMENT) -> bytes:
    """Return what is in the file. Raises `InvalidValue` if it cannot be read or is over `limit` bytes."""
    try:
        with File(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise InvalidValue(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from None
    if len(data) > limit:
        raise InvalidValue(f"{os.fspath(path)}: longer than {limit} bytes")
    return data


def load_file(path: str | os.PathLike[str]) -> Any:
    """Return the value in a file, JSON if its name ends in `.json`, else YAML. Raises `InvalidValue`."""
    name = os.fspath(path)
    data = read_file(path)
    return load_json(data, name) if name.endswith(".json") else load(data, name)


def save_file(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` into the file, JSON if its name ends in `.json`, else YAML.

    The file is replaced as a whole or not at all; a link stays one, and leads to it. What is no file, a
    device or a pipe, is written to. Raises `OSError`.
    """
    name = os.fspath(path)
    text = dump_json(value) if name.endswith(".json") else dump(value)
    if os.path.exists(name) and not os.path.isfile(name):
        with open(name, "w", encoding="utf-8") as special:
            special.write(text)
        return
    if name.endswith("/"):  # which `realpath` takes off
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    name = os.path.realpath(name)
    folder = os.path.dirname(name) or "."
    import tempfile  # here, since a device that never exports does without what it loads

    handle, temporary = tempfile.mkstemp(prefix=".tega-", dir=folder)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(name))
        os.replace(temporary, name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def dump(value: Any, *, escape: bool = False) -> str:
    """Return `value` as YAML text, keys sorted; `load` gives an equal value back.

    Text that an older YAML reader would take for a boolean, date or number is quoted too. With `escape` the
    text is ASCII.
    """
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=False,
        allow_unicode=not escape,
        sort_keys=True,
        width=1 << 30,
    )
    # The mark that ends the document of a bare scalar. In a block such a line would be indented.
    return text[:-4] if text.endswith("\n...\n") else text


def dump_json(value: Any, *, escape: bool = False) -> str:
    """Return `value` as indented JSON text with sorted keys; with `escape` in ASCII."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=escape) + "\n"


# -- reading ---------------------------------------------------------------------------------------


class _Open(NamedTuple):
    """A container whose end has not been seen yet."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    keys: list[str]
    """Of a map: the key that waits for its value, or nothing."""
    before: int
    """How many nodes came before it."""


class _Builder:
    """Makes one value from the events of a YAML parser, without recursion."""

    def __init__(self, name: str, lines: dict[Where, int] | None) -> None:
        self.name = name
        self.lines = lines
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.count = 0
        self.aliased = 0
        self.documents = 0
        self.result: Any = None

    def build(self, text: str) -> Any:
        parser = _Loader(text)
        try:
            while parser.check_event():
                self.event(parser.get_event())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if error.problem and "nesting depth" in error.problem:  # newer libyaml has a bound of its own
                raise self.too_deep(mark.line + 1 if mark else 1) from None
            what = ", ".join(part for part in (error.context, error.problem) if part)
            raise self.error(mark.line + 1 if mark else 1, f"no YAML: {what}") from None
        except yaml.YAMLError as error:
            raise InvalidValue(f"{self.name}: no YAML: {str(error).splitlines()[0]}") from None
        finally:
            parser.dispose()
        return self.result

    def error(self, line: int, what: str) -> InvalidValue:
        return InvalidValue(f"{self.name}:{line}: {what}")

    def too_deep(self, line: int) -> InvalidValue:
        return self.error(line, f"more than {MAX_NESTING} containers inside one another")

    def event(self, event: Any) -> None:
        line = event.start_mark.line + 1
        match event:
            case yaml.ScalarEvent():
                self.scalar(event, line)
            case yaml.MappingStartEvent():
                self.begin({}, event, line)
            case yaml.SequenceStartEvent():
                self.begin([], event, line)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                top = self.stack.pop()
                if top.anchor is not None:
                    self.anchors[top.anchor] = top.value, self.count - top.before
                self.done()
            case yaml.AliasEvent():
                self.alias(event.anchor, line)
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise self.error(line, "a second document begins; one is read")
            case _:
                pass

    def scalar(self, event: Any, line: int) -> None:
        self.check_tag(event.tag, line)
        if self.wants_key():
            self.key(event.value, line)
            return
        plain = event.implicit[0] and not event.style
        value = self.plain(event.value, line) if plain else event.value
        self.count += 1
        if event.anchor is not None:
            self.anchors[event.anchor] = value, 1
        self.add(value, line)
        self.done()

    def begin(self, value: dict[str, Any] | list[Any], event: Any, line: int) -> None:
        self.check_tag(event.tag, line)
        if self.wants_key():
            raise self.error(line, "a key must be text")
        if len(self.stack) >= MAX_NESTING:
            raise self.too_deep(line)
        self.add(value, line)
        self.stack.append(_Open(value, event.anchor, [], self.count))
        self.count += 1

    def alias(self, anchor: str | None, line: int) -> None:
        if anchor is None or anchor not in self.anchors:
            within = any(level.anchor == anchor for level in self.stack)
            why = "stands within what it repeats" if within else "repeats nothing that was marked before"
            raise self.error(line, f"the alias *{anchor} {why}")
        value, size = self.anchors[anchor]
        self.aliased += size
        if self.aliased > MAX_ALIASED:
            raise self.error(line, f"aliases repeat more than {MAX_ALIASED} nodes")
        self.count += size
        if self.wants_key():
            raise self.error(line, "a key must be text, not an alias")
        self.add(value, line)
        self.done()

    def check_tag(self, tag: str | None, line: int) -> None:
        if tag is not None:
            raise self.error(line, f"the tag {tag} is not allowed here; write the plain value")

    def wants_key(self) -> bool:
        return bool(self.stack) and type(self.stack[-1].value) is dict and not self.stack[-1].keys

    def key(self, key: str, line: int) -> None:
        top = self.stack[-1]
        if key in top.value:
            raise self.error(line, f"the key {key!a} stands twice in one map")
        top.keys.append(key)
        if self.lines is not None:
            self.lines[tuple(self.place())] = line

    def add(self, value: Any, line: int) -> None:
        if self.stack and type(self.stack[-1].value) is dict:
            self.stack[-1].value[self.stack[-1].keys[0]] = value
            return
        if not self.stack:
            self.result = value
        else:
            self.stack[-1].value.append(value)  # type: ignore[union-attr]
        if self.lines is not None:
            self.lines[tuple(self.place())] = line

    def done(self) -> None:
        """A value is complete: in a map, the next thing is a key."""
        if self.stack:
            self.stack[-1].keys.clear()

    def place(self) -> Iterator[str | int]:
        for level in self.stack:
            yield level.keys[0] if type(level.value) is dict else len(level.value) - 1

    def plain(self, text: str, line: int) -> Any:
        """What an unquoted scalar stands for."""
        if _NULL.fullmatch(text):
            return None
        if text[0] not in "-+.0123456789tTfF":
            return text
        if _TRUE.fullmatch(text):
            return True
        if _FALSE.fullmatch(text):
            return False
        try:
            if _DECIMAL.fullmatch(text):
                return int(text)
            if _HEX.fullmatch(text):
                return int(text, 16)
            if _OCTAL.fullmatch(text):
                return int(text, 8)
        except ValueError:  # Python refuses integers of thousands of digits
            raise self.error(line, f"an integer of {len(text)} digits") from None
        if _FLOAT.fullmatch(text):
            return float(text)
        if _INFINITE.fullmatch(text):
            return float("-inf") if text[0] == "-" else float("inf")
        if _NAN.fullmatch(text):
            return float("nan")
        return text


def _text(text: str | bytes, name: str) -> str:
    """Return the text, decoded; raise `InvalidValue` if it is not UTF-8."""
    if isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            line = text.count("\n", 0, error.start) + 1
            raise InvalidValue(f"{name}:{line}: a lone surrogate is no Unicode text") from None
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise InvalidValue(f"{name}:{line}: not UTF-8 at byte {error.start}") from None


# -- writing ---------------------------------------------------------------------------------------


class _Dumper(_BaseDumper):  # type: ignore[misc]
    """Writes every value out where it stands, and long texts as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class calls it with the value
        return True


def _represent_text(dumper: Any, text: str) -> Any:
    lines = text.split("\n")
    block = (
        len(lines) > 1
        and not text[0].isspace()
        and all(line.isprintable() and not line.endswith(" ") for line in lines)
    )
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)


def _whole(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """`pattern` for one who only looks at how a text begins."""
    return re.compile(f"(?:{pattern.pattern})\\Z", pattern.flags)


# What this module's reader takes for a number, besides what YAML 1.1 does: texts like that are quoted.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _whole(_FLOAT), list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _whole(_OCTAL), ["0"])


def _mode(name: str) -> int:
    """Permissions for the file: those it has, else those that a new file gets."""
    try:
        return os.stat(name).st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
