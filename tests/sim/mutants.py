"""One-line bugs, at least one for each promise of the design: what the simulation must be able to find.

A test that cannot fail shows nothing. Each mutant here is a bug that somebody could make; `run_mutants.py`
puts one after the other into a copy of the program and runs the simulation until it fails. A few need what no
run of ours reaches: the cost of a put, what plugins keep on disk, a refused tail behind a damaged snapshot;
these name the test that finds them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["MUTANTS", "PROMISES", "Mutant"]

PROMISES: Final = {
    1: "acknowledged means durable",
    2: "the disk delays commits only",
    3: "a failed write is refused, and never comes back",
    4: "a start finds every acknowledged commit, and no half of any",
    5: "the log is complete",
    6: "a retry is not a second write",
    7: "kept versions can be read and restored",
    8: "reading costs nothing to writers",
    9: "expected versions and transactions",
    10: "a replica shows a committed version, never an older one",
    11: "every replica reaches its owner's version",
    12: "catching up sends what is missing, in bounded parts",
    13: "subscribers hear of every change",
    14: "who writes through an agent sees the write there",
    15: "a session lives as long as its lease",
    16: "after a reconnect all is said anew",
    17: "a call ends in exactly one way",
    18: "groups",
    19: "a slow subscriber delays nobody, and is told what it lost",
    20: "ephemeral nodes",
    21: "a device takes its config",
}
"""In few words, by the numbers in the design."""


class Mutant(NamedTuple):
    """One bug."""

    name: str
    promise: int
    """The one that it breaks first. Others may speak before it."""
    file: str
    """The file that it is in."""
    old: str
    """What stands there, exactly once."""
    new: str
    """What stands there in the mutant."""
    events: int = 100_000
    """Within so many events of the simulation it must be found, counted over all seeds that were run."""
    test: str = ""
    """Instead of the simulation: the test that finds it."""


RARE: Final = 1_000_000
"""Events for a bug that needs a rare meeting of faults; some 100 seeds, a quarter of a minute."""

_STATE: Final = "tega_zmq/node/state.py"
_MACHINE: Final = "tega_zmq/node/machine.py"
_WRITING: Final = "tega_zmq/node/writing.py"
_LIFECYCLE: Final = "tega_zmq/node/lifecycle.py"
_CALLING: Final = "tega_zmq/node/calling.py"
_WATCHING: Final = "tega_zmq/node/watching.py"
_REPLICATION: Final = "tega_zmq/node/replication.py"
_REPLICA: Final = "tega_zmq/replica.py"
_SESSIONS: Final = "tega_zmq/sessions.py"
_COMMITLOG: Final = "tega_zmq/log/commitlog.py"
_RECOVERY: Final = "tega_zmq/log/recovery.py"
_FRAMING: Final = "tega_zmq/log/framing.py"
_DRAFT: Final = "tega_zmq/store/draft.py"
_STORE_WRITING: Final = "tega_zmq/store/writing.py"
_SNAPSHOT: Final = "tega_zmq/store/snapshot.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    # -- durable and atomic --------------------------------------------------------------------------
    Mutant(
        "ack-before-sync",
        1,
        _STATE,
        "        if self.number <= self.durable_number:\n",
        "        if True:\n",
    ),
    Mutant(
        "skip-a-sync",
        1,
        _COMMITLOG,
        "                file.write_sync(offset, data)\n",
        "                file.write(offset, data)\n",
    ),
    Mutant(
        "collision-before-sync",
        1,
        _WRITING,
        "        node.gate(session, failure)\n",
        "        node.send(session, failure)\n",
    ),
    Mutant(
        "told-before-sync",
        1,
        _STATE,
        "        self.effects.append(_new(Append, (record,)))\n",
        "        self.effects.append(_new(Append, (record,))); self.durable = self.tip\n",
    ),
    Mutant(
        "reads-wait-for-the-disk",
        2,
        "tega_zmq/node/reading.py",
        "        state = node.tip if session.last_lsn > node.durable_number else node.durable\n",
        "        state = node.tip\n",
    ),
    Mutant(
        "tip-kept-after-failure",
        3,
        _MACHINE,
        "    node.tip = node.durable\n",
        "    pass\n",
    ),
    Mutant(
        "writes-taken-after-failure",
        3,
        _STATE,
        "        if self.failure is not None:\n",
        "        if False:\n",
    ),
    Mutant(
        "failed-file-used-again",
        3,
        _COMMITLOG,
        "        self.give_up(reason)\n",
        "        pass\n",
    ),
    Mutant(
        "refused-tail-comes-back",
        3,
        _RECOVERY,
        "    return new.generation > old.generation and new.base <= old.lsn\n",
        "    return False\n",
        test="tests/unit/log/test_recovery.py::test_a_generation_that_was_never_used_is_dropped_when_records_before_it_are_lost",
    ),
    Mutant(
        "crc-forgotten",
        4,
        _FRAMING,
        "    if len(payload) < length or crc32(payload) != crc:\n",
        "    if len(payload) < length:\n",
        events=RARE,
    ),
    Mutant(
        "torn-tail-refused",
        4,
        _FRAMING,
        "    if data[end - 1] == 0:\n",
        "    if False:\n",
        events=RARE,
    ),
    Mutant(
        "torn-tail-forgotten",
        4,
        _RECOVERY,
        '    if stop.kind == "torn":\n',
        "    if False:\n",
    ),
    Mutant(
        "damage-skipped",
        4,
        _RECOVERY,
        '    if stop.kind == "damage" or stop.lsn <= durable:\n',
        "    if False:\n",
        events=RARE,
    ),
    Mutant(
        "killed-tail-not-synced",
        4,
        _RECOVERY,
        "    for name, start, end in () if plan.clean else plan.unsynced:\n",
        "    for name, start, end in ():\n",
        events=RARE,
    ),
    Mutant(
        "segment-folder-not-synced",
        4,
        "tega_zmq/log/segment.py",
        '        disk.sync_folder(f"{folder}/{LOG}")\n',
        "        pass\n",
    ),
    Mutant(
        "delete-lost-on-replay",
        5,
        "tega_zmq/store/encoding.py",
        "        if len(change) == 1:\n            made.append(Change(path, False))\n",
        "        if len(change) == 1:\n            pass\n",
    ),
    Mutant(
        "snapshot-without-last-commit",
        5,
        _SNAPSHOT,
        "    for part in _parts(iter(range(root.oldest_update, root.version + 1))):\n",
        "    for part in _parts(iter(range(root.oldest_update, root.version))):\n",
    ),
    Mutant(
        "snapshot-without-deleted-roots",
        5,
        _SNAPSHOT,
        "        yield from _dump_root(name, root)\n",
        "        yield from _dump_root(name, root) if root.node is not None else ()\n",
    ),
    Mutant(
        "outcome-not-kept",
        6,
        "tega_zmq/store/applying.py",
        "    lease = leases.get(record.session) if record.request else None\n",
        "    lease = None\n",
    ),
    Mutant(
        "outcome-not-in-snapshot",
        6,
        _SNAPSHOT,
        "[[request, revision, changed] for request, (revision, changed) in lease.outcomes]",
        "[[0, 0, []] for _ in ()]",
    ),
    Mutant(
        "retry-writes-twice",
        6,
        _WRITING,
        "        known = outcome(node.tip, session.id, request.id)\n",
        "        known = None\n",
        events=RARE,
    ),
    Mutant(
        "call-sent-again",
        6,
        "tega_zmq/client/protocol.py",
        "    {messages.Call, messages.CallAll, messages.CancelCall, messages.Publish}\n",
        "    {messages.CallAll, messages.CancelCall, messages.Publish}\n",
        events=RARE,
    ),
    # -- versions ------------------------------------------------------------------------------------
    Mutant(
        "version-counted-wrong",
        7,
        "tega_zmq/store/reading.py",
        "    meant = version if version >= 0 else root.version + version\n",
        "    meant = version if version >= 0 else root.version + version + 1\n",
    ),
    Mutant(
        "node-keeps-its-version",
        7,
        _DRAFT,
        "        self.version = root.version + 1\n",
        "        self.version = max(root.version, 0)\n",
    ),
    Mutant(
        "oldest-version-refused",
        7,
        "tega_zmq/store/reading.py",
        "    kept = root.trees.get(version)\n",
        "    kept = root.trees.get(version) if version > root.oldest else None\n",
        events=RARE,
    ),
    Mutant(
        "version-reused-after-delete",
        7,
        "tega_zmq/store/applying.py",
        "    after = advance(root, kept, update, draft.node, draft.ephemerals, draft.born, changes)\n",
        "    after = advance(root, kept, update, draft.node, draft.ephemerals, draft.born, changes)\n"
        "    after = after if draft.node is not None else after._replace(version=root.version)\n",
    ),
    Mutant(
        "put-copies-the-container",
        8,
        "tega_zmq/tree/node.py",
        "        node = (version, chain[index].insert(oids[index], node))\n"
        "    return node\n\n\ndef _replace(",
        "        node = (version, HashTrieMap(dict(pairs(chain[index]))).insert(oids[index], node))\n"
        "    return node\n\n\ndef _replace(",
        test="tests/unit/tree/test_cost.py::test_a_change_in_a_wide_container_costs_what_its_depth_does",
    ),
    Mutant(
        "expectation-dropped",
        9,
        _STORE_WRITING,
        "    if actual == expected:\n",
        "    if True:\n",
    ),
    Mutant(
        "version-0-not-expected",
        9,
        _STORE_WRITING,
        "    if op[3] is not None:\n",
        "    if op[3]:\n",
        events=RARE,
    ),
    Mutant(
        "collision-not-checked-at-commit",
        9,
        _WRITING,
        "    ops = transaction.ops\n",
        "    ops = tuple(op._replace(expected=None) for op in transaction.ops)\n",
        events=RARE,
    ),
    Mutant(
        "transaction-leaks",
        9,
        _WRITING,
        "        transaction.add(tuple(settled), name, store, node.now)\n",
        "        transaction.add(tuple(settled), name, store, node.now); node.durable = store\n",
    ),
    # -- replicas converge ---------------------------------------------------------------------------
    Mutant(
        "last-entry-of-tree-dropped",
        10,
        _REPLICA,
        '        return _tree_chunk(pull, "", 0, serving.cursor, tuple(chunk), True, serving.root), None\n',
        "        chunk = chunk[:-1] or chunk\n"
        '        return _tree_chunk(pull, "", 0, serving.cursor, tuple(chunk), True, serving.root), None\n',
    ),
    Mutant(
        "epoch-kept-after-loss",
        10,
        _MACHINE,
        "    if epochs:\n",
        "    if False:\n",
        events=RARE,
    ),
    Mutant(
        "other-epoch-not-noticed",
        11,
        _REPLICA,
        "        if epoch == self.epoch and version <= self.version:\n            return Step()\n"
        "        if version == ABSENT and self.version == ABSENT:\n",
        "        if version <= self.version:\n            return Step()\n"
        "        if version == ABSENT and self.version == ABSENT:\n",
        events=RARE,
    ),
    Mutant(
        "heartbeats-without-positions",
        11,
        _REPLICATION,
        "    for name in (*session.follows, *session.claims):\n",
        "    for name in session.claims:\n",
        events=RARE,
    ),
    Mutant(
        "lost-update-not-pulled",
        11,
        _REPLICA,
        "        if version == ABSENT and self.version == ABSENT:\n            return Step()\n"
        "        return self._pull(now)\n",
        "        return Step()\n",
        events=RARE,
    ),
    Mutant(
        "missed-while-away-not-sent",
        12,
        "tega_zmq/store/replicas.py",
        "    for after in range(version + 1, end + 1):\n",
        "    for after in range(version + 2, end + 1):\n",
    ),
    Mutant(
        "catch-up-without-tree",
        12,
        _REPLICA,
        "    if root is None:\n        return _tree_chunk(pull,",
        "    if root is None or updates_since(root, pull.epoch, pull.version) is None:\n"
        "        return _tree_chunk(pull,",
        events=2 * RARE,
    ),
    Mutant(
        "chunk-dropped",
        12,
        _REPLICA,
        "            self._cursor += 1\n            return Step(tuple(records), self._message())\n",
        "            self._cursor += 1\n            return Step((), self._message())\n",
        events=RARE,
    ),
    Mutant(
        "tree-in-one-piece",
        12,
        _REPLICA,
        "        if size >= CHUNK:\n            break\n    else:\n",
        "        if False:\n            break\n    else:\n",
        events=RARE,
    ),
    Mutant(
        "delete-above-not-told",
        13,
        "tega_zmq/subscriptions.py",
        "            elif len(at) < depth and path[: len(at)] == at:\n",
        "            elif False:\n",
        events=RARE,
    ),
    Mutant(
        "gap-not-shown",
        13,
        _WATCHING,
        "    previous = known[1] if known is not None and known[0] == epoch else -1\n",
        "    previous = update.before\n",
        events=RARE,
    ),
    Mutant(
        "missed-while-slow",
        13,
        _WATCHING,
        "            subscription.lagging = True\n        else:\n            _tell_one(",
        "            pass\n        else:\n            _tell_one(",
        events=RARE,
    ),
    Mutant(
        "own-changes-hidden",
        13,
        _WATCHING,
        "    if message is not None:\n        subscription.sent[name]",
        "    if message is not None and tega_id != subscription.session.tega_id:\n"
        "        subscription.sent[name]",
    ),
    Mutant(
        "answer-before-replica",
        14,
        "tega_zmq/node/passing.py",
        "        if needed:\n",
        "        if False:\n",
    ),
    Mutant(
        "replicas-not-in-snapshot",
        14,
        _SNAPSHOT,
        "    for name, root in sorted(pairs(store.roots), key=_key):\n        yield from",
        "    for name, root in ((n, r) for n, r in sorted(pairs(store.roots), key=_key) if not r.owner):\n"
        "        yield from",
    ),
    # -- sessions, messages, calls -------------------------------------------------------------------
    Mutant(
        "lease-never-over",
        15,
        _LIFECYCLE,
        "            if silent >= session.lease:\n",
        "            if False:\n",
    ),
    Mutant(
        "lease-not-run-at-restart",
        15,
        _LIFECYCLE,
        "            node.sessions.add(session, node.now + node.settings.lease)\n",
        '            node.sessions.add(session, float("inf"))\n',
        events=RARE,
    ),
    Mutant(
        "sessions-forgotten-at-restart",
        15,
        _LIFECYCLE,
        "    for lease in leases:\n        if lease.via == ABOVE:\n",
        "    for lease in ():\n        if lease.via == ABOVE:\n",
    ),
    Mutant(
        "ephemerals-outlive-session",
        15,
        _LIFECYCLE,
        "    commit = end_session(node.tip, session.id, time=node.clock(), tega_id=session.tega_id)\n",
        "    return\n",
    ),
    Mutant(
        "loser-of-takeover-comes-back",
        15,
        _LIFECYCLE,
        "        node.displaced[other.id] = None\n",
        '        node.displaced[""] = None\n',
        events=RARE,
    ),
    Mutant(
        "takeover-not-understood",
        15,
        "tega_zmq/client/protocol.py",
        "        if isinstance(error, errors.TakenOver):\n",
        "        if False:\n",
        events=RARE,
    ),
    Mutant(
        "announced-once-only",
        16,
        "tega_zmq/node/uplink.py",
        "        for key, request in session.announced.items():\n",
        "        for key, request in ():\n",
        events=RARE,
    ),
    Mutant(
        "program-not-told-lost",
        16,
        "tega_zmq/client/protocol.py",
        '        if self.state == "suspended" and now >= self._lapse():\n',
        "        if False:\n",
        events=RARE,
    ),
    Mutant(
        "gone-session-not-told",
        16,
        _MACHINE,
        "            node.effects.append(Send(peer, messages.Gone()))\n",
        "            pass\n",
    ),
    Mutant(
        "handler-gone-missing",
        17,
        _CALLING,
        "                _answer(node, ended, _gone(ended.path, each), None)\n",
        "                pass\n",
    ),
    Mutant(
        "timeout-missing",
        17,
        _CALLING,
        "    for ended in node.calls.expired(node.now):\n",
        "    for ended in ():\n",
        events=RARE,
    ),
    Mutant(
        "late-result-delivered",
        17,
        _CALLING,
        "    if not node.calls.served_by(message.call, session):\n        return\n",
        "",
    ),
    Mutant(
        "falsy-result-lost",
        17,
        _CALLING,
        "    ok, value = message.ok, message.value\n",
        "    ok, value = message.ok and bool(message.value), message.value\n",
    ),
    Mutant(
        "no-handler-not-told",
        17,
        _CALLING,
        "    _count(node, error)\n    raise error\n",
        "    session.pending[request.id] = None\n",
    ),
    Mutant(
        "group-call-to-unconnected",
        18,
        "tega_zmq/calls.py",
        "            if session.connected:\n",
        "            if True:\n",
        events=RARE,
    ),
    Mutant(
        "group-calls-do-not-go-round",
        18,
        "tega_zmq/calls.py",
        "            offers.move_to_end(session)\n",
        "            pass\n",
        events=RARE,
    ),
    Mutant(
        "group-with-one-outcome",
        18,
        _CALLING,
        "    many.waiting = len(found) + 1\n",
        "    many.waiting = 2\n",
        events=RARE,
    ),
    Mutant(
        "queue-not-bounded",
        19,
        _SESSIONS,
        "        while len(self.backlog) > MAX_MESSAGES or (",
        "        while False and (",
        events=RARE,
    ),
    Mutant(
        "drop-not-counted",
        19,
        _SESSIONS,
        "            self._waiting -= self.backlog.popleft()[1]\n            self.dropped += 1\n",
        "            self._waiting -= self.backlog.popleft()[1]\n",
        events=RARE,
    ),
    Mutant(
        "newest-dropped-first",
        19,
        _SESSIONS,
        "            self._waiting -= self.backlog.popleft()[1]\n            self.dropped += 1\n",
        "            self._waiting -= self.backlog.pop()[1]\n            self.dropped += 1\n",
        events=RARE,
    ),
    Mutant(
        "drop-not-told",
        19,
        _WATCHING,
        "        node.send(session, Dropped(session.dropped))\n",
        "        pass\n",
        events=RARE,
    ),
    Mutant(
        "container-of-ephemeral-left",
        20,
        _DRAFT,
        "            if path not in self.born:\n                return\n            parent",
        "            if True:\n                return\n            parent",
    ),
    Mutant(
        "rollback-removes-ephemerals",
        20,
        _DRAFT,
        "            self.node = attach(self.node, path[1:], node, self.version)\n",
        "            self._unmark(path)\n",
    ),
    Mutant(
        "rollback-brings-ephemerals-back",
        20,
        _DRAFT,
        "        restored = lasting(kept)\n",
        "        restored = kept[0]\n",
    ),
    Mutant(
        "put-above-removes-ephemerals",
        20,
        _DRAFT,
        "            elif below:\n                self._put_above(path, value, below)\n",
        "",
        events=RARE,
    ),
    Mutant(
        "born-containers-not-in-snapshot",
        20,
        _SNAPSHOT,
        '    marks = [*pairs(ephemerals), *((path, "") for path, _ in pairs(born))]\n',
        "    marks = [*pairs(ephemerals)]\n",
    ),
    # -- plugins -------------------------------------------------------------------------------------
    Mutant(
        "applied-not-noted",
        21,
        "tega_zmq/plugins/instance.py",
        "                entry.file.write(state)\n",
        "                pass\n",
        test="tests/unit/plugins/test_host.py::test_what_was_applied_is_known_to_the_next_run",
    ),
    Mutant(
        "applied-though-it-raised",
        21,
        "tega_zmq/plugins/instance.py",
        "            self._note_begun(entry, last)\n",
        "            self._note_begun(entry, last)\n            entry.applied = taken\n",
        test="tests/unit/plugins/test_host.py::test_one_that_raised_is_tried_again_at_reconnect_and_reload",
    ),
    Mutant(
        "rolled-back-to-what-was-applied-before-it-raised",
        21,
        "tega_zmq/plugins/instance.py",
        "            self._note_begun(entry, last)\n",
        "            pass\n",
        test="tests/unit/plugins/test_host.py::test_a_rollback_after_one_that_raised_is_applied",
    ),
    Mutant(
        "not-noted-and-forgotten",
        21,
        "tega_zmq/plugins/instance.py",
        "            entry.noted = None\n",
        "            entry.noted = state\n",
        test="tests/unit/plugins/test_host.py::test_what_could_not_be_noted_is_noted_later_without_a_call",
    ),
)
