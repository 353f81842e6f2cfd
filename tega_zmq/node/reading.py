"""Requests that read: values, attributes, finding, history."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

from tega_zmq import errors, paths, store, transactions, tree, values
from tega_zmq.errors import InvalidValue, NotFound, Offline, ProtocolError, TegaError, TooLarge
from tega_zmq.node import past, walking
from tega_zmq.node.passing import pass_up, try_above
from tega_zmq.node.state import ABOVE, Node
from tega_zmq.node.walking import Steps
from tega_zmq.paths import Path, format_path
from tega_zmq.patterns import OidPattern, compile_oids
from tega_zmq.sessions import Session
from tega_zmq.store import Change, Gap, Op, Root, Store, Update, lookup
from tega_zmq.tree import Node as TreeNode
from tega_zmq.tree.node import pairs
from tega_zmq.wire.messages import Blame, Diff, Failure, Find, Get, Log, Maybe, Reply

MAX_ANSWER = 7 << 20
"""Most bytes of values in one answer; it must fit into a frame."""

_FITS = MAX_ANSWER // 4 - 5
"""A string of fewer characters fits into an answer, whatever they are."""

MAX_LOGGED = 1000
"""Most changes of one commit in an answer to `Log`."""
SHORT = 2000
"""Most nodes of a value that is read at one go."""

_new = tuple.__new__
"""Makes a named tuple in half the time that its class takes, where every request comes by."""

_AGE = 4
"""Where the age stands in the form "node"."""

_FORMS = frozenset({"value", "node", "place", "attributes", "oids", "edges"})


def get_request(node: Node, session: Session, request: Get) -> None:
    """Read one path, at a version or now, in one of six forms."""
    id, _, _, asked, reference, form, txid = request
    path = paths.check(asked)
    if form not in _FORMS:
        raise InvalidValue(f"there is no form {form[:32]!a}; there are {', '.join(sorted(_FORMS))}")
    if txid:
        candidate = _candidate(node, session, request, path)
        if candidate is None:
            return
        state = candidate
    elif node.uplink is not None and not _here(node, path[0]):
        _read_through(node, session, request, path[0])
        return
    else:  # as `_state` says
        state = node.tip if session.last_lsn > node.durable_number else node.durable
    version = None
    shown_of = state
    try:
        if reference is not None:
            version = past.reference(node, state, path[0], reference)
            shown_of = past.recalled(node, state, path[0], version)
        shown = _form(node, shown_of, request, path, version, SHORT)
    except _Long as error:
        steps = _long_form(node, shown_of, request, path, version, error.found)
        walking.begin(node, session, request, _number(node, state), steps, "read parts of it")
        return
    except TegaError as error:
        # That something is not there may be a delete that is not durable yet.
        _answer(node, session, state, _failure(id, error))
        return
    _answer(node, session, state, _new(Reply, (id, shown)))


def _candidate(node: Node, session: Session, request: Get, path: Path) -> Store | None:
    """Return what is read in a transaction; None: it is of another's root, and passed on."""
    transaction = transactions.find(session, request.txid, node.now)
    is_known = path[0] in transaction.candidate.roots or _here(node, path[0])
    if request.version is not None or is_known:
        return transaction.candidate
    ops = [op for op in transaction.ops if op.path[0] == path[0]]
    if any(op.kind == "rollback" for op in ops):  # only the owner has the versions
        try_above(node, session, request, ops)
        return None
    asked = request._replace(path=(path[0],), form="value", txid="")
    pass_up(node, session, asked, path[0], convert=partial(_overlaid, node, session, request))
    return None


def _answer(node: Node, session: Session, state: Store, answer: Reply | Failure) -> None:
    """Send `answer`, which was read in `state`, once that is durable."""
    if node.number > node.durable_number and state is node.tip:
        node.gate(session, answer)
    else:
        session.pending.pop(answer.id, None)
        node.send(session, answer)


def find_request(node: Node, session: Session, request: Find) -> None:
    """Find the nodes whose path matches a regex, oid by oid."""
    pattern = compile_oids(request.regex)
    if request.txid:
        state = transactions.find(session, request.txid, node.now).candidate
    else:
        state = _state(node, session)
    steps = _found(kept_up(node, state), pattern, request.regex)
    walking.begin(node, session, request, _number(node, state), steps, "make the regex narrower")


