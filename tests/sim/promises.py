"""The promises of the design, each with the checks that hold a run to it.

`Ledger` looks on at every host and program. It keeps what was appended, what the disk really has, what was
acknowledged and what was shown, and raises `Broken` with the promise's number as soon as something does not
fit. `PROMISES` says which method checks what; checks at rest, when the faults are over, are in `rest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tega_zmq import log as tega_log
from tega_zmq import replica, sessions, store
from tega_zmq.errors import HandlerError, TegaError
from tega_zmq.log import segment
from tega_zmq.log.fileheader import SEGMENT, Header, unpack
from tega_zmq.log.records import encode_record
from tega_zmq.node.effects import Note, Send
from tega_zmq.paths import Path
from tega_zmq.store import ABSENT, Cleared, Commit, Owned, Root, Store, WentOn
from tega_zmq.tree import Node, get, is_container, pairs
from tega_zmq.wire import decode, encode
from tega_zmq.wire import messages as m
from tests.sim import model
from tests.sim.bounds import Queues
from tests.sim.host import FOLDER, QUEUE, Host
from tests.sim.program import Asked, Program
from tests.sim.world import Broken, World

__all__ = ["PROMISES", "Book", "Ledger"]

PROMISES: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("durable", "_visible", "_answered", "_commit_in_order", "ended"),
    2: ("_answered", "_read_at_once"),
    3: ("failed", "appended", "_trusted_files"),
    4: ("started", "_cut", "Host._cannot_start"),
    5: ("started",),
    6: ("_done_once", "ended", "messages_in_order", "rest.refused_writes"),
    7: ("_transition", "_stamps", "_read_at_once"),
    8: ("_stamps", "old_versions"),
    9: ("_transition", "_expected"),
    10: ("_replica", "_remember"),
    11: ("rest.replicas",),
    12: ("_chunk",),
    13: ("Mirror.hear", "rest.mirrors"),
    14: ("_answered",),
    15: ("noted", "received", "_sessions", "Program.flush", "Program._dial"),
    16: ("received", "Program._tick", "rest.sessions"),
    17: ("ended", "invoked", "_sessions", "Program._end", "rest.requests"),
    18: ("_invoke", "ended"),
    19: ("_sessions", "messages_in_order", "Queues.queue", "Queues.sending"),
    20: ("_ephemerals", "rest.ephemerals"),
}
"""By promise, where it is checked. A name without a dot is a method of `Ledger`."""

SAMPLE: Final = 16
"""Every so many events of a node its sessions are looked at."""

_UNDONE: Final = frozenset(
    {
        "Offline",
        "OwnerAway",
        "NotFound",
        "Collision",
        "InvalidPath",
        "InvalidValue",
        "MixedOwners",
        "ReadOnly",
        "Compacted",
        "TooLarge",
        "TransactionExpired",
    }
)
"""A write that failed with one of these was certainly not done."""


class Done:
    """A write that stands in the log of its owner."""

    __slots__ = ("book", "number", "revision", "versions")

    def __init__(self, book: Book, number: int, revision: int, versions: dict[str, int]) -> None:
        self.book = book
        self.number = number
        self.revision = revision
        self.versions = versions


_CLEARED: Final = object()
"""Stands for a version that went with its root."""


class Book:
    """What is known of one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.stores: dict[int, Store] = {0: store.empty(host.setup.kept)}
        """The store after each record that may be the last one after a crash."""
        self.payloads: dict[int, bytes] = {}
        """Records that are not known to be durable."""
        self.tags: dict[int, str] = {}
        """The write that each of the records after `certain` carried out."""
        self.swept: dict[int, set[Path]] = {}
        """The ephemeral nodes that a record took with their whole root."""
        self.told = 0
        """The node was told that all up to this record is durable."""
        self.certain = 0
        """All up to this record is on the disk."""
        self.tip = 0
        self.power = False
        self.failed = False
        self.wiped = False
        self.lasted: dict[tuple[str, int], list[tuple[int, Any]]] = {}
        """What lasted in each version of the roots that it owns: (the record that made it so, value)."""
        self.requests: dict[str, int] = {}
        """The last request of each session that made a commit."""
        self.shown: dict[str, tuple[str, int]] = {}
        """Where each root was shown last."""
        self.started = 0.0
        self.heard: dict[str, float] = {}
        """By session, its first 8 digits: the last sign of life."""
        self.asked: dict[tuple[bytes, int], tuple[int, int, Any]] = {}
        """Requests by peer and id: (event, number of the tip, message)."""
        self.first: dict[tuple[str, int], int] = {}
        """By session and request: the tip when it first came."""
        self.pulls: dict[tuple[bytes | None, str], m.Pull] = {}
        self.displaced: set[str] = set()
        """Sessions that were taken over since the node started, their first 8 digits."""
        self.turns: dict[Path, tuple[str, frozenset[str]]] = {}
        """Who answered the last call to a path, and who could have."""
        self.cache: dict[str, tuple[Root, Any]] = {}
        self.looks = 0

    def plain(self, root: Root) -> Any:
        """Return the value of `root`."""
        known = self.cache.get(root.name)
        if known is not None and known[0].node is root.node:
            return known[1]
        value = model.as_plain(root.node)
        self.cache[root.name] = (root, value)
        return value


