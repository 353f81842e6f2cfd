"""Bundles of frames: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq.errors import ProtocolError
from tega_zmq.wire import bundle, decode, encode, messages, unbundle
from tega_zmq.wire.bundles import MAX_BUNDLE, MAX_BUNDLED

FRAMES = st.lists(st.binary(max_size=40).filter(lambda data: data[:1] != b"\xc1"), max_size=30)


@given(FRAMES)
def test_all_frames_arrive_in_order(frames: list[bytes]) -> None:
    assert [frame for data in bundle(frames) for frame in unbundle(data)] == frames


def test_a_single_frame_travels_as_it_is() -> None:
    frame = encode(messages.Heartbeat(()))
    assert list(bundle([frame])) == [frame]
    assert list(unbundle(frame)) == [frame]


def test_bundles_are_bounded() -> None:
    small = list(bundle([b"\x90"] * (2 * MAX_BUNDLED + 1)))
    assert [len(unbundle(data)) for data in small] == [MAX_BUNDLED, MAX_BUNDLED, 1]
    large = [b"x" * (MAX_BUNDLE // 2)] * 3 + [b"y" * (2 * MAX_BUNDLE)]
    assert [len(unbundle(data)) for data in bundle(large)] == [2, 1, 1]


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\xc1\x91",
        b"\xc1" + msgpack.packb(["text"]),
        b"\xc1" + msgpack.packb([[b"frame"]]),
        b"\xc1" + msgpack.packb({b"a": 1}),
        b"\xc1" + msgpack.packb([b""] * (MAX_BUNDLED + 1)),
        b"\xc1" + msgpack.packb([b"x" * (2 * MAX_BUNDLE)]),
        b"\xc1" + msgpack.packb([b"\x90"]) + b"\x90",
        b"\xc1\xdd\xff\xff\xff\xff",
    ],
)
def test_a_broken_bundle_is_refused_as_a_frame(data: bytes) -> None:
    assert list(unbundle(data)) == [data]
    with pytest.raises(ProtocolError):
        decode(data)