def _found(state: Store, pattern: OidPattern, regex: str) -> Steps:
    found: list[list[Any]] = []
    left = MAX_ANSWER
    for each in store.find(state, pattern):
        if isinstance(each, int):
            yield each
            continue
        path, groups, found_node = each
        value, size = yield from _value(found_node, left)
        left -= 64 + size
        if left < 0:
            raise TooLarge(
                f"what {regex!a} finds does not fit into one answer of {MAX_ANSWER} bytes;"
                " make the regex narrower",
                limit=MAX_ANSWER,
            )
        found.append([path, groups, value])
        yield 4
    return found


def _number(node: Node, state: Store) -> int:
    """Return the record of the log that what is read in `state` depends on."""
    return node.number if state is node.tip else 0


def log_request(node: Node, session: Session, request: Log) -> None:
    """List the kept commits that touched a path, newest first, and the gaps between them."""
    path = paths.check(request.path)
    if not _here(node, path[0]):
        _read_through(node, session, request, path[0])
        return
    if path[0] not in node.durable.roots:
        raise NotFound(f"there is no root {path[0]}", path=format_path(path))
    limit = max(1, min(request.limit, 10_000))
    updates = past.log(node, path, limit, request.before, request.since, request.by)
    node.reply(session, request.id, _entries(updates))


def _entries(found: list[Update | Gap]) -> list[list[Any]]:
    """Return the entries of a log, `[first, last, why]` for a gap in it.

    If they are more than one answer takes, the largest changes are left out, and an entry that lacks some
    says last how many. Raises `TooLarge` if there is no room even without changes.
    """
    updates = [each for each in found if not isinstance(each, Gap)]
    left = MAX_ANSWER - sum(64 + values.size(each.tega_id) + values.size(each.message) for each in updates)
    if left < 0:
        raise TooLarge(
            f"{len(updates)} commits do not fit into one answer of {MAX_ANSWER} bytes; ask for fewer",
            limit=MAX_ANSWER,
        )
    sizes = [
        (_size(change), at, index)
        for at, update in enumerate(updates)
        for index, change in enumerate(update.changes[:MAX_LOGGED])
    ]
    if sum(size for size, _, _ in sizes) > left:
        sizes.sort()
    listed: list[list[int]] = [[] for _ in updates]
    for size, at, index in sizes:
        left -= size
        if left < 0:
            break
        listed[at].append(index)
    entries = iter([_entry(update, sorted(those)) for update, those in zip(updates, listed, strict=True)])
    return [[*each] if isinstance(each, Gap) else next(entries) for each in found]


def _entry(update: Update, listed: list[int]) -> list[Any]:
    shown = [update.changes[index] for index in listed]
    changes = [[change.path, [change.value] if change.present else []] for change in shown]
    entry = [update.after, update.time, update.tega_id, update.message, update.backto, changes]
    left_out = len(update.changes) - len(listed)
    return [*entry, left_out] if left_out else entry


def _size(change: Change) -> int:
    return 16 + sum(map(values.size, change.path)) + (values.size(change.value) if change.present else 0)


def diff_request(node: Node, session: Session, request: Diff) -> None:
    """Compare two subtrees, each at a version or now."""
    path, other = paths.check(request.path), paths.check(request.other_path)
    if not _here(node, path[0]):
        _read_through(node, session, request, path[0])
        return
    if not _here(node, other[0]):
        _read_through(node, session, request, other[0])
        return
    version = past.reference(node, node.durable, path[0], request.version)
    other_version = past.reference(node, node.durable, other[0], request.other_version)
    state = past.recalled(node, node.durable, path[0], version)
    if other[0] == path[0]:
        state = past.recalled(node, node.durable, path[0], version, other_version)
    else:
        state = past.recalled(node, state, other[0], other_version)
    steps = _differences(store.diff(state, path, version, other, other_version))
    walking.begin(node, session, request, 0, steps, "compare parts")


