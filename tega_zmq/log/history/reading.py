"""What is read from the history: trees, updates, and which versions are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rpds import HashTrieMap

from tega_zmq.errors import Compacted, StorageError, TegaError
from tega_zmq.log.history.files import Files, Part, Series
from tega_zmq.log.history.format import (
    BEGIN,
    EARLIER,
    FOLDER,
    MARKS,
    TREE,
    UPDATES,
    WHOLE,
    damaged,
    file_name,
    frames,
    payloads,
    updates_in,
)
from tega_zmq.log.records import decode_chunk
from tega_zmq.paths import Path, format_path
from tega_zmq.store import ABSENT, Gap, Kept, KeptVersion, Update, check_marks, update_from_plain
from tega_zmq.store.applying import advanced
from tega_zmq.store.history import new_root
from tega_zmq.tree.node import EMPTY, Node

__all__ = ["spans", "stamps", "tree", "updates", "version_at"]

_ONE: Final = Kept(1, 1)


def _parts(files: Files, name: str) -> list[Part]:
    """Return the files of the line that versions count in, the oldest first, with all that was added."""
    series = files.series.get(name)
    if series is None:
        return []
    files.flush(series)
    line = series.parts[-1].line if series.parts else 0
    return [part for part in series.parts if part.line == line]


def tree(files: Files, name: str, version: int) -> KeptVersion:
    """As `History.tree`."""
    parts = _parts(files, name)
    fits = [at for at, part in enumerate(parts) if part.first <= version]
    if not fits:
        raise _gone(name, version, parts[0].first if parts else None)
    part = parts[fits[-1]]
    try:
        return _tree_in(files, name, part, version, parts[fits[-1] + 1 :])
    except StorageError:
        _look_again(files, name, part)
        raise


def _tree_in(files: Files, name: str, part: Part, version: int, later: Sequence[Part]) -> KeptVersion:
    """As `tree`, from one file; `later`: those after it."""
    file = file_name(name, part.number)
    root = new_root(name, "", part.epoch)
    growing: Node | None = None
    marks: dict[Path, str] = {}
    born: dict[Path, bool] = {}
    for offset, _, plain in frames(files.disk, files.folder, file):
        try:
            if plain[0] == TREE:
                growing = _grown(growing, plain[1])
            elif plain[0] == MARKS:
                for path, session in check_marks(name, plain[1]):
                    if session:
                        marks[path] = session
                    else:
                        born[path] = True
            elif plain[0] == WHOLE:
                root = root._replace(
                    version=part.first,
                    node=None if growing is None else _frozen(growing),
                    ephemerals=HashTrieMap(marks),
                    born=HashTrieMap(born),
                )
            elif plain[0] == UPDATES:
                for each in plain[1:]:
                    root, _ = advanced(root, update_from_plain(each), _ONE)
                    if root.version == version:
                        break
        except TegaError as error:
            raise damaged(file, offset, error.message) from error
        except (TypeError, ValueError, LookupError) as error:
            raise damaged(file, offset, f"it cannot be understood: {error!r:.100}") from error
        if plain[0] >= WHOLE and plain[0] != EARLIER and root.version == version:
            break
    if root.version != version:
        if later and later[0].number > part.number + 1:
            raise _gone(name, version, later[0].first)
        raise StorageError(
            f"{FOLDER}/{file}: version {version} of {name} is missing; the file ends after version"
            f" {root.version}, at byte {offset}",
            reason="missing",
        )
    return root.node, root.ephemerals, root.born


def updates(files: Files, name: str, before: int) -> Iterator[Update | Gap]:
    """As `History.updates`."""
    expected: int | None = None
    number, why = 0, ""
    parts = _parts(files, name)
    for part in reversed(parts):
        if not why and number > part.number + 1:
            why = "they are no longer kept"
        found, problem = _updates_in(files, name, part, before)
        why = problem or why
        for update in reversed(found):
            if expected is not None and update.after > expected:
                continue  # the file after has it too
            if expected is not None and update.after < expected:
                yield Gap(update.after + 1, expected, why or "they are missing")
            yield update
            expected, why = update.after - 1, ""
        number = part.number
    if why and expected is not None and parts and expected > max(parts[0].first, ABSENT):
        yield Gap(max(parts[0].first, ABSENT) + 1, expected, why)


def _updates_in(files: Files, name: str, part: Part, before: int) -> tuple[list[Update], str]:
    """Return the updates in a file to versions lower than `before`, and what is wrong with it."""
    file = file_name(name, part.number)
    found: list[Update] = []
    try:
        for offset, _, plain in frames(files.disk, files.folder, file):
            if plain[0] == WHOLE and part.first >= before:
                break  # all that follows is newer
            for each in updates_in(plain):
                # [root, epoch, before, after, ...]
                if each[3] >= before:
                    continue
                try:
                    found.append(update_from_plain(each))
                except TegaError as error:
                    raise damaged(file, offset, error.message) from error
    except StorageError as error:
        _look_again(files, name, part)
        return found, error.message.partition(";")[0]
    return found, ""


def spans(files: Files, name: str, since: int = 0) -> list[tuple[int, int]]:
    """As `History.spans`."""
    found: list[tuple[int, int]] = []
    series = files.series.get(name)
    parts = _parts(files, name)
    for part, after in zip(parts, [*parts[1:], None], strict=False):
        if series is None or (after is not None and after.first <= since):
            continue
        last = _last_in(files, series, part)
        if last is None:
            continue
        if after is not None:
            # Of the version that both have, the file that begins with it is asked.
            usable = _last_in(files, series, after) is not None
            last = min(last, after.first if usable else after.first - 1)
        if found and part.first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((part.first, last))
    return found


def _look_again(files: Files, name: str, part: Part) -> None:
    """A file could not be read through: find out anew how far it can be."""
    series = files.series[name]
    last = _scan(files, series, part)
    newest = part is series.parts[-1]
    if not newest or last is None or last < series.last:
        series.ends[part.number] = last
        if newest:  # nothing that is added to it could be read: what comes next goes into another
            series.usable = False
            files.seen.pop(name, None)


def _last_in(files: Files, series: Series, part: Part) -> int | None:
    if part.number not in series.ends:
        newest = part is series.parts[-1]
        if newest and series.usable:
            return series.last
        last = _scan(files, series, part)
        if newest:
            return last
        series.ends[part.number] = last
    return series.ends[part.number]


def _scan(files: Files, series: Series, part: Part) -> int | None:
    """Return the last version that can be read from a file, None if none can."""
    whole = b""
    try:
        for _, _, payload in payloads(files.disk, files.folder, file_name(series.name, part.number)):
            whole = payload
    except (StorageError, OSError):
        pass  # up to there it can be read
    try:
        plain = decode_chunk(whole)
        kind = plain[0]
        if kind == UPDATES:
            return int(plain[-1][3])
    except (TegaError, TypeError, ValueError, LookupError):
        return None
    return part.first if kind == WHOLE else None  # else its checkpoint is not whole


def stamps(files: Files, name: str, versions: set[int]) -> dict[int, tuple[float, str, str]]:
    """As `History.stamps`."""
    found: dict[int, tuple[float, str, str]] = {}
    parts = _parts(files, name)
    for part, after in zip(parts, [*parts[1:], None], strict=False):
        if part is not parts[0] and not any(
            part.first <= each and (after is None or each <= after.first) for each in versions
        ):
            continue
        try:
            for plain in files.read(file_name(name, part.number)):
                if plain[0] == BEGIN and plain[5] in versions:
                    found.setdefault(plain[5], (plain[7], plain[8], plain[9]))
                for each in updates_in(plain):
                    if each[3] in versions:
                        found[each[3]] = (each[5], each[6], each[7])
        except StorageError:
            continue  # what is damaged is not known any more
    return found


def version_at(files: Files, name: str, time: float, before: int) -> int:
    """As `History.version_at`."""
    parts = _parts(files, name)
    for part in reversed(parts):
        if part.time > time and part.number != parts[0].number:
            continue
        best = part.first if part.time <= time and part.first < before else ABSENT
        for plain in files.read(file_name(name, part.number)):
            for each in updates_in(plain):
                if each[3] < before and each[5] <= time:
                    best = max(best, each[3])
        if best != ABSENT:
            return best
    if parts and parts[0].first > 0:
        raise _gone(name, parts[0].first - 1, parts[0].first)
    return ABSENT


def _gone(name: str, version: int, oldest: int | None) -> Compacted:
    text = f"version {version} of {format_path((name,))} is no longer kept"
    if oldest is not None:
        text += f"; the next one on the disk is {oldest}"
    return Compacted(text, root=name, version=version, oldest=oldest)


def _grown(top: Any, found: Any) -> Any:
    """Add entries, parents first, to a tree that is mutable until it is whole.

    Checked no further than by their checksum: this must be fast.
    """
    for path, version, container, value in found:
        node = (version, {} if container else value)
        if len(path) == 1:
            top = node
            continue
        at = top
        for oid in path[1:-1]:
            at = at[1].get(oid) if at is not None and type(at[1]) is dict else None
        if at is None or type(at[1]) is not dict:
            raise StorageError(f"{format_path(path)} came before what it stands in")
        at[1][path[-1]] = node
    return top


def _frozen(grown: Any) -> Node:
    version, content = grown
    if type(content) is not dict:
        return (version, content)
    made = EMPTY
    # Not in one go: a call that makes a very wide map would hold up the loop.
    for oid, child in content.items():
        made = made.insert(oid, _frozen(child))
    return (version, made)
