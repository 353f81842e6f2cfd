"""Records: packed, walked over, torn, flipped, moved."""

from __future__ import annotations

import random
import struct
from hashlib import shake_128

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq.log.framing import (
    HEADER,
    Stop,
    encode,
    encode_seal,
    record_size,
    seed_of,
    synced_beyond,
    walk,
)

SEED = seed_of("store", 1)
START = 4096


def run(data: bytes, lsn: int = 1, limit: int | None = None, seed: int = SEED) -> tuple[list[bytes], Stop]:
    walking = walk(data, seed, START, lsn, limit)
    payloads = []
    while True:
        try:
            number, _, payload = next(walking)
        except StopIteration as end:
            return payloads, end.value
        assert number == lsn + len(payloads)
        payloads.append(payload)


def place(*batches: list[bytes], room: int = 4096) -> bytes:
    """A segment with the batches in it; each knows that the ones before it are synced."""
    data = b""
    lsn = 1
    for batch in batches:
        data += encode(batch, lsn, lsn - 1, SEED, START + len(data))
        lsn += len(batch)
    return bytes(START) + data + bytes(room)


PAYLOAD = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda n, byte: bytes([byte]) * n, st.integers(0, 3000), st.sampled_from([0, 0, 1, 255])),
    st.builds(
        lambda a, n, b: a + bytes(n) + b, st.binary(max_size=9), st.integers(0, 2000), st.binary(max_size=9)
    ),
)


@given(st.lists(st.lists(PAYLOAD, min_size=1, max_size=4), max_size=4))
@settings(max_examples=100)
def test_what_is_packed_comes_back(batches: list[list[bytes]]) -> None:
    data = place(*batches)
    payloads, stop = run(data)
    assert payloads == [payload for batch in batches for payload in batch]
    assert stop.kind == "end"
    assert stop.lsn == len(payloads) + 1
    assert stop.offset == START + sum(map(record_size, map(len, payloads)))
    assert stop.synced == (len(payloads) - len(batches[-1]) if batches else 0)


@given(st.lists(PAYLOAD, min_size=1, max_size=3))
@settings(max_examples=50)
def test_no_record_has_a_run_of_zeros_that_could_be_a_hole(payloads: list[bytes]) -> None:
    data = encode(payloads, 1, 0, SEED, START)
    assert bytes(256) not in data
    assert len(data) % 8 == 0
    assert data[-1] == 255


def test_a_payload_that_foresees_the_first_masks_is_masked_by_another() -> None:
    streams = [shake_128(struct.pack("<II", number, SEED)).digest(3000) for number in (1, 2)]
    payload = bytes(1000) + streams[0][1000:2000] + streams[1][2000:]
    data = encode([payload], 1, 0, SEED, START)
    assert bytes(256) not in data
    assert run(bytes(START) + data)[0] == [payload]


def test_the_walk_ends_at_the_limit_and_at_a_seal() -> None:
    data = place([b"a", b"b", b"c"])
    assert run(data, limit=2)[1] == Stop("limit", START + 2 * record_size(1), 3, 0, "")
    assert run(data, limit=0)[1].offset == START
    end = START + 3 * record_size(1)
    sealed = data[:end] + encode_seal(4, SEED, end) + bytes(100)
    assert run(sealed)[1] == Stop("seal", end, 4, 0, "")
    assert synced_beyond(sealed, SEED, START) == 3


def test_a_record_is_valid_in_its_own_place_only() -> None:
    data = place([b"aaaa"], [b"bbbb"], room=0)
    size = record_size(4)
    swapped = data[:START] + data[START + size :] + data[START : START + size]
    assert run(swapped)[1].kind == "damage"
    assert run(data, seed=seed_of("other", 1))[1].kind == "damage"
    assert run(data, seed=seed_of("store", 2))[1].kind == "damage"
    assert run(data, lsn=2)[1] == Stop("damage", START, 2, 0, "record 1 stands here")
    inner = encode([b"x"], 9, 8, SEED, START)
    assert synced_beyond(place([b"12345678" + inner]), SEED, START) == 0


def flips(byte: int) -> set[int]:
    return {byte ^ 1, byte ^ 0x80, byte ^ 0xFF, 0, 0xFF, ord("t")} - {byte}