def _differences(differences: Iterator[tuple[Path, TreeNode | None, TreeNode | None]]) -> Steps:
    changes: list[list[Any]] = []
    left = MAX_ANSWER
    for relative, *sides in differences:
        entry: list[Any] = [relative]
        left -= 32
        for side in sides:
            if side is None:
                entry.append(())
                continue
            value, size = yield from _value(side, MAX_ANSWER)
            left -= size
            entry.append((value,))
        if left < 0:
            raise TooLarge(f"the diff is larger than {MAX_ANSWER} bytes; compare parts", limit=MAX_ANSWER)
        changes.append(entry)
        yield 10
    return changes


def blame_request(node: Node, session: Session, request: Blame) -> None:
    """Answer with who changed each leaf at and below a path last."""
    path = paths.check(request.path)
    if not _here(node, path[0]):
        _read_through(node, session, request, path[0])
        return
    version = past.reference(node, node.durable, path[0], request.version)
    state = past.recalled(node, node.durable, path[0], version)
    lookup(state, path, version)
    steps = _blamed(node, state, path, version)
    walking.begin(node, session, request, 0, steps, "ask for parts of it")


def _blamed(node: Node, state: Store, path: Path, version: int | None) -> Steps:
    root = state.roots[path[0]]
    noted = ("blame", path, root.epoch, version)
    if noted not in node.known:
        # What follows may have to wait for the disk, and is begun anew then: this is not.
        leaves: list[tuple[Path, int]] = []
        left = MAX_ANSWER
        for leaf in store.blame(state, path, version):
            if isinstance(leaf, int):
                yield leaf
                continue
            left -= 32 + sum(map(len, leaf[0]))
            if left < 0:
                raise _too_many(path)
            leaves.append(leaf)
            if len(leaves) % 250 == 0:
                yield 1000
        node.known[noted] = leaves, (yield from past.commits(root, leaves))
    leaves, (made, want) = node.known[noted]
    if want is not None:
        made = made | past.older_commits(node, root, want)
    found: list[list[Any]] = []
    left = MAX_ANSWER
    for at, each in leaves:
        time, tega_id, message = made.get(each, (None, "", ""))
        left -= 32 + sum(map(len, at)) + len(tega_id) + 4 * len(message)
        if left < 0:
            raise _too_many(path)
        found.append([at, each, time, tega_id, message])
        if len(found) % 250 == 0:
            yield 1000
    return found


def _too_many(path: Path) -> TooLarge:
    return TooLarge(
        f"{format_path(path)} has more leaves than fit into one answer; ask for parts", limit=MAX_ANSWER
    )


# -- where to read ---------------------------------------------------------------------------------


def _here(node: Node, root: str) -> bool:
    """Whether this node has the tree of `root`: it owns it, or keeps a replica."""
    if node.uplink is None or root in node.settings.operational:
        return True
    return root in node.followers and root in node.durable.roots


def is_left_over(node: Node, root: Root) -> bool:
    """Whether `root` is a replica that hears of no change: neither the config nor an agent below lists it.

    It stays, for an agent below may ask for it again, while there is no link to the node above.
    """
    return root.owner == ABOVE and root.name not in node.followers


def kept_up(node: Node, state: Store) -> Store:
    """Return `state` without the replicas that are left over."""
    if node.uplink is None:
        return state
    roots = state.roots
    for root in state.roots.values():
        if is_left_over(node, root):
            roots = roots.discard(root.name)
    return state._replace(roots=roots)


def _read_through(node: Node, session: Session, request: Any, root: str) -> None:
    if session.kind == "below":  # it was asked above already
        raise NotFound(f"{node.settings.tega_id} does not own {root}, and cannot answer for it", path=root)
    if not node.online:
        raise Offline(
            f"{node.settings.tega_id} has no replica of {root}, and no link to the node above", root=root
        )
    pass_up(node, session, request, root)


def _state(node: Node, session: Session) -> Store:
    """A session sees its own writes: while one is not durable yet, its reads wait for it."""
    return node.tip if session.last_lsn > node.durable_number else node.durable


def age(node: Node, root: str) -> float | None:
    """Seconds since the owner of a replica was heard of; None at the owner."""
    follower = node.followers.get(root)
    if follower is None:
        return None
    if follower.heard is None:
        return node.now - node.started
    return max(0.0, node.now - follower.heard)


