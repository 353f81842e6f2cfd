"""The addresses of all interfaces, asked of the kernel by netlink: one request, no subprocess."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import NamedTuple

__all__ = ["Address", "addresses", "parse", "request"]

_GET_ADDRESSES, _NEW_ADDRESS, _ERROR, _DONE = 22, 20, 2, 3
_REQUEST_DUMP = 0x301
_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_ADDRESS, _LOCAL, _FLAGS = 1, 2, 8
_DEPRECATED, _TENTATIVE, _FAILED = 0x20, 0x40, 0x08

_MAX_PARTS = 1000
_TIMEOUT = 2.0


class Address(NamedTuple):
    """One address of an interface."""

    interface: int
    """Of the interface, as in /sys/class/net/NAME/ifindex."""
    version: int
    """4 or 6."""
    text: str
    """With the prefix length: `192.0.2.2/24`."""


def request(sequence: int) -> bytes:
    """The question for all addresses."""
    body = _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    return _HEADER.pack(_HEADER.size + len(body), _GET_ADDRESSES, _REQUEST_DUMP, sequence, 0) + body


def parse(data: bytes, sequence: int) -> tuple[list[Address], bool]:
    """The addresses in one datagram of the answer, and whether it is the last.

    Left out are those that cannot be used: tentative, found to be a duplicate, deprecated. Damage ends it.
    """
    found: list[Address] = []
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, at)
        if kind in (_DONE, _ERROR) or not _HEADER.size <= length <= len(data) - at:
            return found, True
        if kind == _NEW_ADDRESS and number == sequence and length >= _HEADER.size + _MESSAGE.size:
            address = _address(data[at + _HEADER.size : at + length])
            if address is not None:
                found.append(address)
        at += length + 3 & ~3
    return found, False


def _address(body: bytes) -> Address | None:
    family, prefix, flags, _, index = _MESSAGE.unpack_from(body)
    attributes: dict[int, bytes] = {}
    at = _MESSAGE.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind] = body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    wide = attributes.get(_FLAGS, b"")
    if len(wide) == 4:
        flags = int.from_bytes(wide, "little" if struct.pack("=H", 1)[0] else "big")
    if flags & (_DEPRECATED | _TENTATIVE | _FAILED):
        return None
    # On a point-to-point link the other end stands under _ADDRESS, and our own under _LOCAL.
    packed = attributes.get(_LOCAL) or attributes.get(_ADDRESS) or b""
    version = {socket.AF_INET: 4, socket.AF_INET6: 6}.get(family)
    if version is None or len(packed) != (4 if version == 4 else 16):
        return None
    return Address(index, version, f"{socket.inet_ntop(family, packed)}/{prefix}")


def addresses() -> list[Address]:
    """Ask the kernel. An empty list where it does not answer, e.g. in a sandbox without netlink."""
    found: list[Address] = []
    sequence = os.getpid() & 0xFFFF
    with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.settimeout(_TIMEOUT)
        kernel.bind((0, 0))
        kernel.send(request(sequence))
        for _ in range(_MAX_PARTS):
            part, last = parse(kernel.recv(65536), sequence)
            found += part
            if last:
                break
    return found
