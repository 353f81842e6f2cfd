"""Records of the store as payloads of the log."""

from __future__ import annotations

import msgpack
import pytest

from tega_zmq.errors import ProtocolError
from tega_zmq.log.records import decode_chunk, decode_record, encode_chunk, encode_record
from tega_zmq.store.model import Change, Cleared, Commit, Ended, NewEpochs, Opened, Owned, Record, Update

UPDATE = Update(
    "config-pi1",
    "e1",
    3,
    4,
    (
        Change(("config-pi1", "net", "eth0.100"), True, {"mtu": 1500, "names": ["a", "b"], "on": None}),
        Change(("config-pi1", "old"), False),
        Change(("config-pi1", "presence"), True, {}, "session-1"),
    ),
    1_700_000_000.25,
    "noc-1",
    "jumbo frames",
)


@pytest.mark.parametrize(
    "record",
    [
        Commit(7, (UPDATE,), "session-1", 12, 9),
        Owned("ops-pi1", "pi1", "e2"),
        NewEpochs((("config-pi1", "e3"),)),
        Cleared(),
        Opened("session-1", "noc-1", "token", ""),
        Ended("session-1"),
    ],
)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    assert decode_record(encode_record(record)) == record


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        encode_chunk([9, "s"]) + b"\0",
        b"\x91" * 5000,
        b"\x91\xa1\xff",
        encode_chunk("text"),
        encode_chunk([99]),
        encode_chunk([9]),
    ],
)
def test_what_is_no_record_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_record(payload)


def test_chunks() -> None:
    item = [3, [[["a", "b"], 4, False, 1.5], [[], 4, True, None]]]
    assert decode_chunk(encode_chunk(item)) == item
    assert encode_chunk(item) == msgpack.packb(item)
