"""What was found and done, as text for people and as plain values for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tega_zmq.check.repair import Repaired
from tega_zmq.check.survey import Lost, Problem, Stored, Survey
from tega_zmq.errors import ProtocolError
from tega_zmq.log.records import decode_record
from tega_zmq.paths import format_path
from tega_zmq.store.model import ABSENT, Commit, Record, Replicated, Root, Update
from tega_zmq.tree.node import pairs

__all__ = ["as_plain", "as_text", "lost_as_plain", "lost_as_text", "repaired_as_plain", "repaired_as_text"]

MAX_LINES: Final = 20
"""Most lines of one kind in the text; the plain values hold all."""


def as_plain(found: Survey) -> dict[str, Any]:
    """Return the report as plain values."""
    state = found.state
    return {
        "folder": found.folder,
        "store": found.store,
        "starts": not found.refusal,
        "refusal": found.refusal or None,
        "whole": found.whole,
        "clean": found.clean == found.last,
        "records": {"last": found.last, "snapshot": _base(found)},
        "revision": state.revision,
        "segments": [
            {
                "file": each.file,
                "first": each.header.lsn if each.header else each.first,
                "last": each.stretches[-1].last if each.stretches else None,
                "records": sum(stretch.last - stretch.first + 1 for stretch in each.stretches),
                "generation": each.header.generation if each.header else None,
                "bytes": each.length,
                "end": each.end,
            }
            for each in found.segments
        ],
        "snapshots": [
            {
                "file": each.file,
                "lsn": each.header.lsn if each.header else each.lsn,
                "revision": each.revision,
                "generation": each.header.generation if each.header else None,
                "bytes": each.size,
                "whole": not each.problem,
            }
            for each in found.snapshots
        ],
        "roots": [
            {
                "root": name,
                "owner": root.owner or None,
                "epoch": root.epoch,
                "version": None if root.version == ABSENT else root.version,
                "oldest": None if root.version == ABSENT else root.oldest,
                "present": root.node is not None,
            }
            for name, root in _roots(found)
        ],
        "sessions": [
            {
                "session": lease.session,
                "tega_id": lease.tega_id,
                "via": lease.via or None,
                "outcomes": len(lease.outcomes),
                "ephemerals": len(lease.ephemerals),
            }
            for _, lease in sorted(pairs(state.leases), key=_name)
        ],
        "problems": [each._asdict() for each in found.problems],
        "lost": lost_as_plain(found.lost),
        "unfinished_repair": found.unfinished,
        "other_files": list(found.others),
    }


def _base(found: Survey) -> int:
    return found.base.header.lsn if found.base is not None and found.base.header is not None else 0


def _roots(found: Survey) -> list[tuple[str, Root]]:
    return sorted(pairs(found.state.roots), key=_name)


def _name(pair: tuple[str, Any]) -> str:
    return pair[0]


def lost_as_plain(lost: Lost | None) -> dict[str, Any] | None:
    """Return what is lost as plain values; None: nothing is."""
    if lost is None:
        return None
    return {
        "first": lost.first,
        "last": lost.last if lost.last >= lost.first else None,
        "more": lost.more,
        "revision": lost.revision,
        "readable": [_stored(each) for each in lost.readable],
    }


def _stored(each: Stored) -> dict[str, Any]:
    made: dict[str, Any] = {"lsn": each.lsn, "file": each.file, "offset": each.offset}
    try:
        record = decode_record(each.payload)
    except ProtocolError as error:
        return {**made, "kind": None, "problem": error.message}
    made["kind"] = type(record).__name__
    if type(record) is Commit:
        made["revision"] = record.revision
    made["updates"] = [
        {
            "root": update.root,
            "version": update.after,
            "time": update.time,
            "tega_id": update.tega_id,
            "message": update.message,
            "paths": [format_path(change.path) for change in update.changes],
        }
        for update in _updates(record)
    ]
    return made


def _updates(record: Record) -> tuple[Update, ...]:
    if type(record) is Commit:
        return record.updates
    return (record.update,) if type(record) is Replicated else ()


def repaired_as_plain(done: Repaired) -> dict[str, Any]:
    """Return what a repair did as plain values."""
    return {
        "kept": done.kept or None,
        "changed": list(done.changed),
        "removed": list(done.removed),
        "epochs": dict(done.epochs),
        "old_versions_lost": list(done.versions),
    }


# -- text ------------------------------------------------------------------------------------------


def as_text(found: Survey) -> str:
    """Return the report for people."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Survey) -> Iterator[str]:
    plain = as_plain(found)
    at = f"revision {found.state.revision}, record {found.last}"
    yield f"{found.folder}: store {found.store or 'unknown'}, {at}"
    yield ""
    yield "snapshots:" if plain["snapshots"] else "snapshots: none"
    for each in plain["snapshots"]:
        what = f"revision {each['revision']}" if each["whole"] else "damaged"
        yield f"  {each['file']}  after record {each['lsn']}, {what}, {each['bytes']} bytes"
    yield "segments:" if plain["segments"] else "segments: none"
    for each in plain["segments"]:
        yield f"  {each['file']}  {_range(each)}, {each['bytes']} bytes, {_ENDS[each['end']]}"
    yield "roots:" if plain["roots"] else "roots: none"
    for each in plain["roots"]:
        version = "no version yet" if each["version"] is None else f"version {each['version']}"
        oldest = "" if each["oldest"] in (None, each["version"]) else f" (kept from {each['oldest']})"
        owner = f", owner {each['owner']}" if each["owner"] else ""
        gone = "" if each["present"] or each["version"] is None else ", deleted"
        epoch = f", epoch {each['epoch']}" if each["epoch"] else ""
        name = format_path((each["root"],))
        yield _safe(f"  {name}  {version}{oldest}{epoch}{owner}{gone}")
    yield f"sessions: {len(plain['sessions'])}"
    for each in plain["sessions"][:MAX_LINES]:
        ephemerals = f", {each['ephemerals']} ephemeral nodes" if each["ephemerals"] else ""
        yield f"  {_safe(each['tega_id'])}{ephemerals}"
    if len(plain["sessions"]) > MAX_LINES:
        yield f"  and {len(plain['sessions']) - MAX_LINES} more"
    if found.others:
        yield "other files, which are left alone: " + _safe(", ".join(found.others[:MAX_LINES]))
    yield ""
    for problem in found.problems[:MAX_LINES]:
        yield _problem(problem)
    if len(found.problems) > MAX_LINES:
        yield f"and {len(found.problems) - MAX_LINES} problems more: see --json"
    if found.whole:
        yield "whole: a node starts with all of it"
    elif found.log_whole:
        yield "the history is damaged: a node starts, with all of its present; --repair keeps the old"
        yield "versions that can be read, and takes away:"
        yield from (_safe(f"  {each.lost}") for each in found.flaws if each.kind == "history")
    elif not found.refusal:
        yield "damaged, but a node starts, and nothing is lost; --repair takes away what is damaged"
    else:
        yield f"damaged: a node does not start with it. It says: {_safe(found.refusal)}"
        yield lost_as_text(found.lost) if found.lost else "nothing is lost: --repair puts it in order"


