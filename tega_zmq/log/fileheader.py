"""The header of segments and snapshots: whose file it is, and which part of the log it holds. Pure.

0    magic       8 bytes  `tega-log` or `tegasnap`
8    format      u32      1. A program refuses what is newer than itself; magic, format and crc stay where
                          they are in every format, so that a damaged header is not taken for a newer one
12   (zero)      u32
16   store       48 bytes id of the store, ASCII, filled up with zeros
64   generation  u64      how often the log was begun anew after a failure, from 1
72   base        u64      the first lsn of this generation
80   lsn         u64      segment: its first lsn; snapshot: the last lsn that is in it
88   size        u64      segment: how long the file was made; snapshot: 0
96   crc         u32      CRC-32 of the 96 bytes before
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple
from zlib import crc32

__all__ = ["FILE_HEADER", "FORMAT", "SEGMENT", "SNAPSHOT", "Header", "check_store", "pack", "unpack"]

FORMAT: Final = 1
"""The version of everything in a data folder that this program writes, and the newest that it reads."""

FILE_HEADER: Final = 100
"""Bytes of the header."""

SEGMENT: Final = b"tega-log"
SNAPSHOT: Final = b"tegasnap"

_FIELDS: Final = struct.Struct("<8sII48sQQQQ")
_CRC: Final = struct.Struct("<I")


class Header(NamedTuple):
    """What a file of the log says of itself."""

    store: str
    generation: int
    base: int
    lsn: int
    size: int


def check_store(store: str) -> str:
    """Return `store` if it is 1 to 48 printable ASCII characters, as the id of a store. Else `ValueError`."""
    if not (1 <= len(store) <= 48 and store.isascii() and store.isprintable()):
        raise ValueError(f"the id of a store is 1 to 48 printable ASCII characters, not {store!r}")
    return store


def pack(magic: Literal[b"tega-log", b"tegasnap"], header: Header) -> bytes:
    """Return the header as it stands in a file of the kind `magic`."""
    fields = _FIELDS.pack(
        magic, FORMAT, 0, header.store.encode(), header.generation, header.base, header.lsn, header.size
    )
    return fields + _CRC.pack(crc32(fields))


def unpack(magic: Literal[b"tega-log", b"tegasnap"], data: bytes) -> Header | str:
    """Return the header at the start of `data`, or what is wrong with it."""
    if len(data) < FILE_HEADER:
        return f"the file has {len(data)} bytes, less than its header" if data else "the file is empty"
    found, version, _, store, generation, base, lsn, size = _FIELDS.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _FIELDS.size)
    if found != magic or version < FORMAT or crc32(data[: _FIELDS.size]) != crc:
        return "the header of the file does not match its checksum"
    if version > FORMAT:
        return f"it has format {version}, and this program knows formats up to {FORMAT}: use a newer one"
    return Header(store.rstrip(b"\0").decode("ascii", "replace"), generation, base, lsn, size)
