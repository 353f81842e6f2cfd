"""Backups: every version of every root that a broker owns, in one file, from a running broker and back.

The file is JSON lines, compressed with gzip (RFC 1952, whose checksum shows truncation and damage):

    {"tega_backup": 1, "tega_id": ..., "time": ...}
    {"root": NAME, "version": V}            or, if older versions are not kept any more:
    {"root": NAME, "version": V, "tree": ..., "time": ..., "tega_id": ..., "message": ...}
    {"commit": [root, epoch, before, after, changes, time, tega_id, message, backto]}     one a version
    {"tags": {TAG: VERSION}, "ephemeral": [PATH, ...]}
    ... the next root ...
    {"end": LINES BEFORE}

Without `tree`, commits begin after version V, which is -1; with it, the tree is that of version V (absent:
null), and commits follow it. `zcat FILE` and any JSON reader read it. All versions belong to one moment: that
at which the backup began.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from tega_zmq.errors import Compacted, InvalidValue, StorageError, TooLarge
from tega_zmq.wire import MAX_FRAME, decode_value, encode, messages

if TYPE_CHECKING:
    from tega_zmq.client.blocking import Client

__all__ = ["FORMAT", "Summary", "backup", "restore"]

FORMAT: Final = 1
_PIECE: Final = 500
_ABSENT: Final = -1


class Summary(NamedTuple):
    """What a backup holds."""

    roots: int
    commits: int
    """Versions, beside one that each root may begin with."""
    tags: int


def _silent(_: str) -> None:
    return


# -- from a broker to a file -----------------------------------------------------------------------


def backup(client: Client, file: str, *, progress: Callable[[str], None] = _silent) -> Summary:
    """Write all versions of all roots that the broker owns to `file`, which is replaced when it is whole.

    What is no file, a device or a pipe, is written to. Operational roots are not in it: their agents have
    them. Raises `StorageError` if the file cannot be written, `Compacted` if versions were dropped meanwhile,
    `TooLarge` for a commit, or a first tree, of more than 64 MiB as msgpack.
    """
    try:
        if os.path.exists(file) and not os.path.isfile(file):
            with open(file, "wb") as special:
                return _pack(client, special, progress)
        return _replace(client, os.path.realpath(file), progress)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"{file}: cannot be written: {reason}", reason=reason, outcome="none") from None


def _replace(client: Client, file: str, progress: Callable[[str], None]) -> Summary:
    temporary = f"{file}.{os.getpid()}.tmp"
    try:
        with open(temporary, "xb") as raw:
            summary = _pack(client, raw, progress)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, file)
    except BaseException:
        _remove(temporary)
        raise
    _sync_folder(os.path.dirname(file))
    return summary


def _pack(client: Client, raw: BinaryIO, progress: Callable[[str], None]) -> Summary:
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as out:
        return _write(client, out, progress)


def _write(client: Client, out: gzip.GzipFile, progress: Callable[[str], None]) -> Summary:
    lines = commits = tags = 0

    def put(line: dict[str, Any]) -> None:
        nonlocal lines
        out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        lines += 1

    owner = client.inspect("status")["tega_id"]
    roots = [each for each in client.inspect("old") if each["owner"] == owner]
    names = client.tags()
    put({"tega_backup": FORMAT, "tega_id": owner, "time": time.time()})
    for count, root in enumerate(roots):
        name, last = root["root"], root["versions"][1]
        at = _begin(client, name, put)
        while at < last:
            progress(f"backup: root {count + 1} of {len(roots)}: {name}, version {at + 1} of {last}")
            for commit in _commits(client, name, at, last):
                put({"commit": commit})
                at, commits = commit[3], commits + 1
        kept = {tag: version for tag, version in names.get(name, {}).items() if version <= last}
        tags += len(kept)
        put({"tags": kept, "ephemeral": _of_version(client, name, last, "ephemeral")})
    put({"end": lines})
    progress("")
    return Summary(len(roots), commits, tags)


def _begin(client: Client, name: str, put: Callable[[dict[str, Any]], None]) -> int:
    """Write how the root begins; return the version after which commits follow."""
    try:
        _commits(client, name, _ABSENT, 0)
    except Compacted:
        pass
    else:
        put({"root": name, "version": _ABSENT})
        return _ABSENT
    version, tree = _oldest(client, name, 0)
    known = client.log((name,), 1, before=version + 1)
    if known and known[0].version == version:
        stamp = (known[0].time, known[0].tega_id, known[0].message)
    else:
        stamp = (0.0, "", "")
    head = {"root": name, "version": version, "tree": tree}
    put({**head, **dict(zip(("time", "tega_id", "message"), stamp, strict=True))})
    return version


def _oldest(client: Client, name: str, version: int) -> tuple[int, Any]:
    """Return the oldest version from `version` on that is kept, and its tree."""
    try:
        return version, _tree(client, name, version)
    except Compacted as error:
        if error.oldest is None or error.oldest <= version:
            raise
        oldest = error.oldest
    return _oldest(client, name, oldest)


def _tree(client: Client, name: str, version: int) -> Any:
    found = _of_version(client, name, version, "tree")
    return found[0] if found else None


def _of_version(client: Client, name: str, version: int, what: str) -> Any:
    """Return what the broker tells by `Part`s of a version, however large."""
    data = b""
    while True:
        size, more = client.request(messages.Part, name, version, what, len(data))
        data += more
        if len(data) >= size or not more:
            return decode_value(data)


def _commits(client: Client, name: str, after: int, last: int) -> list[list[Any]]:
    """Return some commits after version `after`, up to `last`: as many as fit into an answer."""
    limit = min(_PIECE, last - after)
    while True:
        try:
            found: list[list[Any]] = client.request(messages.Updates, name, after, limit)
            return found
        except TooLarge:
            if limit == 1:
                return [_of_version(client, name, after + 1, "commit")]
            limit //= 2


# -- from a file to a broker -----------------------------------------------------------------------


def restore(client: Client, file: str, *, progress: Callable[[str], None] = _silent) -> Summary:
    """Put a backup into an empty broker: every version, with who made it and when; and the tags.

    The file is read through and checked before anything is sent. Histories go on under new epochs. Nodes
    that were ephemeral at the end are removed by one more commit, since their sessions are over. Raises
    `InvalidValue`: the file is damaged or no backup, or the broker is not empty.
    """
    total = sum(1 for _ in _lines(file))
    summary = Summary(0, 0, 0)
    roots = commits = tags = 0
    name = ""
    first = True
    version = _ABSENT
    waiting: list[Any] = []
    size = 0

    def send() -> None:
        nonlocal first, version, size
        while waiting or first:
            reached = _send(client, name, first, version, waiting)
            del waiting[: reached - version]
            first, version, size = False, reached, 0

    for count, (line, length) in enumerate(_lines(file)):
        if "root" in line:
            name, first, version, size = line["root"], True, line["version"], length
            roots += 1
            if line.get("tree") is not None:
                change = [[], line["tree"]]
                version -= 1
                stamp = (line["time"], line["tega_id"], line["message"])
                waiting.append([name, "", version, version + 1, [change], *stamp, None])
        elif "commit" in line:
            if waiting and (len(waiting) >= _PIECE or size + length > 1 << 20):
                send()
            waiting.append(line["commit"])
            commits, size = commits + 1, size + length
            if not commits % _PIECE:
                progress(f"restore: {name}, line {count + 1} of {total}")
        elif "tags" in line:
            send()
            for tag, at in line["tags"].items():
                client.tag(name, tag, at)
                tags += 1
            _remove_ephemeral(client, line["ephemeral"])
    progress("")
    return summary._replace(roots=roots, commits=commits, tags=tags)


def _send(client: Client, name: str, first: bool, version: int, updates: list[Any]) -> int:
    """Have the broker carry out some of `updates`; return the version that the root has then."""
    try:
        reached: int = client.request(messages.Restore, name, first, version, tuple(updates))
    except TooLarge:
        if len(updates) != 1:
            return _send(client, name, first, version, updates[: len(updates) // 2])
        reached = version
        frame = encode(messages.Restore(0, 0, 0, name, first, version, tuple(updates)), sys.maxsize)
        for offset in range(0, len(frame), MAX_FRAME // 2):
            data = frame[offset : offset + MAX_FRAME // 2]
            reached = client.request(messages.Piece, offset, len(frame), data)
    return reached


def _remove_ephemeral(client: Client, found: list[list[str]]) -> None:
    if found:
        with client.transaction("restored: the sessions of its ephemeral nodes are over") as transaction:
            for path in found:
                transaction.delete(tuple(path))


def _lines(file: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each line of a backup, and its length. Raises `InvalidValue` at what is not whole."""
    lines, ended, whole = 0, False, False
    try:
        with gzip.open(file, "rb") as source:
            for data in source:
                line = json.loads(data)
                _check(line, first=lines == 0)
                if ended:
                    break
                ended = line.get("end") == lines
                lines += 1
                yield line, len(data)
            else:
                whole = ended
    except OSError as error:  # BadGzipFile is one
        raise InvalidValue(f"{file}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zlib.error, LookupError, TypeError) as error:
        raise InvalidValue(f"{file}: damaged or cut off after line {lines}: {error!s:.200}") from None
    if not whole:
        raise InvalidValue(f"{file}: damaged or cut off: line {lines} is not its end")


_FIELDS: Final = {
    "tega_backup": {"tega_id", "time"},
    "root": {"version"},
    "commit": set[str](),
    "tags": {"ephemeral"},
    "end": set[str](),
}
"""The kinds of lines, and what else each has."""


def _check(line: Any, *, first: bool) -> None:
    """Raise `ValueError` if it cannot be a line of a backup."""
    kind = next((each for each in _FIELDS if each in line), None) if isinstance(line, dict) else None
    if kind is None or not _FIELDS[kind] <= line.keys() or (kind == "tega_backup") is not first:
        raise ValueError("this is no line of a backup")
    if first and line["tega_backup"] != FORMAT:
        raise ValueError(
            f"a backup of format {line['tega_backup']!a:.20}; this program reads format {FORMAT}"
        )


def _sync_folder(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(file: str) -> None:
    with suppress(OSError):
        os.unlink(file)
