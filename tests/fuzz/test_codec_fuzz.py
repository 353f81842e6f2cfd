"""No bytes get anything but a message or `ProtocolError` out of the codec.

A fixed number of frames by default; `FUZZ_SECONDS` says how long to go on instead, and
`FUZZ_SEED` with which frames.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq.errors import ProtocolError
from tega_zmq.wire import decode, encode, messages, request_id
from tests.wire_samples import sample

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
FRAMES = 20_000

SAMPLES = [encode(sample(cls)) for cls in messages.CODES.values()]
TELLING = bytes(
    [0x00, 0x01, 0x14, 0x16, 0x3E, 0x7F, 0x80, 0x8F, 0x90, 0x91, 0x9F, 0xA0, 0xBF, *range(0xC0, 0x100)]
)
"""Bytes that mean something in msgpack, or a message's code."""


def probe(data: bytes) -> bool:
    """Put `data` through everything; return whether it was a message."""
    number = request_id(data)
    assert number is None or 0 <= number < 2**63
    try:
        message = decode(data)
    except ProtocolError as error:
        assert error.message
        assert error.message.encode()
        return False
    # What was taken has the right type, and can be sent on and taken again.
    assert type(message) in messages.CODES.values()
    again = encode(message)
    assert encode(decode(again)) == again
    if type(message) in messages.REQUESTS:
        assert number == message[0]
    return True


def mutations(rng: random.Random) -> Iterator[bytes]:
    """Yield good frames made bad, byte by byte."""
    while True:
        data = bytearray(rng.choice(SAMPLES))
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(6):
                case 0 if at < len(data):
                    data[at] = rng.randrange(256)
                case 1 if at < len(data):
                    data[at] = rng.choice(TELLING)
                case 2:
                    data[at:at] = bytes(rng.choices(TELLING, k=rng.choice((1, 2, 5, 300))))
                case 3:
                    del data[at : at + rng.choice((1, 2, 9))]
                case 4:
                    other = rng.choice(SAMPLES)
                    data[at:] = other[rng.randrange(len(other)) :]
                case _:
                    data[at:at] = data[rng.randrange(len(data) + 1) :][:20]
        yield bytes(data)


def garbage(rng: random.Random) -> Iterator[bytes]:
    """Yield random bytes, half of them behind the head of a message."""
    codes = list(messages.CODES)
    while True:
        body = rng.randbytes(rng.choice((0, 1, 2, 7, 40, 300, 3000)))
        if rng.random() < 0.3:
            body = bytes(rng.choices(TELLING, k=len(body)))
        yield bytes([rng.randrange(0x90, 0xA0), rng.choice(codes)]) + body if rng.random() < 0.5 else body


def run(frames: Iterator[bytes]) -> tuple[int, int]:
    """Probe the frames for as long as asked; return how many there were and how many were messages."""
    end = time.monotonic() + SECONDS
    count = taken = 0
    for data in frames:
        count += 1
        taken += probe(data)
        if count >= FRAMES and time.monotonic() >= end:
            break
    return count, taken


def test_good_frames_with_changed_bytes() -> None:
    count, taken = run(mutations(random.Random(SEED)))
    # Some changes leave a message a message: if none did, or all, this would test nothing.
    assert 0.02 < taken / count < 0.98


def test_random_bytes() -> None:
    run(garbage(random.Random(SEED)))


def test_every_byte_of_every_sample_cut_and_changed() -> None:
    for data in SAMPLES:
        for at in range(len(data)):
            assert not probe(data[:at])
            for byte in (0x00, 0x80, 0x90, 0xC0, 0xC1, 0xC7, 0xDD, 0xFF, data[at] ^ 1):
                probe(data[:at] + bytes([byte]) + data[at + 1 :])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(messages.CODES)),
    st.lists(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.floats()
            | st.text(st.characters(exclude_categories=["Cs"]))
            | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner),
            max_leaves=8,
        ),
        max_size=8,
    ),
)
def test_any_fields_of_any_type(code: int, fields: list[Any]) -> None:
    try:
        data = msgpack.packb([code, *fields])
    except UnicodeEncodeError:
        return
    probe(data)
