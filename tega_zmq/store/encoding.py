"""Records and updates as plain values, for log and wire.

A record is `[kind, field, ...]`, an update `[root, epoch, before, after, changes, time, tega_id,
message, backto]` and, if there are any, `[oids, ...]` for the paths in `named`; a change `[oids]` (gone),
`[oids, value]` or `[oids, value, session]`, where `oids` is the path below the root. What comes back in is
checked strictly: it may come from a peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, NoReturn

from tega_zmq import values
from tega_zmq.errors import InvalidPath, InvalidValue, ProtocolError
from tega_zmq.paths import MAX_DEPTH, MAX_OID, SCHEMAS, Path, check_oid, format_path
from tega_zmq.store.model import (
    ABSENT,
    Change,
    Cleared,
    Commit,
    Ended,
    NewEpochs,
    Opened,
    Owned,
    Record,
    Replicated,
    ResetEnd,
    ResetPart,
    Tagged,
    Update,
    WentOn,
)

__all__ = [
    "MAX_NAME",
    "check_entries",
    "check_marks",
    "record_from_plain",
    "record_to_plain",
    "update_from_plain",
    "update_to_plain",
]

MAX_NAME: Final = 255
"""Longest name of an epoch, session, tega_id or owner, in characters."""

MAX_MESSAGE: Final = 1000
"""Longest message of a commit, in characters."""

MAX_NODE_DEPTH: Final = MAX_DEPTH + values.MAX_CONTAINERS
"""Most oids in the path of a node: a value may reach below the longest path that can be written."""

_MAX_VERSION: Final = 2**63 - 1

Plain = list[Any]


def update_to_plain(update: Update) -> Plain:
    """Return `update` as a list of plain values."""
    root, epoch, before, after, changes, time, tega_id, message, backto, named = update
    told: list[Any] = []
    for path, present, value, session in changes:
        if session:
            told.append([path[1:], value, session])
        elif present:
            told.append([path[1:], value])
        else:
            told.append([path[1:]])
    made = [root, epoch, before, after, told, time, tega_id, message, backto]
    if named:
        made.append([path[1:] for path in named])
    return made


def update_from_plain(plain: Any) -> Update:
    """Return the update that `update_to_plain` took apart. Raises `ProtocolError` with what is wrong."""
    if (type(plain) is not list and type(plain) is not tuple) or not 9 <= len(plain) <= 10:
        _wrong("an update must be a list of 9 or 10 fields")
    fields = plain
    root = _root(fields[0])
    epoch = _name(fields[1], "epoch")
    before = _number(fields[2], "before", ABSENT)
    after = _number(fields[3], "after", 0)
    changes = fields[4]
    if type(changes) is not list and type(changes) is not tuple:
        _wrong(f"changes of an update: {type(changes).__name__}, not a list")
    if after != before + 1 and (changes or after != before):
        _wrong(f"an update of {root} from version {before} to {after}; a version follows the one before it")
    made = []
    for change in changes:
        if (type(change) is not list and type(change) is not tuple) or not 1 <= len(change) <= 3:
            _wrong(f"a change of {root} must be a list of 1 to 3 fields")
        path = _path(root, change[0])
        if len(change) == 1:
            made.append(Change(path, False))
        else:
            value = change[1]
            _value(path, value)
            made.append(Change(path, True, value, _name(change[2], "session", 1) if len(change) == 3 else ""))
    backto = fields[8]
    return Update(
        root,
        epoch,
        before,
        after,
        tuple(made),
        _time(fields[5]),
        _name(fields[6], "tega_id"),
        _text(fields[7], "message", MAX_MESSAGE),
        None if backto is None else _number(backto, "backto", 0),
        tuple([_path(root, oids) for oids in _items(fields[9], "named")]) if len(fields) == 10 else (),
    )


def record_to_plain(record: Record) -> Plain:
    """Return `record` as a list of plain values."""
    if type(record) is Commit:
        revision, updates, session, request, ack = record
        if len(updates) == 1:
            return [1, revision, [update_to_plain(updates[0])], session, request, ack]
        return [1, revision, [update_to_plain(update) for update in updates], session, request, ack]
    if type(record) is Replicated:
        return [2, update_to_plain(record[0])]
    return [_KINDS[type(record)], *record]


def record_from_plain(plain: Any) -> Record:
    """Return the record that `record_to_plain` took apart. Raises `ProtocolError` with what is wrong."""
    if (type(plain) is not list and type(plain) is not tuple) or not plain or type(plain[0]) is not int:
        _wrong("a record must be a list that begins with its kind")
    reader = _READERS.get(plain[0])
    if reader is None:
        _wrong(f"there is no kind {plain[0]} of records")
    return reader(plain[1:])


def check_entries(root: str, entries: Any) -> tuple[tuple[Path, int, bool, Any], ...]:
    """Return the entries of a part of a tree if they can be nodes of `root`. Raises `ProtocolError`."""
    made = []
    for entry in _items(entries, "entries"):
        path, version, container, value = _fields(entry, 4, "an entry")
        path = _whole_path(root, path)
        if type(container) is not bool:
            _wrong(f"{format_path(path)}: an entry must say whether it is a container")
        if container:
            if value is not None:
                _wrong(f"{format_path(path)}: a container with the value of a leaf")
        elif type(value) is dict:
            _wrong(f"{format_path(path)}: a leaf cannot be a dict")
        else:
            _value(path, value)
        made.append((path, _number(version, "version of an entry", 0), container, value))
    return tuple(made)


def check_marks(root: str, marks: Any) -> tuple[tuple[Path, str], ...]:
    """Return the ephemeral nodes named in the last part of a tree. Raises `ProtocolError`."""
    made = []
    for mark in _items(marks, "ephemerals"):
        path, session = _fields(mark, 2, "an ephemeral node")
        made.append((_whole_path(root, path), _name(session, "session")))
    return tuple(made)


# -- fields ----------------------------------------------------------------------------------------


def _wrong(message: str) -> NoReturn:
    raise ProtocolError(message)


def _fields(plain: Any, count: int, what: str) -> Any:
    if (type(plain) is not list and type(plain) is not tuple) or len(plain) != count:
        _wrong(f"{what} must be a list of {count} fields")
    return plain


def _items(plain: Any, what: str) -> Iterable[Any]:
    if type(plain) is not list and type(plain) is not tuple:
        _wrong(f"{what}: {type(plain).__name__}, not a list")
    return plain


def _text(text: Any, what: str, most: int, least: int = 0) -> str:
    if type(text) is not str:
        _wrong(f"{what}: {type(text).__name__}, not a string")
    if not least <= len(text) <= most:
        _wrong(f"{what}: {len(text)} characters; {least} to {most} are allowed")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            _wrong(f"{what}: {text[:64]!a} is no valid Unicode")
    return text


def _name(text: Any, what: str, least: int = 0) -> str:
    # Tells the usual case apart in one line: these fields are in every update.
    if type(text) is str and least <= len(text) <= MAX_NAME and text.isascii():
        return text
    return _text(text, what, MAX_NAME, least)


def _number(number: Any, what: str, least: int) -> int:
    if type(number) is not int or not least <= number <= _MAX_VERSION:
        _wrong(f"{what}: {ascii(number)[:64]} is no integer of {least} or more")
    return number


def _flag(flag: Any, what: str) -> bool:
    if type(flag) is not bool:
        _wrong(f"{what}: {type(flag).__name__}, not a bool")
    return flag


def _time(time: Any) -> float:
    if type(time) is not float or time - time != 0.0:
        _wrong(f"time: {ascii(time)[:64]} is no finite float")
    return time


def _root(name: Any) -> str:
    return _checked((name,))[0] if type(name) is str else _wrong("the name of a root must be a string")


def _path(root: str, oids: Any) -> Path:
    if type(oids) is not list and type(oids) is not tuple:
        _wrong(f"a path of {root} must be a list of oids")
    try:
        return _checked((root, *oids))
    except TypeError:
        # Not hashable: lists or dicts among the oids.
        _wrong(f"a path of {root}: an oid must be a string")


def _whole_path(root: str, oids: Any) -> Path:
    if (type(oids) is not list and type(oids) is not tuple) or not oids or oids[0] != root:
        _wrong(f"{ascii(oids)[:64]} is no path of {root}")
    return _path(root, oids[1:])


@lru_cache(maxsize=4096)
def _checked(path: Path) -> Path:
    if len(path) > MAX_NODE_DEPTH:
        _wrong(f"a path of {len(path)} oids in {path[0][:64]}; at most {MAX_NODE_DEPTH} are allowed")
    for oid in path[1:] if path and path[0] == SCHEMAS else path:
        # Only what is out of the ordinary is looked at closely: trees come through here node by node.
        if type(oid) is not str or not oid or oid[0] == "_" or len(oid) > MAX_OID or not oid.isascii():
            try:
                check_oid(oid, ".".join([each if type(each) is str else "?" for each in path]))
            except InvalidPath as error:
                raise ProtocolError(error.message) from None
    return path


def _value(path: Path, value: Any) -> None:
    try:
        values.check(value)
        if len(path) == 1:
            values.check_root(value)
    except (InvalidValue, InvalidPath) as error:
        raise ProtocolError(f"{format_path(path)}: {error.message}") from None


# -- one reader for each kind ----------------------------------------------------------------------


def _commit(plain: Any) -> Commit:
    revision, updates, session, request, ack = _fields(plain, 5, "a commit")
    return Commit(
        _number(revision, "revision", 1),
        tuple([update_from_plain(update) for update in _items(updates, "updates")]),
        _name(session, "session"),
        _number(request, "request", 0),
        _number(ack, "ack", 0),
    )


def _replicated(plain: Any) -> Replicated:
    return Replicated(update_from_plain(_fields(plain, 1, "a replicated update")[0]))


def _reset_part(plain: Any) -> ResetPart:
    root, first, entries = _fields(plain, 3, "a part of a tree")
    return ResetPart(_root(root), _flag(first, "first"), check_entries(root, entries))


def _reset_end(plain: Any) -> ResetEnd:
    root, epoch, version, present, marks, time, tega_id, message = _fields(plain, 8, "the end of a tree")
    return ResetEnd(
        _root(root),
        _name(epoch, "epoch"),
        _number(version, "version", ABSENT),
        _flag(present, "present"),
        check_marks(root, marks),
        _time(time),
        _name(tega_id, "tega_id"),
        _text(message, "message", MAX_MESSAGE),
    )


def _owned(plain: Any) -> Owned:
    root, owner, epoch = _fields(plain, 3, "an ownership")
    return Owned(_root(root), _name(owner, "owner"), _name(epoch, "epoch"))


def _new_epochs(plain: Any) -> NewEpochs:
    pairs = []
    for pair in _items(_fields(plain, 1, "new epochs")[0], "epochs"):
        root, epoch = _fields(pair, 2, "a new epoch")
        pairs.append((_root(root), _name(epoch, "epoch")))
    return NewEpochs(tuple(pairs))


def _went_on(plain: Any) -> WentOn:
    root, epoch, version = _fields(plain, 3, "a record of a root that went on")
    return WentOn(_root(root), _name(epoch, "epoch"), _number(version, "version", 0))


def _cleared(plain: Any) -> Cleared:
    _fields(plain, 0, "a clearing")
    return Cleared()


def _opened(plain: Any) -> Opened:
    session, tega_id, token, via = _fields(plain, 4, "an opened session")
    return Opened(
        _name(session, "session", 1), _name(tega_id, "tega_id"), _name(token, "token"), _name(via, "via")
    )


def _ended(plain: Any) -> Ended:
    return Ended(_name(_fields(plain, 1, "an ended session")[0], "session", 1))


def _tagged(plain: Any) -> Tagged:
    root, name, version = _fields(plain, 3, "a tag")
    return Tagged(_root(root), _text(name, "tag", 64, 1), _number(version, "version of a tag", ABSENT))


_READERS: Final[dict[int, Callable[[Any], Record]]] = {
    1: _commit,
    2: _replicated,
    3: _reset_part,
    4: _reset_end,
    5: _owned,
    6: _new_epochs,
    7: _cleared,
    8: _opened,
    9: _ended,
    10: _went_on,
    11: _tagged,
}

_KINDS: Final[dict[type[Any], int]] = {
    ResetPart: 3,
    ResetEnd: 4,
    Owned: 5,
    NewEpochs: 6,
    Cleared: 7,
    Opened: 8,
    Ended: 9,
    WentOn: 10,
    Tagged: 11,
}
