"""What the payloads of the log and the chunks of its snapshots hold: plain values as msgpack.

The one module of the log that knows the store. A record is `store.encoding.record_to_plain` of it, a chunk
one item of `store.snapshot.dump`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from tega_zmq.errors import ProtocolError
from tega_zmq.store.encoding import record_from_plain, record_to_plain
from tega_zmq.store.model import Commit, Record
from tega_zmq.store.snapshot import revision_in

__all__ = [
    "decode_chunk",
    "decode_record",
    "encode_chunk",
    "encode_list",
    "encode_record",
    "record_encoder",
    "revision_of_commit",
    "revision_of_snapshot",
]


def encode_record(record: Record) -> bytes:
    """Return the payload for `record`."""
    return encode_chunk(record_to_plain(record))


def record_encoder() -> Callable[[Record], bytes]:
    """Return a function that does what `encode_record` does, faster. For one thread at a time."""
    pack = msgpack.Packer().pack

    def encode(record: Record) -> bytes:
        data: bytes = pack(record_to_plain(record))
        return data

    return encode


def decode_record(payload: bytes) -> Record:
    """Return the record in `payload`. Raises `ProtocolError` if there is none."""
    return record_from_plain(decode_chunk(payload))


def encode_chunk(item: Any) -> bytes:
    """Return the plain value `item` as bytes."""
    data: bytes = msgpack.packb(item)
    return data


def encode_list(items: Sequence[bytes]) -> bytes:
    """Return the list of `items`, each encoded already, as `encode_chunk` would."""
    header: bytes = msgpack.Packer().pack_array_header(len(items))
    return header + b"".join(items)


def decode_chunk(data: bytes) -> Any:
    """Return the plain value in `data`. Raises `ProtocolError` if it is not one whole value."""
    try:
        return msgpack.unpackb(data)
    except (ValueError, RecursionError) as error:
        # All errors of msgpack are ValueErrors, those of its text decoder too.
        raise ProtocolError(
            f"{len(data)} bytes are no msgpack value: {str(error) or type(error).__name__}"
        ) from None


def revision_of_commit(payload: bytes) -> int | None:
    """Return the revision that the record in `payload` makes, or None: it is no commit.

    Raises `ProtocolError` if there is no record in it.
    """
    record = decode_record(payload)
    return record.revision if type(record) is Commit else None


def revision_of_snapshot(chunk: bytes) -> int:
    """Return the revision that the snapshot with the first chunk `chunk` is of. Raises `ProtocolError`."""
    return revision_in(decode_chunk(chunk))