# -- forms -----------------------------------------------------------------------------------------


def _form(
    node: Node,
    state: Store,
    request: Get,
    path: Path,
    version: int | None = None,
    most: int | None = None,
) -> Any:
    """Return what a form shows. Raises `_Long` if that takes more than `most` nodes."""
    form = request.form
    if form == "edges":
        return [[list(edge) for edge in store.edges(state, path, version)], age(node, path[0])]
    try:
        found = lookup(state, path, version)
    except NotFound:
        offered = _with_handlers(node.handlers.below(path), path, None) if version is None else None
        if not offered or form in ("attributes", "place"):
            raise
        if form == "oids":
            below = offered if type(offered) is dict else {}
            return [[oid, type(each) is dict] for oid, each in below.items()]
        since = age(node, path[0])
        return [offered, since] if form == "value" else [offered, store.ABSENT, False, "", since, True]
    if form == "value":
        value = found[1]
        kind = type(value)
        if (kind is str and len(value) < _FITS) or kind is int or kind is bool or kind is float:
            # The usual case: such a leaf is no place for handlers, and fits into any answer.
            return [value, age(node, path[0]) if path[0] in node.followers else None]
    if form == "attributes":
        tree_value(found, most=most)
        return walking.at_once(_attributes(node, state, path, version))
    if form == "oids":
        if most is not None and tree.is_container(found) and len(found[1]) > most:
            raise _Long(found)
        return walking.at_once(_oids(found))
    if form == "place":
        root = state.roots[path[0]]
        return [root.version if version is None else version, found[0], root.epoch, age(node, path[0])]
    return _shown(node, state, request, path, version, found, tree_value(found, most=most))


def _shown(
    node: Node,
    state: Store,
    request: Get,
    path: Path,
    version: int | None,
    found: TreeNode,
    value: Any,
) -> list[Any]:
    offered = node.handlers.below(path) if version is None else []
    if offered:
        value = _with_handlers(offered, path, value)
    since = age(node, path[0])
    if request.form == "value":
        return [value, since]
    is_ephemeral = store.is_ephemeral(state, path, version)
    return [value, found[0], is_ephemeral, state.roots[path[0]].epoch, since, bool(offered)]


def _with_handlers(offered: list[tuple[Path, list[Session]]], path: Path, value: Any) -> Any:
    """Return `value` of `path` with the handlers that are `offered` at and below it."""
    for at, sessions in offered:
        names = [f"%{session.tega_id}.{at[-1]}" for session in sessions]
        shown: Any = names[0] if len(names) == 1 else names
        if at == path:
            return shown if value is None else value
        if value is None:
            value = {}
        if not isinstance(value, dict):
            continue
        place = value
        for oid in at[len(path) : -1]:
            place = place.setdefault(oid, {})
            if not isinstance(place, dict):
                break
        else:
            place.setdefault(at[-1], shown)
    return value


def _long_form(
    node: Node, state: Store, request: Get, path: Path, version: int | None, found: TreeNode
) -> Steps:
    if request.form == "attributes":
        return (yield from _attributes(node, state, path, version))
    if request.form == "oids":
        return (yield from _oids(found))
    value, _ = yield from _value(found, MAX_ANSWER)
    return _shown(node, state, request, path, version, found, value)


def _attributes(node: Node, state: Store, path: Path, version: int | None) -> Steps:
    return [(yield from store.attributes(state, path, version)), age(node, path[0])]


def _oids(found: TreeNode) -> Steps:
    listed: list[list[Any]] = []
    if tree.is_container(found):
        for oid, child in pairs(found[1]):
            listed.append([oid, tree.is_container(child)])
            if len(listed) % 1000 == 0:
                yield 1000
    return listed


class _Long(Exception):
    """What is shown of `found` is not to be made at one go."""

    def __init__(self, found: TreeNode) -> None:
        super().__init__()
        self.found = found