@pytest.mark.parametrize(
    "last",
    [
        b"",
        b"x",
        b"\0",
        b"\0" * 7,
        b"\0" * 200,
        b"\0" * 255,
        b"\0" * 1200,
        b"y" * 1100,
        b"\0" * 254 + b"y" + b"\0" * 254 + b"z",
    ],
)
def test_one_changed_byte_of_the_last_record_never_looks_like_a_torn_write(last: bytes) -> None:
    data = place([b"first" * 9], [last], room=520)
    at = START + record_size(45)
    for offset in range(at, at + record_size(len(last))):
        for byte in flips(data[offset]):
            changed = data[:offset] + bytes([byte]) + data[offset + 1 :]
            payloads, stop = run(changed)
            if len(payloads) == 2:
                assert payloads[1] == last
                assert stop.kind == "end"
            else:
                assert (stop.kind, stop.lsn, stop.offset) == ("damage", 2, at), (offset, byte, stop)


def test_one_changed_byte_behind_the_last_record_loses_nothing() -> None:
    data = place([b"one", b"two"], room=600)
    end = START + 2 * record_size(3)
    for offset in range(end, len(data)):
        payloads, stop = run(data[:offset] + b"t" + data[offset + 1 :])
        assert payloads == [b"one", b"two"]
        assert stop.kind == "torn"
        assert stop.offset == end


def test_any_prefix_of_the_last_write_is_a_torn_tail() -> None:
    batch = [b"", b"x" * 30, b"\0" * 600, b"y" * 700, b"\0\0\0"]
    data = place([b"before"], batch, room=2000)
    start = START + record_size(6)
    end = len(data) - 2000
    for cut in range(start, end):
        payloads, stop = run(data[:cut] + bytes(len(data) - cut))
        assert stop.kind in ("end", "torn"), (cut, stop)
        assert payloads == [b"before", *batch][: len(payloads)]
        # The file may end there, too.
        payloads, stop = run(data[:cut])
        assert stop.kind in ("end", "torn"), (cut, stop)
        assert payloads == [b"before", *batch][: len(payloads)]


@given(st.lists(PAYLOAD, min_size=1, max_size=6), st.integers(0, 2**32), st.sampled_from([512, 4096]))
@settings(max_examples=200)
def test_any_sectors_of_the_last_write_may_be_missing(batch: list[bytes], choice: int, sector: int) -> None:
    data = bytearray(place([b"before" * 20], batch))
    start = START + record_size(120)
    end = len(data) - 4096
    rng = random.Random(choice)
    at = start
    while at < end:
        following = min((at // sector + 1) * sector, end)
        if rng.random() < 0.5:
            data[at:following] = bytes(following - at)
        at = following
    payloads, stop = run(bytes(data))
    assert stop.kind in ("end", "torn"), stop
    assert payloads == [b"before" * 20, *batch][: len(payloads)]
    assert len(payloads) >= 1


@given(st.lists(st.tuples(PAYLOAD, st.integers(0, 100)), min_size=1, max_size=6))
@settings(max_examples=200)
def test_writes_that_were_lost_or_torn_one_by_one_are_a_torn_tail(writes: list[tuple[bytes, int]]) -> None:
    data = bytearray(place([b"before"], [payload for payload, _ in writes]))
    at = START + record_size(6)
    for payload, percent in writes:
        end = at + record_size(len(payload))
        if percent < 90:
            cut = at + (end - at) * percent // 90
            data[cut:end] = bytes(end - cut)
        at = end
    payloads, stop = run(bytes(data))
    assert stop.kind in ("end", "torn"), stop
    assert payloads == [b"before", *(payload for payload, _ in writes)][: len(payloads)]


def test_a_valid_record_behind_a_bad_one_vouches_for_what_is_before_it() -> None:
    data = bytearray(place([b"one"], [b"two"], [b"three"]))
    data[START + HEADER] ^= 1
    stop = run(bytes(data))[1]
    assert (stop.kind, stop.lsn) == ("damage", 1)
    assert synced_beyond(bytes(data), SEED, stop.offset) == 2


@pytest.mark.parametrize("before", range(8, 80, 8))
def test_a_sector_may_begin_within_a_header(before: int) -> None:
    """The header stands `before` bytes before a new sector; either sector may be missing."""
    first = b"f" * (512 - before - HEADER - 1)
    data = place([first, b"second" * 10], room=520)
    at = START + 512 - before
    assert run(data, limit=1)[1].offset == at
    for start, end in ((at, START + 512), (START + 512, START + 1024)):
        payloads, stop = run(data[:start] + bytes(end - start) + data[end:])
        assert payloads == [first]
        assert (stop.kind, stop.offset) == ("torn", at)
