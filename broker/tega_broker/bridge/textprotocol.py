"""The text protocol of the first tega, as values: `parse` what a client says, and write what it is told.

One message is a line of words, then an optional line of JSON. It has no quoting: a path or a regex may hold
spaces, since the words behind it are known. A line cannot hold all that a name may (`fits`), and what it
cannot hold is not said, so that nobody can forge a message by a name. `ERROR` is new: what was refused, and
why; clients of the first tega pass over it.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple, TypeAlias

from tega_broker.bridge.answers import BadRequest, dump
from tega_broker.bridge.reading import parse_json
from tega_zmq.client.results import Change
from tega_zmq.errors import InvalidValue

__all__ = [
    "MAX_LINE",
    "Heard",
    "Publish",
    "Response",
    "Session",
    "Subscribe",
    "TextError",
    "Unsubscribe",
    "acknowledge",
    "entry",
    "error",
    "fits",
    "message",
    "notify",
    "parse",
    "request",
]

MAX_LINE: Final = 2048
"""Longest first line, in characters."""

_MAX_NUMBER: Final = 2**53
_SCOPES: Final = ("local", "global")
_FLAGS: Final = {"True": True, "False": False}
_TEGA_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGITS: Final = re.compile(r"[0-9]{1,16}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What ends a line, for one client or another, and what no terminal should be shown."""
_SPACE: Final = re.compile(r"\s")


class TextError(Exception):
    """A message that is none of the protocol; the text says why."""


class Session(NamedTuple):
    """`SESSION tega_id scope`: who this is. The first message."""

    tega_id: str
    scope: str


class Subscribe(NamedTuple):
    """`SUBSCRIBE path scope regex_flag`: to the changes at a path, and to the channel of that name."""

    path: str
    scope: str
    regex: bool


class Unsubscribe(NamedTuple):
    """`UNSUBSCRIBE path regex_flag`; alone: from everything."""

    path: str
    """Empty: everything."""
    regex: bool


class Publish(NamedTuple):
    """`PUBLISH channel`, and `{"message": ...}`."""

    channel: str
    message: Any


class Response(NamedTuple):
    """`RESPONSE seq_no RPC tega_id`, and `{"result": ...}`: what a call led to."""

    number: int
    result: Any
    error: str
    """Why there is no result; empty: there is."""


Heard: TypeAlias = Session | Subscribe | Unsubscribe | Publish | Response
"""What a client may say."""


def parse(text: str) -> Heard:
    """Return what `text` says. Raises `TextError`."""
    line, _, body = text.partition("\n")
    line = line.removesuffix("\r")
    if len(line) > MAX_LINE:
        raise TextError(f"a line of {len(line)} characters; at most {MAX_LINE} are allowed")
    command, _, rest = line.partition(" ")
    match command:
        case "SESSION":
            return _session(rest)
        case "SUBSCRIBE":
            return _subscribe(rest)
        case "UNSUBSCRIBE":
            path, regex = _flag(rest)
            return Unsubscribe(path, regex)
        case "PUBLISH":
            if not rest:
                raise TextError("PUBLISH lacks its channel")
            return Publish(rest, _field(command, body, "message"))
        case "RESPONSE":
            return _response(rest, body)
    raise TextError(f"{command[:40]!a} is no command; SESSION, SUBSCRIBE, UNSUBSCRIBE, PUBLISH, RESPONSE are")


def _session(rest: str) -> Session:
    tega_id, _, scope = rest.partition(" ")
    if not _TEGA_ID.fullmatch(tega_id):
        raise TextError(f"SESSION {tega_id[:80]!a}: 1 to 64 of the characters A-Z a-z 0-9 _ - are allowed")
    return Session(tega_id, _scope(scope or "local"))


def _scope(scope: str) -> str:
    if scope not in _SCOPES:
        raise TextError(f"{scope[:40]!a} is no scope; local and global are")
    return scope


def _flag(rest: str) -> tuple[str, bool]:
    """Take the regex flag, which may be missing, off the end."""
    path, _, word = rest.rpartition(" ")
    return (path, _FLAGS[word]) if path and word in _FLAGS else (rest, False)


def _subscribe(rest: str) -> Subscribe:
    rest, regex = _flag(rest)
    path, _, scope = rest.rpartition(" ")
    if not path:
        raise TextError("expected SUBSCRIBE path scope regex_flag")
    return Subscribe(path, _scope(scope), regex)


def _response(rest: str, body: str) -> Response:
    words = rest.split(" ")
    if len(words) < 2 or not _DIGITS.fullmatch(words[0]) or int(words[0]) > _MAX_NUMBER or words[1] != "RPC":
        raise TextError("expected RESPONSE seq_no RPC tega_id")
    number = int(words[0])
    value = _json("RESPONSE", body)
    if isinstance(value, dict) and "result" in value:
        return Response(number, value["result"], "")
    said = value.get("error") if isinstance(value, dict) else None
    return Response(number, None, said if isinstance(said, str) and said else "the handler gave no result")


def _field(command: str, body: str, name: str) -> Any:
    value = _json(command, body)
    if not isinstance(value, dict) or name not in value:
        raise TextError(f'the second line of {command} is an object: {{"{name}": ...}}')
    return value[name]


def _json(command: str, body: str) -> Any:
    try:
        return parse_json(body.encode("utf-8", "surrogatepass"))
    except (BadRequest, InvalidValue) as error:
        raise TextError(f"the second line of {command}: {error.message}"[:500]) from None


# -- what a client is told -------------------------------------------------------------------------


def _text(line: str, value: Any) -> bytes:
    return line.encode() + b"\n" + dump(value)


def fits(name: str, *, last: bool = False) -> bool:
    """Whether a line can hold `name` as one word; `last`: as its last one, which may have spaces."""
    return not _CONTROL.search(name) and (last or not _SPACE.search(name))


def acknowledge(server: str) -> bytes:
    """Return the answer to SESSION; `server` is the broker's tega_id."""
    return f"SESSIONACK {server}".encode()


def entry(change: Change) -> dict[str, Any]:
    """Return one change as an entry of NOTIFY: a delete with the old value, a rollback with `backto`.

    What a rollback takes away has the old value too, and says that it was deleted.
    """
    if change.backto is not None:
        ope = "ROLLBACK"
    else:
        ope = "DELETE" if change.deleted else "PUT"
    made = {
        "ope": ope,
        "path": change.path,
        "instance": change.old if change.deleted else change.new,
        "tega_id": change.tega_id,
    }
    if change.backto is not None:
        made["backto"] = change.backto
        if change.deleted:
            made["deleted"] = True
    return made


def notify(entries: list[dict[str, Any]]) -> bytes:
    """Return the changes of one commit."""
    return _text("NOTIFY", entries)


def message(channel: str, tega_id: str, value: Any) -> bytes:
    """Return a message on a channel, published by `tega_id`."""
    return _text(f"MESSAGE {channel} {tega_id}", {"message": value})


def request(number: int, caller: str, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return a call of the handler at `path`, by `caller`."""
    return _text(f"REQUEST {number} RPC {caller} {path}", {"args": list(args), "kwargs": kwargs})


def error(command: str, name: str, words: str) -> bytes:
    """Return that what the client asked by `command` was refused: the error's name, and why."""
    return _text(f"ERROR {command}", {"error": name, "message": words})
