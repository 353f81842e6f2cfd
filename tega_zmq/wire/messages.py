"""The messages: one frozen type each.

`docs/protocol.md` says what they mean and when they may be sent. On the wire a message is a msgpack array:
its code, then its fields in the order in which they stand here. The annotation of a field is what
`tega_zmq.wire.codec` checks on arrival.

Requests share their first three fields: `id` counts up within a session from 1; `ack` is the lowest id of
that session that is still unanswered; `timeout` is how many milliseconds the sender still waits, at most a
day.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, TypeAlias

Count: TypeAlias = Annotated[int, "count"]
"""An integer from 0 to 2^63-1; every other integer of a field lies within -2^63 to 2^63-1."""

PathField: TypeAlias = tuple[str, ...]
"""A path of oids; may be empty only where the protocol says so."""

VersionField: TypeAlias = int | str | None
"""A version: absolute, or negative: back from the present; a tag, or a time as `2026-11-20T12:00:00Z`: the
version that was the present one then; None: the present one."""

Position: TypeAlias = tuple[str, str, int]
"""(root, epoch, version)."""

Maybe: TypeAlias = tuple[()] | tuple[Any]
"""A value that may be absent: () or (value,)."""

ChangeField: TypeAlias = tuple[PathField, Maybe, Maybe, str]
"""(path, old, new, session that an ephemeral node belongs to)."""

OpField: TypeAlias = tuple[str, PathField, Any, int | None, bool]
"""`tega_zmq.store.model.Op`, field by field."""

UpdateField: TypeAlias = tuple[Any, ...]
"""`tega_zmq.store.model.Update`, as `tega_zmq.log.records` writes it."""


# -- both ways -------------------------------------------------------------------------------------


class Hello(NamedTuple):
    """First message of every connection. `session` and `token` are empty for a new session."""

    version: Count
    tega_id: str
    kind: str
    """`client`, `agent`, `shell`, `plugin`, `bridge`: for listings, gives no right; or `delegate`."""
    session: str
    token: str


class Bye(NamedTuple):
    """The session ends in order, now."""


class Heartbeat(NamedTuple):
    """I am here; of roots that you follow, or that I follow from you, I am at these positions."""

    positions: tuple[Position, ...]


class Result(NamedTuple):
    """How an `Invoke` ended: `value`, or the handler's error as (type, text)."""

    call: Count
    ok: bool
    value: Any


class Forward(NamedTuple):
    """`body`, an encoded message, belongs to the session `session` of `tega_id` beyond the sender."""

    session: str
    tega_id: str
    body: bytes


class ForwardEnded(NamedTuple):
    """The session `session` beyond the sender is over."""

    session: str


class RootUpdate(NamedTuple):
    """One commit of one root, from its owner to a follower. Without changes: a beacon."""

    update: UpdateField


class Pull(NamedTuple):
    """I follow `root` and am at `version` of `epoch`; send what I lack, from chunk `cursor` on."""

    root: str
    epoch: str
    version: int
    cursor: Count


class Chunk(NamedTuple):
    """Part of the answer to `Pull`.

    `updates`: the commits that follow the follower's version; else `entries` of the tree of `version`.
    `last`: nothing follows. With the last chunk of a tree come its ephemeral nodes and its commit's
    `time`, `tega_id` and `message`.
    """

    root: str
    epoch: str
    version: int
    cursor: Count
    last: bool
    updates: tuple[UpdateField, ...]
    tree: bool
    present: bool
    entries: tuple[tuple[PathField, int, bool, Any], ...]
    ephemerals: tuple[tuple[PathField, str], ...]
    time: float
    tega_id: str
    message: str


# -- requests: session to node ---------------------------------------------------------------------


class Get(NamedTuple):
    """Read `path`. `form`: see docs/protocol.md."""

    id: Count
    ack: Count
    timeout: Count
    path: PathField
    version: VersionField
    form: str
    txid: str


class Find(NamedTuple):
    """Nodes whose path matches `regex` oid by oid."""

    id: Count
    ack: Count
    timeout: Count
    regex: str
    txid: str


class Write(NamedTuple):
    """Apply `ops` as one commit; with a `txid`, add them to that transaction instead."""

    id: Count
    ack: Count
    timeout: Count
    ops: tuple[OpField, ...]
    message: str
    txid: str


class Begin(NamedTuple):
    id: Count
    ack: Count
    timeout: Count


class Candidate(NamedTuple):
    """What the transaction would make: the tree of each root that it touches, and the changes."""

    id: Count
    ack: Count
    timeout: Count
    txid: str


class CommitTransaction(NamedTuple):
    id: Count
    ack: Count
    timeout: Count
    txid: str
    message: str


class CancelTransaction(NamedTuple):
    id: Count
    ack: Count
    timeout: Count
    txid: str


