"""The past of a root: what a reference to a version means, and what of it must be read from the disk.

The node keeps the last versions in memory. A request that needs an older one raises `Deep` with what it
lacks; the program is asked for that (`ReadHistory`), and when it comes the request is carried out from its
beginning, with that known. So no request waits in the middle of anything, nor the loop for the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias

from tega_zmq import errors, paths, store
from tega_zmq.errors import Compacted, InvalidValue, NotFound, StorageError, TegaError, TooLarge
from tega_zmq.node.effects import CommitsAt, ReadHistory, SpansOf, TreeAt, UpdatesAt, VersionAt, Want
from tega_zmq.node.passing import pass_on
from tega_zmq.node.state import ABOVE, Node
from tega_zmq.paths import Path, format_path
from tega_zmq.sessions import Session
from tega_zmq.store import ABSENT, Gap, Op, Root, Store, Tagged, Update
from tega_zmq.store.history import new_root
from tega_zmq.wire.messages import CommitTransaction, Reply, Tag, Untag, Write

__all__ = [
    "Deep",
    "Elsewhere",
    "ask",
    "at_version",
    "check_whole",
    "commits",
    "drain",
    "log",
    "older_commits",
    "readable",
    "recalled",
    "recalled_ops",
    "reference",
    "tag",
    "take",
    "untag",
    "updates",
]

TAG: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?Z")

MAX_ASKED: Final = 256
"""Most requests of all sessions that wait for the disk at one time."""

Reference: TypeAlias = int | str | None


class Deep(Exception):
    """A request needs `want`, which is only on the disk."""

    def __init__(self, want: Want) -> None:
        super().__init__(want)
        self.want = want


class Elsewhere(Exception):
    """Only the owner of `root` can answer."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.root = root


class Asked(NamedTuple):
    """A request that waits for the disk, and what came from there before."""

    session: Session
    message: Any
    want: Want
    known: dict[Any, Any]


# -- asking the disk -------------------------------------------------------------------------------


def ask(node: Node, session: Session, message: Any, want: Want) -> None:
    """Have `want` read for `message` of `session`, which is carried out again when it is there.

    Later writes of the session wait behind it, if it is one. Raises `TooLarge` if too much is asked already.
    """
    if len(node.asked) >= MAX_ASKED:
        raise TooLarge(f"{MAX_ASKED} requests wait for history to be read; ask again later", limit=MAX_ASKED)
    node.ties += 1
    asked = Asked(session, message, want, node.known)
    node.asked[node.ties] = asked
    session.pending[message.id] = asked
    if type(message) in (Write, CommitTransaction):
        node.behind.setdefault(session, [])
    node.effects.append(ReadHistory(node.ties, want))


def take(node: Node, number: int, result: Any, request: Callable[[Node, Session, Any], None]) -> None:
    """What was asked for under `number` came: `result`, or an error. Go on with its request by `request`."""
    asked = node.asked.pop(number, None)
    if asked is None:
        return
    session, message, want, known = asked
    if session.ended or session.pending.get(message.id) is not asked:
        node.behind.pop(session, None)
        return
    del session.pending[message.id]
    waiting = node.behind.pop(session, [])
    known[want] = result
    node.known = known
    try:
        request(node, session, message)
    finally:
        node.known = {}
    for each in waiting:
        session.pending.pop(each.id, None)
        request(node, session, each)


def drain(node: Node, session: Session, message: Any) -> bool:
    """Say whether `message`, a write, must wait behind one of `session` that waits for the disk; queue it."""
    waiting = node.behind.get(session)
    if waiting is None or type(message) not in (Write, CommitTransaction):
        return False
    waiting.append(message)
    session.pending[message.id] = None
    return True


def _need(node: Node, want: Want) -> Any:
    found = node.known.get(want)
    if found is None:
        raise Deep(want)
    if isinstance(found, TegaError):
        raise found
    return found