class Ledger:
    """Looks on at a run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.books: dict[Host, Book] = {}
        self.recorded: dict[tuple[str, str, int], tuple[Any, str]] = {}
        """By root, epoch and version: the value, and who wrote it, as its owner made it durable."""
        self.ops: dict[str, tuple[Any, ...] | None] = {}
        """By the tag of a write: its operations; None: not known for sure."""
        self.done: dict[str, Done] = {}
        self.came_back: set[str] = set()
        """Writes that a log refused as it failed, and had in it when it was started again."""
        self.lost: set[str] = set()
        """Writes that were done and whose loss is allowed: `sync` is not `always`, and the power went."""
        self.refused: dict[str, str] = {}
        """Writes that certainly were not done, and why."""
        self.history: list[Asked] = []
        """All writes and reads of programs."""
        self.returned: dict[tuple[str, str], tuple[bool, Any]] = {}
        """By call and handler's program: what the handler answered."""
        self.runs: dict[tuple[str, str], int] = {}
        self.heard: dict[tuple[str, str, str], int] = {}
        """By listener, publisher and channel: the last message."""
        self.queues = Queues()
        self.cleared = False
        """The broker's store was emptied once."""
        self.turned_away: set[str] = set()
        """Writes that a node refused once: if it forgets that, and its word is lost, a retry may be done."""
        self.disowned: set[str] = set()
        """Roots that were taken from their owner once: what it did last, nobody may have heard of."""
        self.taken: set[Path] = set()
        """Ephemeral nodes that a write took away, not the end of their session."""
        self.counts: dict[str, int] = {}
        """How often things happened that a run should have."""

    def book(self, host: Host) -> Book:
        """Return what is known of `host`."""
        book = self.books.get(host)
        if book is None:
            book = self.books[host] = Book(host)
        return book

    def count(self, what: str) -> None:
        """Count something that a run should have."""
        self.counts[what] = self.counts.get(what, 0) + 1

    # -- the log -----------------------------------------------------------------------------------

    def appended(self, host: Host, record: store.Record, number: int) -> None:
        """Promises 3, 7, 9, 20 and 6: the record is right, and follows on what was before."""
        book, node = self.book(host), host.node
        if node.failure is not None:
            raise Broken(3, f"{host.name} appends a record though its log has failed: {record!r:.200}")
        step = node.steps[number - node.steps[0].number] if node.steps else None
        if step is None or step.number != number or step.record is not record:
            raise Broken(4, f"{host.name} takes record {number} of its log for another one")
        before, after = book.stores[number - 1], step.store
        for later in [each for each in book.stores if each >= number]:
            del book.stores[later]
        book.stores[number] = after
        book.payloads[number] = encode_record(record)
        book.tip = number
        self.world.note(host.name, f"record {number}", record)
        if type(record) is Commit:
            self._commit(book, record, number, before, after)
        elif type(record) is Cleared:
            self.cleared = True
            for (name, _), made in book.lasted.items():
                if name not in after.roots:
                    made.append((number, _CLEARED))
        elif type(record) is WentOn:
            for (name, version), made in book.lasted.items():
                if name == record.root:
                    made.append((number, None if version == record.version else _CLEARED))
        if type(record) in (Cleared, Owned):
            for name, root in before.roots.items():
                if after.roots.get(name) is not root:
                    book.swept.setdefault(number, set()).update(root.ephemerals)
        if type(record) is Owned and record.owner == "":
            self.disowned.add(record.root)

    def _commit(self, book: Book, record: Commit, number: int, before: Store, after: Store) -> None:
        tag = record.updates[0].message
        ops = self.ops.get(tag) if tag else None
        known = tag in self.ops
        if known:
            self._done_once(book, tag, record, number)
        self._commit_in_order(book, record)
        if record.revision != before.revision + 1 or after.revision != record.revision:
            raise Broken(1, f"commit {record.revision} of {book.host.name} follows {before.revision}")
        for update in record.updates:
            old, new = before.roots.get(update.root), after.roots[update.root]
            at = old.version if old is not None else ABSENT
            if (update.before, update.after, new.version) != (at, at + 1, at + 1):
                raise Broken(7, f"{update.root} goes from version {at} to {new.version} by {update!r:.200}")
            if ops is not None:
                self._transition(book, update.root, ops, old, new)
            elif not record.request:
                self._not_lasting(book, old, new)
            self._stamps(update.root, old.node if old is not None else None, new.node, new, old)
            rolled = ops is not None and len(ops) == 1 and ops[0][0] == "rollback"
            self._ephemerals(book, ops or (), old, new, after, rolled=rolled)
            made = book.lasted.setdefault((update.root, new.version), [])
            made.append((number, model.lasting(new, book.plain(new))))
        if ops is not None:
            self._expected(ops, before, tag)

    def _done_once(self, book: Book, tag: str, record: Commit, number: int) -> None:
        # A node that does not sync each record may forget in a power loss who owns a root.
        forgetful = book.host.setup.options.sync != "always"
        moved = forgetful or any(update.root in self.disowned for update in record.updates)
        if tag in self.done and not (moved and self.done[tag].book is not book):
            first = self.done[tag]
            where = f"record {first.number} of {first.book.host.name}"
            raise Broken(6, f"{tag} is done twice: {where}, and record {number} of {book.host.name}")
        versions = {update.root: update.after for update in record.updates}
        self.done[tag] = Done(book, number, record.revision, versions)
        book.tags[number] = tag
        self.count("commits")

    def _commit_in_order(self, book: Book, record: Commit) -> None:
        tag = record.updates[0].message
        if record.request and tag:  # an agent puts ephemeral nodes again as they were, without a message
            last = book.requests.get(record.session, 0)
            if record.request <= last and tag not in self.turned_away:
                raise Broken(
                    1, f"{book.host.name} does request {record.request} of a session after request {last}"
                )
            book.requests[record.session] = max(last, record.request)

    def _transition(self, book: Book, name: str, ops: Any, old: Root | None, new: Root) -> None:
        """What lasts is what the operations make of what lasted before."""
        value = None
        if old is not None:
            value = model.lasting(old, model.as_plain(old.node))
        at = old.version if old is not None else ABSENT
        for op in ops:
            if op[1][0] != name or (old is not None and _within_ephemeral(old, op)):
                continue
            restored = None
            if op[0] == "rollback":
                version = op[2] if op[2] >= 0 else at + op[2]
                made = book.lasted.get((name, version))
                if made is None or made[-1][1] is _CLEARED:
                    return
                restored = made[-1][1]
            try:
                value = model.evaluate(value, op, restored)
            except model.Refused:
                raise Broken(7, f"{op!r:.200} was done on {name}, and should have been refused") from None
        for path in new.ephemerals:  # which stay where they are, whatever lay there before
            value = model.remove(value, path[1:])
        found = model.lasting(new, book.plain(new))
        empty = value in (None, {}) and found in (None, {}) and bool(new.ephemerals)
        if not empty and not model.same(value, found):
            raise Broken(7, f"{ops!r:.300} made of {name} {found!r:.300}, and should make {value!r:.300}")
        marked = old is not None and (old.ephemerals, old.born) == (new.ephemerals, new.born)
        if old is not None and marked and model.same(model.as_plain(old.node), book.plain(new)):
            raise Broken(9, f"version {new.version} of {name} is a commit that changes nothing")

    def _not_lasting(self, book: Book, old: Root | None, new: Root) -> None:
        """A commit that nobody asked for takes ephemeral nodes away, or is what an owner brings along."""
        if old is None or old.version == ABSENT or old.node is None:
            return
        before = model.lasting(old, model.as_plain(old.node))
        after = model.lasting(new, book.plain(new))
        if not model.same(before, after) and not (before in (None, {}) and after in (None, {})):
            raise Broken(20, f"the end of a session changed what lasts in {new.name}: {before!r:.200}")

    def _expected(self, ops: Any, before: Store, tag: str) -> None:
        for _, path, _, expected, _ in ops:
            if expected is None:
                continue
            root = before.roots.get(path[0])
            found = get(root.node, path[1:]) if root is not None and root.node is not None else None
            actual = ABSENT if found is None else found[0]
            if actual != expected:
                raise Broken(9, f"{tag} expects {path} at version {expected}, was done at {actual}")
            self.count("expected versions met")

    def _stamps(
        self, where: str, old: Node | None, new: Node | None, root: Root, before: Root | None
    ) -> None:
        """A node that changed has the new version; another one has its old one, and is shared, not copied."""
        if new is None or old is new:
            return
        if new[0] > root.version:
            raise Broken(7, f"{where} has version {new[0]}, its root {root.version}")
        marked = before is not None and (
            bool(before.ephemerals) or bool(root.ephemerals) or bool(before.born) or bool(root.born)
        )
        if old is None or is_container(old) != is_container(new):
            if new[0] != root.version and not marked:
                raise Broken(7, f"{where} is new, and has version {new[0]}, not {root.version}")
            return
        if not is_container(new):
            if not model.same(old[1], new[1]) and new[0] != root.version:
                raise Broken(7, f"{where} changed, and has version {new[0]}, not {root.version}")
            return
        children = dict(pairs(old[1]))
        changed = len(children) != len(new[1])
        for oid, child in pairs(new[1]):
            known = children.get(oid)
            if known is not child:
                if known == child and not marked:
                    raise Broken(8, f"{where}.{oid} did not change, and was copied")
                changed = True
                self._stamps(f"{where}.{oid}", known, child, root, before)
        if changed and new[0] != root.version:
            raise Broken(7, f"{where} changed below, and has version {new[0]}, not {root.version}")
        if not changed and new[0] == root.version and not marked and children:
            raise Broken(7, f"{where} did not change, and has the new version {new[0]}")

    def _ephemerals(
        self, book: Book, ops: Any, old: Root | None, new: Root, after: Store, *, rolled: bool
    ) -> None:
        for path, session in new.ephemerals.items():
            if session not in after.leases and not book.host.node.uplink:
                raise Broken(20, f"{path} belongs to session {session[:8]}, which is over")
        value = book.plain(new)
        for path in new.born:
            if model.narrow(value, path[1:]) == {}:
                raise Broken(20, f"{path} came with an ephemeral node, is empty, and is still there")
        if old is None:
            return
        if rolled and dict(old.ephemerals) != dict(new.ephemerals):
            raise Broken(20, f"a rollback of {new.name} changed its ephemeral nodes")
        if ops:
            for path, session in old.ephemerals.items():
                if not model.covered(path, ops) and new.ephemerals.get(path) != session:
                    raise Broken(20, f"{ops!r:.200} took the ephemeral node {path} away")

    def durable(self, host: Host, number: int) -> None:
        """Promise 1: what the log calls durable is on the disk."""
        book = self.book(host)
        always = host.setup.options.sync == "always"
        for each in range(book.told + 1, number + 1):
            payload = book.payloads.get(each)
            if payload is None or b"\0" * 64 in payload:
                continue
            if not _on_disk(host, payload, synced=always):
                what = "synced" if always else "written"
                raise Broken(1, f"{host.name} calls record {each} durable, and it was not {what}")
        before = book.told
        book.told = max(book.told, number)
        book.certain = book.told if always else max(book.certain, min(host.log.log.synced, book.told))
        for each in range(before + 1, number + 1):
            self._show(book, each)
        for each in [each for each in book.stores if each < book.certain]:
            del book.stores[each]
        for each in [each for each in book.payloads if each <= book.told]:
            del book.payloads[each]
        for each in [each for each in book.tags if each <= book.certain]:
            del book.tags[each]

    def _show(self, book: Book, number: int) -> None:
        """Record `number` becomes visible: remember what its owner made, compare what a replica shows."""
        after = book.stores[number]
        before = book.stores.get(number - 1)
        host = book.host
        self.taken.update(book.swept.pop(number, ()))
        for name, root in after.roots.items():
            if before is not None and before.roots.get(name) is root:
                continue
            if root.owner == "":
                self._taken(book, number, before.roots.get(name) if before is not None else None, root)
                if root.version != ABSENT:
                    self._remember(host, root, book.plain(root))
            elif root.version != ABSENT and root.epoch:  # else it was given away, and nothing came yet
                self._replica(book, root)
            book.shown[name] = (root.epoch, root.version)

    def _taken(self, book: Book, number: int, old: Root | None, new: Root) -> None:
        if old is not None:
            self.taken.difference_update(path for path in new.ephemerals if path not in old.ephemerals)
            if self.ops.get(book.tags.get(number, "")):
                self.taken.update(path for path in old.ephemerals if path not in new.ephemerals)
        else:
            self.taken.difference_update(new.ephemerals.keys())

    def _remember(self, host: Host, root: Root, value: Any) -> None:
        key = (root.name, root.epoch, root.version)
        known = self.recorded.get(key)
        if known is None:
            self.recorded[key] = (value, root.last[1])
        elif not model.same(known[0], value):
            raise Broken(10, f"{host.name} uses version {root.version} of {root.name} twice")

    def _replica(self, book: Book, root: Root) -> None:
        host = book.host
        shown = book.shown.get(root.name)
        if shown is not None and shown[0] == root.epoch and root.version < shown[1]:
            raise Broken(10, f"{root.name} at {host.name} went back from {shown[1]} to {root.version}")
        known = self.recorded.get((root.name, root.epoch, root.version))
        if known is None:
            raise Broken(
                10, f"{root.name} at {host.name} shows version {root.version}, which its owner never had"
            )
        value = book.plain(root)
        if not model.same(known[0], value):
            raise Broken(
                10,
                f"version {root.version} of {root.name} at {host.name} is {value!r:.300}, at its owner it was"
                f" {known[0]!r:.300}",
            )
        self.count("replica steps")

    def failed(self, host: Host) -> None:
        """Promise 3: the log failed; the tree is what is durable."""
        node, book = host.node, self.book(host)
        book.failed = True
        self.count("log failures")
        if node.tip is not node.durable or node.failure is None:
            raise Broken(3, f"the log of {host.name} failed, and its tree is not what is durable")
        if node.durable_number != book.told or node.steps:
            raise Broken(3, f"{host.name} stands at {node.durable_number} after a failure, not {book.told}")
        if node.durable != book.stores[book.told]:
            raise Broken(3, f"the tree of {host.name} is not what it was after record {book.told}")
        self._forget(book, book.told, allowed=True)

    def _forget(self, book: Book, number: int, *, allowed: bool) -> None:
        """What was appended after record `number` is not in the log."""
        for each in [each for each in book.tags if each > number]:
            tag = book.tags.pop(each)
            self.done.pop(tag, None)
            if allowed:
                self.lost.add(tag)
        for each in [each for each in book.payloads if each > number]:
            del book.payloads[each]
        for key, made in list(book.lasted.items()):
            made[:] = [each for each in made if each[0] <= number]
            if not made:
                del book.lasted[key]
        book.tip = number
        book.requests.clear()
        book.cache.clear()

    def crashed(self, host: Host, power: bool) -> None:
        """The program is gone."""
        book = self.book(host)
        book.power = power or book.power
        self.count("power lost" if power else "kills and stops")

    def wiped(self, host: Host) -> None:
        """The host gets an empty disk."""
        book = self.book(host)
        for tag in [tag for tag, done in self.done.items() if done.book is book]:
            self.lost.add(tag)
            del self.done[tag]
        known = self.books[host] = Book(host)
        known.wiped = True

    def started(self, host: Host, opened: tega_log.Opened, state: Store) -> None:
        """Promises 4 and 5: all that was acknowledged is there, and what is there is what was."""
        book = self.book(host)
        last = opened.report.last
        always = host.setup.options.sync == "always"
        least = book.told if always or not book.power else book.certain
        if last < least:
            raise Broken(4, f"{host.name} starts with {last} records; {least} were acknowledged")
        expected = book.stores.get(last)
        if expected is None:
            raise Broken(4, f"{host.name} starts with {last} records; it wrote {sorted(book.stores)}")
        if state != expected:
            raise Broken(5, f"{host.name} starts with another tree: {_difference(expected, state)}")
        self._cut(host, opened)
        self.count("starts")
        if book.failed:  # what was refused may come back, and counts then
            book.failed = False
            for each in range(book.told + 1, last + 1):
                self._restored(book, each)
        lossy = book.power and not always
        for each in range(book.told + 1, last + 1):
            if each in book.stores and each - 1 in book.stores:
                self._show(book, each)
        self._forget(book, last, allowed=lossy)
        if lossy:
            book.shown.clear()
        book.stores = {last: state}
        book.payloads.clear()
        book.told = book.certain = book.tip = last
        book.power = book.wiped = False
        book.started = self.world.now
        for known in (book.heard, book.asked, book.first, book.pulls, book.turns, book.displaced):
            known.clear()

    def _cut(self, host: Host, opened: tega_log.Opened) -> None:
        """Promise 4: nothing is left of a torn tail in the log, and it is kept beside it."""
        if opened.report.torn is not None:
            self.count("torn tails")
            if f"{FOLDER}/{opened.report.torn.kept}" not in host.disk.names:
                raise Broken(4, f"the torn tail {opened.report.torn!r} of {host.name} was not kept")
        segments = sorted(name for name in host.disk.names if name.endswith(".log"))
        data = bytes(host.disk.names[segments[-1]].seen)
        header = unpack(SEGMENT, data)
        if isinstance(header, Header) and data[segment.end_of(data, header).offset :].strip(b"\0"):
            raise Broken(4, f"{host.name} has something behind the last record of {segments[-1]}")

    def _restored(self, book: Book, number: int) -> None:
        before, after = book.stores.get(number - 1), book.stores.get(number)
        if before is None or after is None or after.revision == before.revision:
            return
        for name, root in after.roots.items():
            if before.roots.get(name) is not root and root.owner == "":
                update = store.update_at(root, root.version)
                if update is not None and update.message in self.ops and update.message not in self.done:
                    self.done[update.message] = Done(book, number, after.revision, {name: root.version})
                    self.lost.discard(update.message)
                    self.came_back.add(update.message)

    # -- messages ----------------------------------------------------------------------------------

    def received(self, host: Host, peer: bytes, message: m.AnyMessage) -> None:
        """A node took a message."""
        book, node = self.book(host), host.node
        session = node.sessions.by_peer.get(peer)
        if isinstance(message, m.Hello) and session is not None and message.session[:8] in book.displaced:
            raise Broken(15, f"{message.tega_id} was taken over, comes back and is welcome at {host.name}")
        if session is None:
            told = any(isinstance(each, Send) and each.peer == peer for each in node.effects)
            if not isinstance(message, m.Bye) and not told:
                raise Broken(16, f"{host.name} has no session for {message!r:.100}, and does not say so")
            return
        book.heard[session.id[:8]] = self.world.now
        kind = type(message)
        if kind in m.REQUESTS:
            id: int = message[0]  # type: ignore[assignment,misc]
            mine = kind is m.Write and all(node.owner(op[1][0]) == "" for op in message.ops)  # type: ignore[union-attr]
            number = book.first.setdefault((session.id, id), node.number if mine else -1)
            # A read waits for the writes that its session made before.
            event = self.world.events if session.last_lsn <= node.durable_number else -1
            book.asked.setdefault((peer, id), (event, number, message))
        elif kind is m.Pull:
            book.pulls[peer, message.root] = message  # type: ignore[union-attr]
        if kind is m.Register or kind is m.Unregister or kind is m.Hello or kind is m.Forward:
            book.turns.clear()

    def sending(self, host: Host, peer: bytes | None, message: m.AnyMessage) -> None:
        """A node sends a message."""
        self.queues.sending(host.node, peer, message)
        book = self.book(host)
        kind = type(message)
        if kind is m.Welcome:
            for key in [key for key in book.asked if key[0] == peer]:
                del book.asked[key]  # hello can be said anew on a connection, and ids begin at 1 again
        elif kind is m.Changed:
            self._visible(host, message.root, message.epoch, message.version)  # type: ignore[union-attr]
        elif kind is m.RootUpdate:
            self.published(host, message)  # type: ignore[arg-type]
        elif kind is m.Chunk:
            self._chunk(book, peer, message)  # type: ignore[arg-type]
        elif kind is m.Invoke:
            self._invoke(book, message, host.node.sessions.by_peer.get(peer))  # type: ignore[arg-type]
        elif kind is m.Forward and peer is not None:
            body = decode(message.body)  # type: ignore[union-attr]
            if type(body) is m.Invoke:
                carrier = host.node.sessions.by_peer.get(peer)
                found = carrier.subsessions.get(message.session) if carrier is not None else None  # type: ignore[union-attr]
                self._invoke(book, body, found)
        elif peer is not None and (kind is m.Reply or kind is m.Failure):
            known = book.asked.pop((peer, message.id), None)  # type: ignore[union-attr]
            if known is not None:
                self._answered(book, known, message)

    def published(self, host: Host, message: m.RootUpdate) -> None:
        """Promise 1: what is published is durable."""
        update = store.update_from_plain(list(message.update))
        self._visible(host, update.root, update.epoch, update.after)

    def _visible(self, host: Host, name: str, epoch: str, version: int) -> None:
        root = host.node.durable.roots.get(name)
        # Without an epoch: a root that was given to an agent of which no update has come yet.
        if root is None or root.epoch != epoch or not epoch or version == ABSENT:
            return
        if version > root.version or (name, epoch, version) not in self.recorded:
            raise Broken(1, f"{host.name} shows version {version} of {name} before it is durable")

    def _answered(self, book: Book, known: tuple[int, int, Any], answer: m.AnyMessage) -> None:
        event, number, message = known
        kind = type(message)
        host = book.host
        if kind is m.Get and not message.txid:
            self._read_at_once(book, event, message, answer)
        elif kind is m.Write or kind is m.CommitTransaction:
            if isinstance(answer, m.Failure):
                self.turned_away.add(message.message)
            if isinstance(answer, m.Reply) and answer.value is not None:
                revision, versions = answer.value
                done = self.done.get(message.message)
                if revision and done is not None and done.book is book and done.number > book.told:
                    raise Broken(1, f"{message.message} is acknowledged before it is durable")
                for name, version in versions:
                    root = host.node.durable.roots.get(name)
                    if name in host.setup.settings.config and (root is None or root.version < version):
                        raise Broken(14, f"{message.message} is answered; {host.name} does not show it")
            elif (
                isinstance(answer, m.Failure)
                and answer.code in ("Collision", "NotFound")
                and not message.txid
                and number > book.told
                and not host.node.failure
            ):
                raise Broken(1, f"{answer.code} for {message.message} before {number} is durable")

    def _read_at_once(self, book: Book, event: int, message: m.Get, answer: m.AnyMessage) -> None:
        host = book.host
        name = message.path[0]
        root = host.node.durable.roots.get(name)
        if root is None or (host.node.owner(name) != "" and name not in host.node.followers):
            return
        if event not in (self.world.events, -1) and root.owner == "":
            raise Broken(2, f"{host.name} answers a read of {name} late")
        if not isinstance(answer, m.Reply) or message.form not in ("value", "node"):
            return
        if event == -1:
            return  # it shows what its session wrote, and that may have changed meanwhile
        version = root.version
        if message.version is not None:
            version = message.version if message.version >= 0 else version + message.version
            if root.owner != "" or (name, root.epoch, version) not in self.recorded:
                return
        known = self.recorded.get((name, root.epoch, version))
        if known is None:
            return
        if not model.same(model.narrow(known[0], message.path[1:]), answer.value[0]):
            raise Broken(
                7, f"{host.name} reads {answer.value[0]!r:.200} at {message.path} in version {version}"
            )
        self.count("reads of old versions" if message.version is not None else "reads")

    def _chunk(self, book: Book, peer: bytes | None, chunk: m.Chunk) -> None:
        """Promise 12: bounded chunks, and commits where they are kept."""
        size = len(encode(chunk))
        largest = max((len(encode(m.Reply(0, each[3]))) for each in chunk.entries), default=0)
        if chunk.tree and size > 2 * replica.CHUNK + largest + 200 * (
            len(chunk.entries) + len(chunk.ephemerals)
        ):
            raise Broken(12, f"{book.host.name} sends a chunk of {size} bytes")
        pull = book.pulls.pop((peer, chunk.root), None)
        if pull is None or peer is None:
            return
        root = book.host.node.durable.roots.get(chunk.root)
        if root is None or pull.cursor or not chunk.tree:
            self.count("catch-ups by commits")
            return
        self.count("catch-ups by trees")
        near = pull.epoch == root.epoch and root.oldest_update - 1 <= pull.version <= root.version
        if near and all(
            (kept := root.updates.get(version)) is not None and kept[0] == root.epoch
            for version in range(pull.version + 1, root.version + 1)
        ):
            raise Broken(12, f"{book.host.name} sends the tree of {chunk.root}, and has the commits")

    def _invoke(self, book: Book, message: m.Invoke, session: Any) -> None:
        """Promise 18: members of a group take turns."""
        node = book.host.node
        if session is None:
            raise Broken(17, f"{book.host.name} calls {message.path} at a connection without a session")
        if node.uplink is not None and all(each.tega_id != message.tega_id for each in node.sessions):
            return  # the node above chose the member
        able = frozenset(
            each.id
            for path, sessions in node.handlers
            if path == message.path
            for each in sessions
            if each.connected
        )
        last = book.turns.get(message.path)
        book.turns[message.path] = (session.id, able)
        if message.args and str(message.args[0]).startswith("all"):
            book.turns.pop(message.path)
        elif last is not None and last == (session.id, able) and len(able) > 1:
            raise Broken(18, f"{session.tega_id} is called at {message.path} twice in turn")

    # -- time and sessions -------------------------------------------------------------------------

    def settled(self, host: Host) -> None:
        """An event of a node is over."""
        book = self.book(host)
        book.looks += 1
        if book.failed and host.node.failure is None:
            book.failed = False
            for each in [each for each in book.stores if each > book.tip]:
                del book.stores[each]
        self._trusted_files(host)
        if book.looks % SAMPLE == 0:
            self._sessions(book)

    def _trusted_files(self, host: Host) -> None:
        if host.disk.distrusted:
            raise Broken(3, f"{host.name} writes to {host.disk.distrusted[0]} after a sync of it failed")

    def _sessions(self, book: Book) -> None:
        host, now = book.host, self.world.now
        node, settings = host.node, host.setup.settings
        longest = max(settings.lease, 3 * settings.heartbeat) + 0.5
        names: set[str] = set()
        for session in node.sessions.by_id.values():
            if session.via is None:
                if session.tega_id in names:
                    raise Broken(15, f"{session.tega_id} has two sessions at {host.name}")
                names.add(session.tega_id)
                heard = max(book.heard.get(session.id[:8], session.opened), book.started, host.resumed)
                if now - heard > longest:
                    raise Broken(15, f"the session of {session.tega_id} has been silent for {now - heard} s")
            if session.serving and not session.connected:
                raise Broken(17, f"calls wait for {session.tega_id}, whose connection is lost")
            if len(session.backlog) > sessions.MAX_MESSAGES:
                raise Broken(19, f"{len(session.backlog)} messages wait for {session.tega_id}")
        for known in host.peers.values():
            if known.size > QUEUE + (1 << 20):
                raise Broken(19, f"{known.size} bytes wait for {known.link.dialer.name}")

    def noted(self, host: Host, note: Note) -> None:
        """Promise 15: a lease is over when it is over, not earlier."""
        if note.event != "session ended":
            return
        book = self.book(host)
        book.turns.clear()
        if note.fields["why"] == "lease over":
            heard = max(book.heard.get(note.fields["session"], 0.0), book.started)
            if self.world.now - heard < host.setup.settings.lease - 0.001:
                raise Broken(
                    15,
                    f"the lease of {note.fields['tega_id']} is over after {self.world.now - heard:.3f} s",
                )
            self.count("leases over")
        elif note.fields["why"] == "taken over":
            self.count("takeovers")
            book.displaced.add(note.fields["session"])

    # -- programs ----------------------------------------------------------------------------------

    def ended(self, asked: Asked) -> None:
        """A request ended: its outcome is true."""
        if asked.kind is m.Call or asked.kind is m.CallAll:
            self._call_ended(asked)
        elif asked.about is not None and asked.kind in (m.Write, m.CommitTransaction):
            self._write_ended(asked)

    def _write_ended(self, asked: Asked) -> None:
        tag, error = asked.about, asked.error
        if error is None:
            if asked.value is None:
                return
            revision, versions = asked.value
            done = self.done.get(tag)
            if not revision or tag in self.lost:
                return
            if done is None:
                raise Broken(4, f"{tag} of {asked.program.name} is acknowledged, and in no log")
            if done.number > done.book.told:
                raise Broken(1, f"{tag} of {asked.program.name} is acknowledged, and not durable")
            if dict(versions) != done.versions or revision != done.revision:
                raise Broken(6, f"{tag} is answered {asked.value!r}; it made {done.versions}")
            self.count("acknowledged writes")
        else:
            self.count(f"write: {error.code}")
            outcome = getattr(error, "outcome", None)
            if outcome == "none" or (error.code in _UNDONE and outcome is None):
                self.refused[tag] = f"{error.code}: {error.message}"
                # An agent that does not sync each record may forget in a power loss that it asked before.
                forgetful = asked.program.to.setup.options.sync != "always"
                if tag in self.done and not forgetful:
                    raise Broken(6, f"{tag} failed with {error.code} ({outcome}), and is done")
            if error.code == "Collision" and getattr(error, "expected", 0) == getattr(error, "actual", 1):
                raise Broken(9, f"{tag} collides: {error.message}")

    def _call_ended(self, asked: Asked) -> None:
        tag, error = asked.about, asked.error
        if asked.kind is m.CallAll:
            if error is None:
                seen = set()
                for path, tega_id, ok, value in asked.value:
                    if (tuple(path), tega_id) in seen:
                        raise Broken(18, f"{tag} has two outcomes of {tega_id}")
                    seen.add((tuple(path), tega_id))
                    known = self.returned.get((tag, f"{tega_id.rsplit('/', 1)[-1]} at {tuple(path)}"))
                    if ok and (known is None or not known[0] or not model.same(known[1], value)):
                        raise Broken(18, f"{tag} has {value!r} of {tega_id}, which answered {known!r}")
                self.count("calls to a pattern")
            return
        answers = [answer for (call, _), answer in self.returned.items() if call == tag]
        if error is None:
            if len(answers) != 1 or not answers[0][0] or not model.same(answers[0][1], asked.value):
                raise Broken(17, f"{tag} ended with {asked.value!r}; its handler answered {answers!r}")
            self.count("results")
            return
        self.count(f"call: {error.code}")
        if isinstance(error, HandlerError):
            if len(answers) != 1 or answers[0][0]:
                raise Broken(17, f"{tag} ended with {error!r}; its handler answered {answers!r}")
        elif error.code == "NoHandler" and self.runs.get((tag, "")):
            raise Broken(17, f"{tag} ended with NoHandler, and a handler ran")

    def state_changed(self, program: Program, state: str) -> None:
        """A program's session has another state."""
        self.count(f"state: {state}")

    def invoked(self, program: Program, call: m.Invoke) -> Any:
        """Promise 17: a call runs once. Returns what the handler answers."""
        tag = str(call.args[0])
        who = f"{program.name} at {call.path}" if tag.startswith("all") else ""
        runs = self.runs[tag, who] = self.runs.get((tag, who), 0) + 1
        if runs > 1:
            raise Broken(17, f"{tag} runs twice, the second time at {program.name}")
        random = self.world.random
        if random.random() < 0.08:
            return None
        ok = random.random() < 0.85
        value: Any = random.choice([None, False, 0, "", [], {}, 0.0, "text", {"a": [1]}])
        if not ok:
            value = [random.choice(["ValueError", "KeyError"]), "bad"]
        where = program.name if not who else f"{program.name} at {call.path}"
        self.returned[tag, where] = (ok, value)
        return random.choice([0.0, 0.001, 0.05, 3.0]), ok, value

    def messages_in_order(self, listener: str, publisher: str, channel: str, number: int) -> None:
        """Promises 6 and 19: a message is heard once at most, and after those before it."""
        key = (listener, publisher, channel)
        last = self.heard.get(key, -1)
        if number <= last:
            raise Broken(6, f"{listener} hears message {number} of {publisher} after message {last}")
        self.heard[key] = number
        self.count("messages")

    def old_versions(self, host: Host) -> None:
        """Promise 8: a kept version never changes, whatever is written later."""
        if not host.up:
            return
        for name, root in sorted(host.node.durable.roots.items(), key=_first):
            if root.owner == "" and root.version != ABSENT:
                version = self.world.random.randint(max(root.oldest, 0), max(root.version, 0))
                kept = root.trees.get(version)
                known = self.recorded.get((name, root.epoch, version))
                if kept is None or known is None:
                    continue
                if not model.same(model.as_plain(kept[0]), known[0]):
                    raise Broken(8, f"version {version} of {name} at {host.name} has changed")


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def _on_disk(host: Host, payload: bytes, *, synced: bool) -> bool:
    prefix = f"{FOLDER}/log/"
    for name in sorted((name for name in host.disk.names if name.startswith(prefix)), reverse=True):
        inode = host.disk.names[name]
        if payload in (inode.durable if synced else inode.seen):
            return True
    return False


def _within_ephemeral(root: Root, op: Any) -> bool:
    """Whether `op` is about an ephemeral node or a part of one, so that it changes nothing that lasts."""
    kind, path, _, _, ephemeral = op
    for length in range(1, len(path) + 1):
        if path[:length] in root.ephemerals:
            return length < len(path) or kind != "put" or ephemeral
    return False


def _difference(expected: Store, found: Store) -> str:
    for field in ("kept", "revision", "leases", "staged"):
        one, other = getattr(expected, field), getattr(found, field)
        if one != other:
            return f"{field} should be {one!r:.400}, is {other!r:.400}"
    for name in {*expected.roots, *found.roots}:
        one, other = expected.roots.get(name), found.roots.get(name)
        if one is None or other is None:
            return f"root {name} should be {one!r:.300}, is {other!r:.300}"
        for field in one._fields:
            was, now = getattr(one, field), getattr(other, field)
            if was != now:
                return f"{name}.{field} should be {was!r:.400}, is {now!r:.400}"
    return "?"


__all__ += ["TegaError", "decode"]
