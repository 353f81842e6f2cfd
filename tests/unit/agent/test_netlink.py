"""The addresses: the answer of the kernel, and damage to it."""

from __future__ import annotations

import socket
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tega_agent import netlink
from tega_agent.netlink import Address

HEADER = struct.Struct("=IHHII")
DONE = HEADER.pack(16, 3, 2, 7, 0)


def message(family: int, prefix: int, flags: int, index: int, *attributes: tuple[int, bytes]) -> bytes:
    body = struct.pack("=BBBBI", family, prefix, flags, 0, index)
    for kind, data in attributes:
        body += struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)
    return HEADER.pack(16 + len(body), 20, 2, 7, 0) + body


V4 = message(
    socket.AF_INET, 24, 0x80, 2, (1, bytes([192, 0, 2, 2])), (2, bytes([192, 0, 2, 2])), (3, b"eth0\0")
)
V6 = message(socket.AF_INET6, 64, 0x80, 3, (1, socket.inet_pton(socket.AF_INET6, "fd00::2")))


def test_an_answer_of_the_kernel() -> None:
    assert netlink.parse(V4 + V6 + DONE, 7) == (
        [Address(2, 4, "192.0.2.2/24"), Address(3, 6, "fd00::2/64")],
        True,
    )
    assert netlink.parse(V4, 7) == ([Address(2, 4, "192.0.2.2/24")], False)


def test_the_own_end_of_a_point_to_point_link() -> None:
    peer = message(socket.AF_INET, 32, 0, 5, (1, bytes([10, 0, 0, 1])), (2, bytes([10, 0, 0, 2])))
    assert netlink.parse(peer, 7)[0] == [Address(5, 4, "10.0.0.2/32")]


def test_addresses_that_cannot_be_used_are_left_out() -> None:
    packed = socket.inet_pton(socket.AF_INET6, "fd00::3")
    tentative = message(socket.AF_INET6, 64, 0x40, 3, (1, packed))
    deprecated = message(socket.AF_INET6, 64, 0, 3, (1, packed), (8, struct.pack("=I", 0x20)))
    assert netlink.parse(tentative + deprecated + V6, 7)[0] == [Address(3, 6, "fd00::2/64")]


def test_what_is_not_ours_is_left_out() -> None:
    assert netlink.parse(V4, 8) == ([], False)
    assert netlink.parse(message(99, 24, 0, 2, (1, b"\0" * 4)), 7) == ([], False)
    assert netlink.parse(message(socket.AF_INET, 24, 0, 2, (1, b"\0" * 3)), 7) == ([], False)


@given(st.integers(0, len(V4 + V6 + DONE) - 1), st.integers(0, 255), st.integers(0, 200))
@settings(max_examples=200)
def test_damage_is_survived(at: int, byte: int, cut: int) -> None:
    data = bytearray(V4 + V6 + DONE)
    data[at] = byte
    found, _ = netlink.parse(bytes(data[:cut]), 7)
    assert len(found) <= 2


def test_the_kernel_of_this_machine_answers() -> None:
    found = netlink.addresses()
    assert any(address.text == "127.0.0.1/8" for address in found)