def _lacking(node: Node, root: Root, version: int | str, want: Want) -> Any:
    """Return what was read for `want`; else see who has it. Raises `Deep`, `Elsewhere`, `Compacted`."""
    if want in node.known:
        return _need(node, want)
    if root.owner == ABOVE and node.uplink is not None:
        if node.online:
            raise Elsewhere(root.name)
        hint = "; the owner, which cannot be reached now, may have it"
    elif node.settings.history:
        return _need(node, want)
    else:
        hint = ""
    raise Compacted(
        f"version {version} of {format_path((root.name,))} is no longer kept here; the oldest is "
        f"{root.oldest}{hint}",
        root=root.name,
        version=version if type(version) is int else None,
        oldest=root.oldest,
    )


# -- references ------------------------------------------------------------------------------------


def moment(text: str) -> float | None:
    """Return the Unix seconds of a time such as `2026-11-20T12:00:00Z`, or None: it is none."""
    if not _TIME.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def check_reference(version: Reference) -> None:
    """Raises `InvalidValue` if it can be no version."""
    if type(version) is str and not TAG.fullmatch(version) and moment(version) is None:
        raise InvalidValue(
            f"{version[:64]!a} is no version; expected a number, a tag (a letter, then up to 63 of A-Z a-z"
            " 0-9 . _ -), or a time such as 2026-11-20T12:00:00Z"
        )


def reference(node: Node, state: Store, name: str, version: Reference) -> int | None:
    """Return the version of root `name` that is meant: a number from 0 up; None stays None.

    Raises `NotFound`, `InvalidValue`, `Compacted`, `Deep`, `Elsewhere`.
    """
    if version is None:
        return None
    root = state.roots.get(name)
    if root is None:
        raise NotFound(f"there is no root {format_path((name,))}", path=format_path((name,)))
    settled = ("at", name, root.epoch, version)
    if settled in node.known:
        # Counted back from the present once, however often the request is carried out.
        return int(node.known[settled])
    meant = store.resolve(root, version) if type(version) is int else _named(node, root, str(version))
    node.known[settled] = meant
    return meant


def _named(node: Node, root: Root, version: str) -> int:
    check_reference(version)
    time = moment(version)
    if time is not None:
        return _at_time(node, root, version, time)
    if root.owner:
        raise Elsewhere(root.name)
    tagged = root.tags.get(version)
    if tagged is None:
        raise NotFound(
            f"{format_path((root.name,))} has no tag {version}; `tags` lists those there are",
            path=format_path((root.name,)),
            version=version,
        )
    return tagged


def _at_time(node: Node, root: Root, text: str, time: float) -> int:
    for version in range(root.version, root.oldest_update - 1, -1):
        if root.updates[version][3] <= time:
            return version
    if root.oldest_update > 0:
        found = _lacking(node, root, text, VersionAt(root.name, root.epoch, time, root.oldest_update))
        if found != ABSENT:
            return int(found)
    raise NotFound(
        f"{format_path((root.name,))} had no version yet at {text}",
        path=format_path((root.name,)),
        version=text,
    )


# -- reading ---------------------------------------------------------------------------------------


def recalled(node: Node, state: Store, name: str, *versions: int | None) -> Store:
    """Return `state` with `versions` of root `name` in it, as far as they had to be read from the disk."""
    root = state.roots.get(name)
    if root is None:
        return state
    trees = {}
    for version in versions:
        if version is not None and 0 <= version <= root.version and version not in root.trees:
            trees[version] = _lacking(node, root, version, TreeAt(name, root.epoch, version))
    if not trees:
        return state
    return state._replace(roots=state.roots.insert(name, store.with_trees(root, trees)))


def recalled_ops(node: Node, state: Store, ops: tuple[Op, ...]) -> tuple[Store, tuple[Op, ...]]:
    """Return `state` and `ops` with the versions that rollbacks name as numbers, and kept."""
    for op in ops:
        if op[0] == "rollback":
            break
    else:
        return state, ops
    made = []
    for op in ops:
        root = state.roots.get(op.path[0])
        if op.kind == "rollback" and root is not None and root.version != ABSENT:
            version = reference(node, state, root.name, op.value)
            # Those that were recalled for an operation before stay.
            trees = recalled(node, state, root.name, version).roots[root.name]
            state = state._replace(roots=state.roots.insert(root.name, trees))
            op = op._replace(value=version)
        made.append(op)
    return state, tuple(made)