class Check(NamedTuple):
    """Would the transaction commit? Between nodes: `ops` instead of a `txid`."""

    id: Count
    ack: Count
    timeout: Count
    txid: str
    ops: tuple[OpField, ...]


class Log(NamedTuple):
    """The newest `limit` kept commits that touched `path`.

    Of these only those before version `before`, at `since` (Unix seconds) or later, made by `by` (empty: by
    anybody).
    """

    id: Count
    ack: Count
    timeout: Count
    path: PathField
    limit: Count
    before: int | None = None
    since: float | None = None
    by: str = ""


class Diff(NamedTuple):
    """Changes that lead from `path` at `version` to `other_path` at `other_version`."""

    id: Count
    ack: Count
    timeout: Count
    path: PathField
    version: VersionField
    other_path: PathField
    other_version: VersionField


class Blame(NamedTuple):
    """Who changed each leaf at and below `path` last, as it stands at `version`."""

    id: Count
    ack: Count
    timeout: Count
    path: PathField
    version: VersionField


class Tag(NamedTuple):
    """Give `version` of `root` the name `name`; one that it had before stands for it no longer."""

    id: Count
    ack: Count
    timeout: Count
    root: str
    version: VersionField
    name: str


class Untag(NamedTuple):
    """Take the name `name` away from the version of `root` that has it."""

    id: Count
    ack: Count
    timeout: Count
    root: str
    name: str


class Updates(NamedTuple):
    """The commits of `root` after version `after`, `limit` at most, whole."""

    id: Count
    ack: Count
    timeout: Count
    root: str
    after: int
    limit: Count


class Restore(NamedTuple):
    """Carry out `updates` of a backup, which follow `version` of `root`; `first`: it begins with them."""

    id: Count
    ack: Count
    timeout: Count
    root: str
    first: bool
    version: int
    updates: tuple[UpdateField, ...]


class Part(NamedTuple):
    """From byte `offset` on: what a backup needs of `version` of `root`, as msgpack. `what`: commit, tree,
    ephemeral."""

    id: Count
    ack: Count
    timeout: Count
    root: str
    version: int
    what: str
    offset: Count


class Piece(NamedTuple):
    """The bytes from `offset` on of the frame of a `Restore` that is longer than frames are, `size` bytes."""

    id: Count
    ack: Count
    timeout: Count
    offset: Count
    size: Count
    data: bytes


class Subscribe(NamedTuple):
    """Hear of changes at, below and above `path`; `since`: positions up to which they are known.

    `named`: of each at the path that its writer put or deleted, instead of where the least difference lies.
    """

    id: Count
    ack: Count
    timeout: Count
    subscription: Count
    path: PathField
    scope: str
    since: tuple[Position, ...]
    named: bool = False


class SubscribeRegex(NamedTuple):
    """Hear of changes at and below every path that matches `regex` oid by oid."""

    id: Count
    ack: Count
    timeout: Count
    subscription: Count
    regex: str
    scope: str
    since: tuple[Position, ...]
    named: bool = False


class Unsubscribe(NamedTuple):
    """Ends a subscription, to changes or to messages."""

    id: Count
    ack: Count
    timeout: Count
    subscription: Count


class Listen(NamedTuple):
    """Hear the messages of `channel`; with `regex`, of every channel whose whole name matches."""

    id: Count
    ack: Count
    timeout: Count
    subscription: Count
    channel: str
    regex: bool
    scope: str


class Publish(NamedTuple):
    id: Count
    ack: Count
    timeout: Count
    channel: str
    value: Any


class Register(NamedTuple):
    """This session answers calls at `path`."""

    id: Count
    ack: Count
    timeout: Count
    path: PathField


class Unregister(NamedTuple):
    id: Count
    ack: Count
    timeout: Count
    path: PathField


class Call(NamedTuple):
    id: Count
    ack: Count
    timeout: Count
    path: PathField
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class CallAll(NamedTuple):
    """Call every handler whose path matches `regex` oid by oid."""

    id: Count
    ack: Count
    timeout: Count
    regex: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class CancelCall(NamedTuple):
    """Give up the call that was made with request id `call`. Answered by the call's `Cancelled`."""

    id: Count
    ack: Count
    timeout: Count
    call: Count


class Claim(NamedTuple):
    """This agent owns `root` and is at `version` of `epoch`."""

    id: Count
    ack: Count
    timeout: Count
    root: str
    epoch: str
    version: int


class Follow(NamedTuple):
    """This agent keeps a replica of `root`; answered with how its updates come, and where it is.

    `topics`: the agent can subscribe to topics. The answer's topic is empty if the updates come over this
    connection.
    """

    id: Count
    ack: Count
    timeout: Count
    root: str
    topics: bool


class Report(NamedTuple):
    """What this session says of itself, shown in `agents`; replaces what it said under `name` before."""

    id: Count
    ack: Count
    timeout: Count
    name: str
    value: Any


