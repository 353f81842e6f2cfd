"""How records stand in a segment: packing them, walking over them, telling a torn tail from damage. Pure.

A record, all integers little-endian, at an offset that is a multiple of 8:

    0   magic     4 bytes  `tRec`, or `tEnd`: the segment ends here, and another one follows
    4   length    u32      bytes of payload
    8   lsn       u64      number of the record: how many were ever appended, from 1
    16  synced    u64      the highest lsn known to be durable when this record was written
    24  mask      u32      0, or the number of the mask that lies over the payload
    28  crc       u32      CRC-32 of the payload as it stands here
    32  head_crc  u32      CRC-32 of the 32 bytes before, begun at the place's own number, see below
    36  mark      4 bytes  ff
    40  payload
        trailer   1 to 8 bytes ff, up to the next multiple of 8

Why it is so. A segment is full of zeros before it is written, and a record can be three things when the node
starts again: whole; half written, because the power went before it was synced, so that nobody was told of it
and it may be cut off; or damaged later, so that somebody may rely on what it held. The two last must not be
confused, also when it is the very last record, which no later `synced` vouches for.

* A write that was torn leaves zeros where the new bytes did not arrive: from some byte on, or, as a disk may
  write its sectors of 512 bytes in any order, in whole sectors. So a record that was not wholly written has a
  zero as its last byte, or a hole.
* A record that was wholly written has no zeros there, and still none if any one byte of it changes later:
  its last byte and its mark are not zero, its magic has four bytes that are not (as records stand at
  multiples of 8, the part of a record in its first sector has at least the magic and the length), and its
  payload has no run of 256 zeros: one that has is masked. So each sector within it holds two bytes or more
  that are not zero.
* The trailer is not needed for a record to be valid: a flip there is no damage.

The CRC of the header begins at a number made of the store's id, the segment's first lsn and the offset. So a
record is valid in its own place only; bytes that were copied from elsewhere, be it as somebody's payload,
never look like a record.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from typing import Final, Literal, NamedTuple
from zlib import crc32

__all__ = [
    "ALIGN",
    "HEADER",
    "MAX_PAYLOAD",
    "Stop",
    "encode",
    "encode_seal",
    "next_record",
    "record_size",
    "seed_of",
    "synced_beyond",
    "walk",
]

ALIGN: Final = 8
SECTOR: Final = 512
"""The smallest unit that disks write as a whole."""

HEADER: Final = 40
"""Bytes of a record before its payload."""

MAX_PAYLOAD: Final = 256 * 1024 * 1024
"""Longest payload, in bytes."""

_RECORD: Final = b"tRec"
_SEAL: Final = b"tEnd"
_MARK: Final = b"\xff\xff\xff\xff"
_HEAD: Final = struct.Struct("<4sIQQII")
_TAIL: Final = struct.Struct("<I4s")
_WHOLE: Final = struct.Struct("<4sIQQIII4s")
_TRAILERS: Final = tuple(b"\xff" * (ALIGN - n % ALIGN) for n in range(ALIGN))
_LONG_RUN: Final = 256
_RUN: Final = bytes(_LONG_RUN)
_ZERO_SECTOR: Final = bytes(SECTOR)


class Stop(NamedTuple):
    """Why a walk over the records ended, and where."""

    kind: Literal["limit", "end", "seal", "torn", "damage"]
    """limit: the last record asked for was read. end: zeros, or the end of the file. seal: another segment
    follows. torn: a record that was not wholly written. damage: bytes that no interrupted write leaves."""
    offset: int
    """Where the next record stands, would stand, or should."""
    lsn: int
    """The number that it has, or should have."""
    synced: int
    """The highest `synced` of the records that were read; 0 if there was none."""
    why: str
    """torn, damage: what is wrong there."""


def seed_of(store: str, first: int) -> int:
    """Return the number that the places in the segment of `store` with the first lsn `first` begin at."""
    return crc32(struct.pack("<Q", first), crc32(store.encode()))


def record_size(length: int) -> int:
    """Return how many bytes a record with a payload of `length` bytes takes."""
    return HEADER + length + ALIGN - length % ALIGN


def encode(payloads: Sequence[bytes], lsn: int, synced: int, seed: int, offset: int) -> bytes:
    """Return the records of `payloads`, numbered from `lsn`, as they stand from `offset` on.

    Raises `ValueError` for a payload of more than `MAX_PAYLOAD` bytes.
    """
    parts: list[bytes] = []
    for payload in payloads:
        length = len(payload)
        mask = 0
        if length >= _LONG_RUN:
            if length > MAX_PAYLOAD:
                raise ValueError(f"a record of {length} bytes; at most {MAX_PAYLOAD} are allowed")
            if _RUN in payload:
                mask, payload = _mask(payload, seed)
        head = _HEAD.pack(_RECORD, length, lsn, synced, mask, crc32(payload))
        parts += (head, _TAIL.pack(crc32(head, seed ^ offset), _MARK), payload, _TRAILERS[length % ALIGN])
        offset += HEADER + length + ALIGN - length % ALIGN
        lsn += 1
    return b"".join(parts)


def encode_seal(lsn: int, seed: int, offset: int) -> bytes:
    """Return the mark that ends a segment at `offset`; `lsn`: the first one of the segment that follows."""
    head = _HEAD.pack(_SEAL, 0, lsn, lsn - 1, 0, 0)
    return head + _TAIL.pack(crc32(head, seed ^ offset), _MARK) + _TRAILERS[0]


def walk(
    data: bytes, seed: int, offset: int, lsn: int, limit: int | None = None
) -> Generator[tuple[int, int, bytes], None, Stop]:
    """Yield `(lsn, offset, payload)` of each record of `data`, a segment's content, and return where it ends.

    The first one has number `lsn` and stands at `offset`; none after `limit` is read.
    """
    synced = 0
    while limit is None or lsn <= limit:
        found = _read(data, seed, offset)
        if found is None:
            kind, why = _classify(data, seed, offset)
            return Stop(kind, offset, lsn, synced, why)
        magic, length, number, record_synced, mask = found
        if number != lsn:
            return Stop("damage", offset, lsn, synced, f"record {number} stands here")
        if magic == _SEAL:
            return Stop("seal", offset, lsn, synced, "")
        start = offset + HEADER
        payload = data[start : start + length]
        yield lsn, offset, _unmask(payload, mask, seed) if mask else payload
        if record_synced > synced:
            synced = record_synced
        offset = start + length + ALIGN - length % ALIGN
        lsn += 1
    return Stop("limit", offset, lsn, synced, "")


def synced_beyond(data: bytes, seed: int, offset: int) -> int:
    """Return the highest `synced` in any valid record or seal after the bad one at `offset`, or 0."""
    synced = 0
    for magic in (_RECORD, _SEAL):
        at = data.find(magic, offset + 1)
        while at >= 0:
            if at % ALIGN == 0 and (found := _read(data, seed, at)) is not None:
                synced = max(synced, found[3])
            at = data.find(magic, at + 1)
    return synced


def next_record(data: bytes, seed: int, offset: int) -> tuple[int, int] | None:
    """Return `(offset, lsn)` of the first valid record at `offset` or behind it, or None: there is none."""
    at = data.find(_RECORD, offset)
    while at >= 0:
        if at % ALIGN == 0 and (found := _read(data, seed, at)) is not None:
            return at, found[2]
        at = data.find(_RECORD, at + 1)
    return None


def _read(data: bytes, seed: int, offset: int) -> tuple[bytes, int, int, int, int] | None:
    """Return `(magic, length, lsn, synced, mask)` of the record at `offset` if it is valid."""
    head = _head(data, seed, offset)
    if head is None:
        return None
    magic, length, lsn, synced, mask, crc = head
    start = offset + HEADER
    payload = data[start : start + length]
    if len(payload) < length or crc32(payload) != crc:
        return None
    return magic, length, lsn, synced, mask


def _head(data: bytes, seed: int, offset: int) -> tuple[bytes, int, int, int, int, int] | None:
    if len(data) - offset < HEADER:
        return None
    magic, length, lsn, synced, mask, crc, head_crc, _ = _WHOLE.unpack_from(data, offset)
    if (magic != _RECORD and magic != _SEAL) or crc32(data[offset : offset + 32], seed ^ offset) != head_crc:
        return None
    return magic, length, lsn, synced, mask, crc


def _classify(data: bytes, seed: int, offset: int) -> tuple[Literal["end", "torn", "damage"], str]:
    """Say what stands at `offset`, where no valid record does."""
    written = len(data.rstrip(b"\0"))
    if written <= offset:
        return "end", ""
    if len(data) - offset < HEADER:
        return "torn", "the file ends within the header of a record"
    head = _head(data, seed, offset)
    if head is None:
        if written <= offset + HEADER:
            return "torn", "the header was not wholly written"
        if data[offset : offset + 8] == bytes(8):
            return "torn", "the start of the record was not written"
        if data[offset + 36 : offset + 40] == bytes(4):
            return "torn", "the end of the header was not written"
        return "damage", "the header does not match its checksum"
    end = offset + record_size(head[1])
    if len(data) < end:
        return "torn", "the file ends within the record"
    if data[end - 1] == 0:
        return "torn", "the end of the record was not written"
    for sector in range(-(-offset // SECTOR) * SECTOR, end - SECTOR + 1, SECTOR):
        if data.startswith(_ZERO_SECTOR, sector):
            return "torn", f"the sector at byte {sector} was not written"
    return "damage", "the payload does not match its checksum"


def _mask(payload: bytes, seed: int) -> tuple[int, bytes]:
    """Return the number of a mask under which `payload` has no run of 256 zeros, and the masked payload.

    A run of zeros under a mask means that the payload repeats the mask there. It has fewer places than
    there are masks, so the search ends; almost always with the first. The seed is known to nobody who writes
    values, so that nobody can make it long.
    """
    number = 1
    while _RUN in (masked := _unmask(payload, number, seed)):
        number += 1
    return number, masked


def _unmask(payload: bytes, number: int, seed: int) -> bytes:
    """Lay mask `number` over `payload`, or take it off again."""
    from hashlib import shake_128  # here, since it loads megabytes that hardly any device ever needs

    stream = shake_128(struct.pack("<II", number, seed)).digest(len(payload))
    return (int.from_bytes(payload, "little") ^ int.from_bytes(stream, "little")).to_bytes(
        len(payload), "little"
    )