def log(
    node: Node, path: Path, limit: int, before: int | None, since: float | None, by: str
) -> list[Update | Gap]:
    """Return what `store.log` gives, and what the disk has beyond it; where that lacks some, a `Gap`.

    Raises `NotFound`, `Deep`, `Elsewhere`.
    """
    found: list[Update | Gap] = []
    found += store.log(node.durable, path, limit, before=before, since=since, by=by)
    root = node.durable.roots[path[0]]
    oldest = root.oldest_update if before is None else min(before, root.oldest_update)
    if len(found) < limit and oldest > 0:
        want = UpdatesAt(root.name, root.epoch, path, limit - len(found), oldest, since, by)
        try:
            found.extend(_lacking(node, root, oldest - 1, want))
        except Compacted:
            return found
        except StorageError as error:
            found.append(Gap(0, oldest - 1, error.message))
    return found


Commit: TypeAlias = tuple[float, str, str]
"""(time, tega_id, message)."""


def commits(
    root: Root, leaves: list[tuple[Path, int]]
) -> Generator[int, None, tuple[dict[int, Commit], CommitsAt | None]]:
    """Return what the memory has of the commits that `leaves` name, and what to ask the disk for.

    Yields what it costs, in half microseconds.
    """
    found: dict[int, Commit] = {}
    deep: set[int] = set()
    for at, (_, version) in enumerate(leaves):
        if at % 1000 == 999:
            yield 1000
        if version in found or version in deep:
            continue
        kept = root.updates.get(version)
        if kept is not None:
            found[version] = (kept[3], kept[4], kept[5])
        elif version == root.version:
            found[version] = root.last
        else:
            deep.add(version)
    return found, CommitsAt(root.name, root.epoch, tuple(sorted(deep))) if deep else None


def older_commits(node: Node, root: Root, want: CommitsAt) -> dict[int, Commit]:
    """Return what is known of the commits `want`: nothing if they are kept nowhere.

    Raises `Deep`, `Elsewhere` and `StorageError`.
    """
    try:
        found: dict[int, Commit] = _lacking(node, root, want.versions[-1], want)
    except Compacted:
        return {}
    return found


def at_version(node: Node, root: Root, version: int) -> Root:
    """Return `root` as it was at `version`, keeping nothing from before. Raises `Deep`, `Compacted`."""
    state = recalled(node, node.durable, root.name, version)
    kept = state.roots[root.name].trees.get(version)
    assert kept is not None
    tree, ephemerals, born = kept
    then = new_root(root.name, "", root.epoch)
    return then._replace(version=version, node=tree, ephemerals=ephemerals, born=born)


def updates(node: Node, root: Root, after: int, to: int) -> list[Update]:
    """Return the updates that lead on from version `after`, up to `to`, read from the disk, oldest first.

    That is at least one; they end before the first that cannot be read. Raises `Deep`, `Compacted`,
    `Elsewhere`.
    """
    want = UpdatesAt(root.name, root.epoch, (root.name,), to - after, to + 1, None, "")
    read: list[Update | Gap] = _lacking(node, root, after, want)
    found: list[Update] = []
    for each in reversed(read):
        if isinstance(each, Update) and each.after == after + len(found) + 1:
            found.append(each)
    if not found:
        raise Compacted(
            f"the commit after version {after} of {format_path((root.name,))} is not kept any more",
            root=root.name,
            version=after,
            oldest=root.oldest,
        )
    return found