class Inspect(NamedTuple):
    """Read a listing of the node: see docs/protocol.md for the names."""

    id: Count
    ack: Count
    timeout: Count
    what: str


class Manage(NamedTuple):
    """Act on the node: `snapshot`, `clear`, `sync`, `disown`, `reload`."""

    id: Count
    ack: Count
    timeout: Count
    what: str
    argument: str


# -- node to session -------------------------------------------------------------------------------


class Welcome(NamedTuple):
    """Answer to `Hello`. Times in seconds, sizes in bytes."""

    version: Count
    session: str
    token: str
    resumed: bool
    tega_id: str
    """Of the node."""
    server: str
    """An id of this run of the node's program: another one means that it restarted."""
    lease: float
    heartbeat: float
    changes: str
    """Where the updates are published: `:PORT` on the host that was dialled, or a whole endpoint."""
    max_value: Count


class Refused(NamedTuple):
    """Hello is refused, or the peer spoke before it: the error."""

    code: str
    message: str
    fields: dict[str, Any]


class Reply(NamedTuple):
    id: Count
    value: Any


class Failure(NamedTuple):
    id: Count
    code: str
    message: str
    fields: dict[str, Any]


class Changed(NamedTuple):
    """One commit, as far as it concerns a subscription.

    `previous` is the version of the last one sent on this subscription for this root. `reset`: what lay
    between is not kept any more; `changes` holds the present value of what is subscribed to.
    """

    subscription: Count
    root: str
    epoch: str
    previous: int
    version: int
    time: float
    tega_id: str
    message: str
    backto: int | None
    reset: bool
    changes: tuple[ChangeField, ...]


class Message(NamedTuple):
    """A message on a channel, for the subscriptions that it matches."""

    subscriptions: tuple[Count, ...]
    channel: str
    tega_id: str
    value: Any


class Dropped(NamedTuple):
    """So many messages were dropped since the last one, because this session read too slowly."""

    count: Count  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


class Expired(NamedTuple):
    """The transaction `txid` of this session was idle for too long, and is no more."""

    txid: str
    text: str


class Invoke(NamedTuple):
    """Run the handler at `path`; answer `Result` within `timeout` milliseconds."""

    call: Count
    path: PathField
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    timeout: Count
    tega_id: str


class Abandon(NamedTuple):
    """Nobody waits for `call` any more."""

    call: Count


class Gone(NamedTuple):
    """The node knows no session for this connection: say hello."""


class Displaced(NamedTuple):
    """Another program said hello as this tega_id; this session is over (`TakenOver`)."""

    tega_id: str


Request: TypeAlias = (
    Get
    | Find
    | Write
    | Begin
    | Candidate
    | CommitTransaction
    | CancelTransaction
    | Check
    | Log
    | Diff
    | Subscribe
    | SubscribeRegex
    | Unsubscribe
    | Listen
    | Publish
    | Register
    | Unregister
    | Call
    | CallAll
    | CancelCall
    | Claim
    | Follow
    | Report
    | Inspect
    | Manage
    | Blame
    | Tag
    | Untag
    | Updates
    | Restore
    | Part
    | Piece
)

Answer: TypeAlias = Reply | Failure

AnyMessage: TypeAlias = (
    Hello
    | Bye
    | Heartbeat
    | Result
    | Forward
    | ForwardEnded
    | RootUpdate
    | Pull
    | Chunk
    | Request
    | Welcome
    | Refused
    | Answer
    | Changed
    | Message
    | Dropped
    | Invoke
    | Abandon
    | Gone
    | Displaced
    | Expired
)

CODES: dict[int, type[Any]] = {
    1: Hello,
    2: Bye,
    3: Heartbeat,
    4: Result,
    5: Forward,
    6: ForwardEnded,
    7: RootUpdate,
    8: Pull,
    9: Chunk,
    20: Get,
    21: Find,
    22: Write,
    23: Begin,
    24: Candidate,
    25: CommitTransaction,
    26: CancelTransaction,
    27: Log,
    28: Diff,
    29: Subscribe,
    30: SubscribeRegex,
    31: Unsubscribe,
    32: Listen,
    33: Publish,
    34: Register,
    35: Unregister,
    36: Call,
    37: CallAll,
    38: CancelCall,
    39: Claim,
    40: Follow,
    41: Report,
    42: Inspect,
    43: Manage,
    44: Blame,
    45: Tag,
    46: Untag,
    47: Updates,
    48: Restore,
    49: Part,
    50: Check,
    51: Piece,
    60: Welcome,
    61: Refused,
    62: Reply,
    63: Failure,
    64: Changed,
    65: Message,
    66: Dropped,
    67: Invoke,
    68: Abandon,
    69: Gone,
    70: Displaced,
    71: Expired,
}

REQUESTS: frozenset[type[Any]] = frozenset(cls for code, cls in CODES.items() if 20 <= code < 60)