def _value(found: TreeNode, limit: int) -> Generator[int, None, tuple[Any, int]]:
    """Return the plain value of a subtree and its size in bytes; yield what it costs, step by step.

    Raises `TooLarge` as `tree_value`.
    """
    if not tree.is_container(found):
        size = values.size(found[1])
        cost = _cost(found[1], size)
        if cost > 4:
            yield cost
        return found[1], size
    top: dict[str, Any] = {}
    waiting = [(found, top)]
    size = 5
    cost = 2
    while waiting:
        each, place = waiting.pop()
        for oid, child in pairs(each[1]):
            size += 2 + len(oid)
            if tree.is_container(child):
                below: dict[str, Any] = {}
                place[oid] = below
                waiting.append((child, below))
                size += 5
                cost += 3
            else:
                place[oid] = child[1]
                more = values.size(child[1])
                size += more
                cost += 3 + _cost(child[1], more)
            if cost >= 1000:
                if size > limit:
                    raise _too_large()
                yield cost
                cost = 0
    if size > limit:
        raise _too_large()
    yield cost
    return top, size


def _cost(leaf: Any, size: int) -> int:
    """Return what it costs to see that the size of `leaf` is `size`: of a list, each item is looked at."""
    if type(leaf) is list:
        return size // 4
    return size // 500 if type(leaf) is str and not leaf.isascii() else 0


def _too_large() -> TooLarge:
    return TooLarge(
        f"the value is larger than {MAX_ANSWER} bytes; read parts of it (`oids` lists what it"
        " holds; the shell's `export` reads them all)",
        limit=MAX_ANSWER,
    )


def tree_value(found: TreeNode | None, limit: int = MAX_ANSWER, most: int | None = None) -> Any:
    """Return the plain value of a subtree. Raises `TooLarge` if it does not fit into an answer.

    If it has more nodes than `most`, raises `_Long` instead.
    """
    if found is None:
        return None
    left = limit
    waiting = [found]
    while waiting:
        each = waiting.pop()
        if tree.is_container(each):
            if most is not None:
                most -= len(each[1])
                if most < 0:
                    raise _Long(found)
            for oid, child in each[1].items():
                left -= 2 + len(oid)
                waiting.append(child)
        else:
            left -= values.size(each[1])
        if left < 0:
            raise _too_large()
    return tree.plain(found)


def _maybe(found: TreeNode | None) -> Maybe:
    return () if found is None else (tree_value(found),)


def change_size(change: list[Any]) -> int:
    """Return about how many bytes of an answer `[path, old, new]` takes, a side being `()` or `(value,)`."""
    path, *sides = change
    return 32 + sum(map(values.size, path)) + sum(values.size(side[0]) for side in sides if side)


def changes_between(path: Path, old: TreeNode | None, new: TreeNode | None) -> Iterator[list[Any]]:
    """Yield `[path, old, new]` for what differs between two subtrees at `path`."""
    for relative, before, after in tree.diff(old, new):
        yield [(*path, *relative), _maybe(before), _maybe(after)]


def _overlaid(node: Node, session: Session, request: Get, answer: Reply | Failure) -> Reply | Failure:
    """Answer a read in a transaction, of a root that is not here, from what its owner sent.

    `answer` has the present value of the whole root, if it is there; the transaction's operations are
    applied to it.
    """
    name = request.path[0]
    ops: list[Op] = []
    root_age = None
    if isinstance(answer, Failure):
        if answer.code != "NotFound":
            return answer
    elif isinstance(answer.value, list) and len(answer.value) == 2:
        value, root_age = answer.value
        ops.append(Op("put", (name,), value))
    else:
        return _failure(request.id, ProtocolError(f"the owner of {name} sent no value"))
    try:
        transaction = transactions.find(session, request.txid, node.now)
        ops += [op._replace(expected=None) for op in transaction.ops if op.path[0] == name]
        made = store.write(
            store.empty(node.durable.kept),
            ops,
            time=0.0,
            tega_id=session.tega_id,
            session=session.id,
            fresh=lambda: "",
            max_value=MAX_ANSWER,
        ).store
        shown = _form(node, made, request, request.path)
    except TegaError as error:
        return _failure(request.id, error)
    if request.form != "oids":
        shown[_AGE if request.form == "node" else -1] = root_age
    return Reply(request.id, shown)


def _failure(id: int, error: TegaError) -> Failure:
    return Failure(id, *errors.encode(error))