_ENDS: Final = {
    "end": "its end is free",
    "seal": "closed",
    "torn": "torn at the end",
    "damage": "damaged",
    "header": "its header is damaged",
    "unreadable": "it cannot be read",
}


def _range(each: dict[str, Any]) -> str:
    if not each["records"]:
        return "no records"
    return f"records {each['first']} to {each['last']} ({each['records']})"


def _problem(problem: Problem) -> str:
    at = f" at byte {problem.offset}," if problem.lsn else ""
    lsn = f" record {problem.lsn}," if problem.lsn else ""
    revision = "" if problem.revision is None or not problem.lsn else f" after revision {problem.revision},"
    where = f"{at}{lsn}{revision}".rstrip(",")
    return f"{problem.kind}: {problem.file}{where}: {_safe(problem.what)}"


def lost_as_text(lost: Lost | None) -> str:
    """Say what is lost."""
    if lost is None:
        return "nothing is lost"
    if lost.last < lost.first:
        what = f"whatever came after record {lost.first - 1}"
    else:
        records = (
            f"record {lost.first}" if lost.last == lost.first else f"the records {lost.first} to {lost.last}"
        )
        what = records + (" and any that came after" if lost.more else "")
    lines = [f"lost: {what}: all from revision {lost.revision} on"]
    if lost.readable:
        lines.append(f"{len(lost.readable)} of these can be read, but follow on what is gone:")
        for each in lost.readable[:MAX_LINES]:
            told = _stored(each)
            changes = "; ".join(
                f"{update['root']} version {update['version']} by {update['tega_id']}"
                + (f" ({update['message']})" if update["message"] else "")
                for update in told.get("updates", ())
            )
            revision = f", revision {told['revision']}" if "revision" in told else ""
            kind = (told["kind"] or "not understood").lower()
            lines.append(_safe(f"  record {each.lsn}{revision}: {kind}{' of ' + changes if changes else ''}"))
        if len(lost.readable) > MAX_LINES:
            lines.append(f"  and {len(lost.readable) - MAX_LINES} more: see --json")
    return "\n".join(lines)


def repaired_as_text(done: Repaired) -> str:
    """Say what a repair did."""
    if not done.kept:
        return "nothing was to be repaired"
    lines = [f"repaired; the former files, and this report as JSON, are in {done.kept}"]
    lines += [f"  written anew: {name}" for name in done.changed]
    lines += [f"  taken away: {name}" for name in done.removed]
    lines += [_safe(f"  new epoch of {format_path((root,))}: {epoch}") for root, epoch in done.epochs]
    lines += [_safe(f"  lost of the history: {what}") for what in done.versions]
    return "\n".join(lines)


def _safe(text: str) -> str:
    """Return `text` with nothing in it that a terminal would obey; newlines stay."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)
