"""Subscriptions and channels: sub, subr, unsub, unsubr, pub."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

from tega_zmq.errors import TegaError
from tega_zmq.shell.commands.data import VALUE
from tega_zmq.shell.output import Paint, Result, flow, safe, to_json
from tega_zmq.shell.session import Session, path_of
from tega_zmq.shell.spec import Argument, Command, UsageError

CATEGORY = "Changes and messages"

_WIDEST = 400
"""Most characters of one value in an event; --json shows all."""

_LOCAL = Argument(
    "--local", "flag", "only what happens at this node; otherwise an agent asks upwards as well"
)


def sub(session: Session, args: argparse.Namespace) -> Result:
    """Follow a path, and the channel of that name."""
    path_of(args.path)
    begin = getattr(args, "from")
    return _subscribe(session, args.path, regex=False, local=args.local, as_json=args.json, begin=begin)


def subr(session: Session, args: argparse.Namespace) -> Result:
    """Follow every path, and every channel, that a regex matches."""
    return _subscribe(session, args.regex, regex=True, local=args.local, as_json=args.json)


def _subscribe(
    session: Session, what: str, *, regex: bool, local: bool, as_json: bool, begin: Any = None
) -> Result:
    key = (what, regex)
    if key in session.subscriptions:
        raise UsageError(f"{what} is subscribed to already; {_undo(regex)} {what} ends that")
    as_json = as_json or session.around.as_json
    paint = session.around.paint

    def changed(change: Any) -> None:
        session.around.show(to_json(change_event(change)) if as_json else change_text(change, paint))

    def heard(message: Any) -> None:
        session.around.show(to_json(message_event(message)) if as_json else message_text(message, paint))

    # From here on it may end at any time.
    made: list[Any] = []
    session.subscriptions[key] = made

    def ended(error: TegaError) -> None:
        if session.subscriptions.get(key) is made:
            del session.subscriptions[key]
        _cancel(made)
        session.on_ended(what, error)

    scope = "local" if local else "global"
    since = {} if begin is None else {"from_version": begin}
    try:
        made.append(session.client.subscribe(what, changed, regex=regex, scope=scope, on_end=ended, **since))
        made.append(session.client.listen(what, heard, regex=regex, scope=scope, on_end=ended))
    except BaseException:
        session.subscriptions.pop(key, None)
        for each in made:
            each.cancel()
        raise
    if session.subscriptions.get(key) is not made:
        _cancel(made)  # it ended before there was a second one to end
    return Result({"subscribed": what}, "")


def _cancel(made: list[Any]) -> None:
    """End what has not ended by itself; what cannot be ended goes with the session."""
    for each in made:
        if each.error is None:
            with suppress(TegaError):
                each.cancel()


def _undo(regex: bool) -> str:
    return "unsubr" if regex else "unsub"


def unsub(session: Session, args: argparse.Namespace) -> Result:
    """End what `sub` began."""
    return _unsubscribe(session, args.path, regex=False)


def unsubr(session: Session, args: argparse.Namespace) -> Result:
    """End what `subr` began."""
    return _unsubscribe(session, args.regex, regex=True)


def _unsubscribe(session: Session, what: str | None, *, regex: bool) -> Result:
    keys = [key for key in session.subscriptions if key[1] == regex and what in (None, key[0])]
    if not keys and what is not None:
        raise UsageError(f"{what} is not subscribed to")
    failure: TegaError | None = None
    for key in keys:
        for subscription in session.subscriptions.pop(key):
            try:
                subscription.cancel()
            except TegaError as error:
                failure = error
    if failure is not None:
        raise failure
    return Result({"unsubscribed": [key[0] for key in keys]}, "")


def pub(session: Session, args: argparse.Namespace) -> Result:
    """Send a message to a channel."""
    value = session.value(args)
    count = session.client.publish(args.channel, value)
    return Result({"sent_to": count}, f"sent to {count} at this node")


# -- events ----------------------------------------------------------------------------------------


def change_event(change: Any) -> dict[str, Any]:
    """Return a change as plain data; `old` and `new` are left out where there is nothing."""
    event: dict[str, Any] = {"path": change.path}
    if not change.created and not change.reset:
        event["old"] = change.old
    if not change.deleted:
        event["new"] = change.new
    event |= {
        "version": change.version,
        "tega_id": change.tega_id,
        "time": change.time,
        "message": change.message,
    }
    for name in ("reset", "ephemeral"):
        if getattr(change, name):
            event[name] = True
    if change.backto is not None:
        event["backto"] = change.backto
    return event


def change_text(change: Any, paint: Paint) -> str:
    """Return a change in one line: `config-pi1.net.eth0.mtu: 1500 -> 9000  (@5 by noc-1: jumbo frames)`."""
    value = safe(flow(change.new, _WIDEST), lines=False)
    before = safe(flow(change.old, _WIDEST), lines=False)
    if change.reset:
        what = "deleted" if change.deleted else f"{paint(value, 'green')} (changes before it were missed)"
    elif change.deleted:
        what = f"deleted, was {paint(before, 'red')}"
    elif change.created:
        what = paint(value, "green")
    else:
        what = f"{paint(before, 'red')} -> {paint(value, 'green')}"
    why = f"@{change.version} by {change.tega_id}"
    if change.backto is not None:
        why += f", rollback to {change.backto}"
    if change.message:
        why += f": {change.message}"
    path = paint(safe(change.path, lines=False), "cyan")
    return f"{path}: {what}  {paint('(' + safe(why, lines=False) + ')', 'dim')}"


def message_event(message: Any) -> dict[str, Any]:
    """Return a message as plain data."""
    return {"channel": message.channel, "message": message.value, "tega_id": message.tega_id}


def message_text(message: Any, paint: Paint) -> str:
    """Return a message in one line: `alerts: {"level": 3}  (from noc-1)`."""
    channel = paint(safe(message.channel, lines=False), "cyan")
    value = safe(flow(message.value, _WIDEST), lines=False)
    return f"{channel}: {value}  {paint('(from ' + safe(message.tega_id, lines=False) + ')', 'dim')}"


_NOTHING_TO_END = "a single command subscribes to nothing that could be ended; `tega sub` ends with Ctrl-C"

COMMANDS = (
    Command(
        "sub",
        CATEGORY,
        "Show changes at, below and above a path, and messages on the channel of that name",
        sub,
        (
            Argument("PATH", "path", "the path, and the channel"),
            Argument("--from", "version", "show first every change since that version, tag or time"),
            _LOCAL,
        ),
        "What comes is shown above the prompt. As a single command it goes on until Ctrl-C.",
        ("sub config-pi1", "sub config-pi1 --from golden", "sub alerts"),
    ),
    Command(
        "subr",
        CATEGORY,
        "Show changes and messages by regular expression",
        subr,
        (Argument("REGEX", "regex", r"oids parted by \. ; for channels, the whole name"), _LOCAL),
        examples=(r"subr config-.*\.net", r"subr alerts\..*"),
    ),
    Command(
        "unsub",
        CATEGORY,
        "End a `sub`, or all of them",
        unsub,
        (Argument("PATH", "path", "what was subscribed to; without it, all", required=False),),
        session_only=_NOTHING_TO_END,
    ),
    Command(
        "unsubr",
        CATEGORY,
        "End a `subr`, or all of them",
        unsubr,
        (Argument("REGEX", "regex", "what was subscribed to; without it, all", required=False),),
        session_only=_NOTHING_TO_END,
    ),
    Command(
        "pub",
        CATEGORY,
        "Send a message to a channel; it is not stored",
        pub,
        (Argument("CHANNEL", "channel", "the channel's name"), VALUE),
        examples=("pub alerts {level: 3, text: 'link down'}",),
    ),
)
