"""Backups: every version of every root that a broker owns, in one file, from a running broker and back.

The file is JSON lines, compressed with gzip (RFC 1952, whose checksum shows truncation and damage):

    {"tega_backup": 1, "tega_id": ..., "time": ...}
    {"root": NAME, "version": V}            or, if older versions are not kept any more:
    {"root": NAME, "version": V, "tree": ..., "time": ..., "tega_id": ..., "message": ...}
    {"commit": [root, epoch, before, after, changes, time, tega_id, message, backto]}     one a version
    {"gap": [FIRST, LAST], "version": V, "tree": ..., "time": ..., "tega_id": ..., "message": ...}
    {"tags": {TAG: VERSION}, "ephemeral": [PATH, ...]}
    ... the next root ...
    {"end": LINES BEFORE}

Without `tree`, commits begin after version V, which is -1; with it, the tree is that of version V (absent:
null), and commits follow it. A gap stands where the broker cannot read the commits FIRST to LAST any more; V
is LAST, and again commits follow its tree. `zcat FILE` and any JSON reader read it. All versions belong to
one moment: that at which the backup began.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from tega_zmq.errors import Compacted, InvalidValue, StorageError, TegaError, TooLarge
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
    gaps: tuple[tuple[str, int, int], ...] = ()
    """(root, first, last) of the versions that could not be read and are not in it; at the beginning, too."""


def _silent(_: str) -> None:
    return


# -- from a broker to a file -----------------------------------------------------------------------


def backup(client: Client, file: str | BinaryIO, *, progress: Callable[[str], None] = _silent) -> Summary:
    """Write all versions of all roots that the broker owns to `file`, which is replaced when it is whole.

    The new file has the permissions of the old one. What is no file, a device or a pipe, is written to, and
    so is a stream, that of standard output for one: so errors call it.

    Operational roots are not in it: their agents have them. What the broker has dropped, or cannot read since
    it is damaged, is left out, and the summary says which versions. Raises `StorageError` if the file cannot
    be written, `TooLarge` for a commit, or the tree after a gap, of more than 64 MiB as msgpack.
    """
    try:
        if not isinstance(file, str):
            summary = _pack(client, file, progress)
            file.flush()
            return summary
        if os.path.exists(file) and not os.path.isfile(file):
            with open(file, "wb") as special:
                return _pack(client, special, progress)
        if file.endswith("/"):  # which `realpath` takes off
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
        return _replace(client, os.path.realpath(file), progress)
    except OSError as error:
        reason = error.strerror or str(error)
        name = file if isinstance(file, str) else "standard output"
        raise StorageError(f"{name}: cannot be written: {reason}", reason=reason, outcome="none") from None


def _replace(client: Client, file: str, progress: Callable[[str], None]) -> Summary:
    temporary = f"{file}.{os.getpid()}.tmp"
    mode = _mode(file)
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode or 0o666)) as raw:
            if mode is not None:
                os.fchmod(raw.fileno(), mode)  # the umask does not count
            summary = _pack(client, raw, progress)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, file)
    except BaseException:
        _remove(temporary)
        raise
    _sync_folder(os.path.dirname(file))
    return summary


def _mode(file: str) -> int | None:
    """Return the permissions that the file has; None if there is none."""
    try:
        return os.stat(file).st_mode & 0o777
    except FileNotFoundError:
        return None


def _pack(client: Client, raw: BinaryIO, progress: Callable[[str], None]) -> Summary:
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as out:
        return _write(client, out, progress)


def _write(client: Client, out: gzip.GzipFile, progress: Callable[[str], None]) -> Summary:
    lines = commits = tags = 0
    gaps: list[tuple[str, int, int]] = []

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
        begun, at = False, _ABSENT
        while at < last:
            progress(f"backup: root {count + 1} of {len(roots)}: {name}, version {at + 1} of {last}")
            try:
                found = _commits(client, name, at, last)
            except (Compacted, StorageError) as error:
                head = _after_gap(client, name, at, last, error)
                # Of the version that it begins with, the tree is there.
                missing = (at + 1, head["version"] - 1)
                if missing[0] <= missing[1]:
                    gaps.append((name, *missing))
                put({"gap": [at + 1, head["version"]], **head} if begun else {"root": name, **head})
                begun, at = True, head["version"]
                continue
            if not begun:
                put({"root": name, "version": _ABSENT})
                begun = True
            for commit in found:
                put({"commit": commit})
                at, commits = commit[3], commits + 1
        kept = {
            tag: version
            for tag, version in names.get(name, {}).items()
            if version <= last and not any(gap[0] == name and gap[1] <= version <= gap[2] for gap in gaps)
        }
        tags += len(kept)
        put({"tags": kept, "ephemeral": _of_version(client, name, last, "ephemeral")})
    put({"end": lines})
    progress("")
    return Summary(len(roots), commits, tags, tuple(gaps))


def _after_gap(client: Client, name: str, at: int, last: int, error: TegaError) -> dict[str, Any]:
    """The commit after version `at` cannot be read: return the tree with which the backup goes on.

    That is of the next version that can be read; raises `error` if there is none up to `last`.
    """
    while True:
        following = [
            first
            for each in client.inspect("old")
            if each["root"] == name
            for first, _ in each["readable"]
            if at < first <= last
        ]
        if not following:
            raise error
        version = following[0]
        try:
            tree = _tree(client, name, version)
        except (Compacted, StorageError):
            at = version  # it was damaged, or dropped, since it was last looked at
            continue
        known = client.log((name,), 1, before=version + 1)
        if known and known[0].version == version:
            stamp = (known[0].time, known[0].tega_id, known[0].message)
        else:
            stamp = (0.0, "", "")
        head = {"version": version, "tree": tree}
        return {**head, **dict(zip(("time", "tega_id", "message"), stamp, strict=True))}


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


def restore(client: Client, file: str | BinaryIO, *, progress: Callable[[str], None] = _silent) -> Summary:
    """Put a backup into an empty broker: every version, with who made it and when; and the tags.

    The file is read through and checked before anything is sent, so a stream must be one that can `seek`;
    errors call it standard input. Histories go on under new epochs. Nodes
    that were ephemeral at the end are removed by one more commit, since their sessions are over. Raises
    `InvalidValue`: the file is damaged or no backup, or the broker is not empty.
    """
    total, named = _look_through(file)
    summary = Summary(0, 0, 0)
    roots = commits = tags = 0
    gaps: list[tuple[str, int, int]] = []
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

    def mark() -> None:
        """Tag what was reached: at once, or the broker may drop it again (`history.keep`)."""
        nonlocal tags
        for tag in named.get(name, {}).get(waiting[-1][3] if waiting else version, ()):
            send()
            client.tag(name, tag, version)
            tags += 1

    for count, (line, length) in enumerate(_lines(file)):
        if "root" in line:
            name, first, version, size = line["root"], True, line["version"], length
            roots += 1
            _note_gap(gaps, name, 0, version - 1)
            if line.get("tree") is not None:
                version -= 1
                waiting.append(_whole(name, line))
            mark()
        elif "gap" in line:
            send()
            _note_gap(gaps, name, line["gap"][0], line["version"] - 1)
            commit = _whole(name, line)
            if version == commit[2]:
                waiting.append(commit)
            elif line["tree"] is None:  # the root goes on beyond what is missing, absent
                version = _send(client, name, False, line["version"], [])
            else:
                version = _send(client, name, False, commit[2], [commit])
            mark()
        elif "commit" in line:
            if waiting and (len(waiting) >= _PIECE or size + length > 1 << 20):
                send()
            waiting.append(line["commit"])
            commits, size = commits + 1, size + length
            mark()
            if not commits % _PIECE:
                progress(f"restore: {name}, line {count + 1} of {total}")
        elif "tags" in line:
            send()
            _remove_ephemeral(client, line["ephemeral"])
    progress("")
    return summary._replace(roots=roots, commits=commits, tags=tags, gaps=tuple(gaps))


def _look_through(file: str | BinaryIO) -> tuple[int, dict[str, dict[int, list[str]]]]:
    """Return how many lines a backup has, and by root and version the tags. Raises as `_lines`."""
    total, name = 0, ""
    named: dict[str, dict[int, list[str]]] = {}
    for line, _ in _lines(file):
        total += 1
        if "root" in line:
            name = line["root"]
        for tag, version in line.get("tags", {}).items():
            named.setdefault(name, {}).setdefault(version, []).append(tag)
    return total, named


def _note_gap(gaps: list[tuple[str, int, int]], name: str, first: int, last: int) -> None:
    if first <= last:
        gaps.append((name, first, last))


def _whole(name: str, line: dict[str, Any]) -> list[Any]:
    """Return the commit that makes the tree that stands in `line`, whatever was there before."""
    change = [[]] if line["tree"] is None else [[], line["tree"]]
    version = line["version"]
    stamp = (line["time"], line["tega_id"], line["message"])
    return [name, "", version - 1, version, [change], *stamp, None]


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


def _lines(file: str | BinaryIO) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each line of a backup, and its length. Raises `InvalidValue` at what is not whole."""
    lines, ended, whole = 0, False, False
    name = file if isinstance(file, str) else "standard input"
    try:
        if not isinstance(file, str):
            file.seek(0)
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
        raise InvalidValue(f"{name}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zlib.error, LookupError, TypeError) as error:
        raise InvalidValue(f"{name}: damaged or cut off after line {lines}: {error!s:.200}") from None
    if not whole:
        raise InvalidValue(f"{name}: damaged or cut off: line {lines} is not its end")


_FIELDS: Final = {
    "tega_backup": {"tega_id", "time"},
    "root": {"version"},
    "commit": set[str](),
    "gap": {"version", "tree", "time", "tega_id", "message"},
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