def readable(node: Node, root: Root, name: str = "", since: int = 0) -> list[list[int]]:
    """Return [first, last] of the versions of `root` that can be read, oldest first, from memory or the disk.

    Within each every version and every commit between two is there. Asks the disk for all roots, or for root
    `name` and what does not end before version `since`. Raises `Deep`, and `StorageError` if the disk cannot
    be read.
    """
    spans: list[tuple[int, int]] = []
    oldest = root.oldest
    if node.settings.history and not (root.owner and node.uplink is not None):
        want = SpansOf(since, name, root.epoch if name else "")
        # What leaves the memory while the disk is read is on the disk too, after what is told from there.
        asked = node.known.get(("memory", want))
        if asked is None:
            roots = [root] if name else node.durable.roots.values()
            asked = node.known["memory", want] = {each.name: (each.epoch, each.oldest) for each in roots}
        spans += _need(node, want).get(root.name, ())
        if root.name in asked and asked[root.name][0] == root.epoch:
            oldest = min(oldest, asked[root.name][1])
    joined: list[list[int]] = []
    for first, last in sorted([*spans, (oldest, root.version)]):
        last = min(last, root.version)
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], last)
        elif last >= 0:
            joined.append([max(first, 0), last])
    return joined


def check_whole(node: Node, root: Root, version: int) -> None:
    """Check that `version` of `root` can be read, and every commit after it; `ABSENT`: every commit there is.

    Raises `Compacted`, which names the oldest version for which that is so, `Deep`, `Elsewhere` and
    `StorageError`.
    """
    if version >= root.oldest:
        return
    if not node.settings.history or (root.owner and node.uplink is not None):
        _lacking(node, root, version, SpansOf(version, root.name, root.epoch))
    oldest = readable(node, root, root.name, version)[-1][0]
    if max(version, 0) < oldest:
        raise Compacted(
            f"not all commits of {format_path((root.name,))} after version {version} can be read any more;"
            f" from version {oldest} on all are there",
            root=root.name,
            version=version,
            oldest=oldest,
        )


# -- tags ------------------------------------------------------------------------------------------


def tag(node: Node, session: Session, request: Tag) -> None:
    """Name a version; the answer is its number."""
    name = paths.check((request.root,))[0]
    if not TAG.fullmatch(request.name):
        raise InvalidValue(
            f"{request.name[:64]!a} cannot be a tag: a letter, then up to 63 of A-Z a-z 0-9 . _ - are allowed"
        )
    if _passed(node, session, request, name):
        return
    node.check_log()
    root = _root(node, name)
    version = root.version if request.version is None else reference(node, node.tip, name, request.version)
    assert version is not None
    recalled(node, node.tip, name, version)  # raises for one that is nowhere any more
    if root.tags.get(request.name) != version:
        if request.name not in root.tags and len(root.tags) >= store.MAX_TAGS:
            raise TooLarge(f"{name} has {store.MAX_TAGS} tags; take some away first", limit=store.MAX_TAGS)
        node.append(Tagged(name, request.name, version))
        session.last_lsn = node.number
    node.gate(session, Reply(request.id, version))


def untag(node: Node, session: Session, request: Untag) -> None:
    """Take a name away; the answer is the version that had it."""
    name = paths.check((request.root,))[0]
    if _passed(node, session, request, name):
        return
    node.check_log()
    version = _root(node, name).tags.get(request.name)
    if version is None:
        raise NotFound(f"{name} has no tag {request.name[:64]}", path=name, version=request.name[:64])
    node.append(Tagged(name, request.name, ABSENT))
    session.last_lsn = node.number
    node.gate(session, Reply(request.id, version))


def _root(node: Node, name: str) -> Root:
    root = node.tip.roots.get(name)
    if root is None or root.version == ABSENT:
        raise NotFound(f"there is no root {format_path((name,))}", path=format_path((name,)))
    return root


def _passed(node: Node, session: Session, request: Tag | Untag, name: str) -> bool:
    owner = node.owner(name)
    if owner == "":
        return False
    pass_on(node, session, request, name, owner)
    return True


def as_error(error: Exception) -> TegaError:
    """Return `error` as one that can be told to a session."""
    if isinstance(error, TegaError):
        return error
    return errors.StorageError(f"the history cannot be read: {error!r:.200}", reason=type(error).__name__)
