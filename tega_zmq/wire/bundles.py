"""Bundles: several frames to one peer in one message of ZeroMQ.

Most of what a small message costs is the sending and receiving of it, so what leaves for a peer at the same
moment leaves together. A bundle is the byte 0xC1, which begins no msgpack object, and a msgpack array of the
frames as binary data. A frame that is alone travels as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgpack import Packer, unpackb

__all__ = ["MAX_BUNDLE", "MAX_BUNDLED", "bundle", "unbundle"]

MAX_BUNDLE: Final = 64 * 1024
"""Most bytes of the frames in one bundle. A longer frame travels alone."""

MAX_BUNDLED: Final = 1024
"""Most frames in one bundle."""

_MARK: Final = b"\xc1"
_BYTES: Final = frozenset({bytes})
_OVERHEAD: Final = 1 + 3 + 5 * MAX_BUNDLED
"""Most bytes of a bundle besides its frames: the mark, the array's header, and those of the frames."""


def bundle(frames: Sequence[bytes]) -> Sequence[bytes]:
    """Return what to send for `frames`, in order: bundles, and single frames as they are."""
    if len(frames) < 2:
        return frames
    if len(frames) <= MAX_BUNDLED and sum(map(len, frames)) <= MAX_BUNDLE:
        return (_packed(frames),)
    bundles = []
    batch: list[bytes] = []
    size = 0
    for frame in frames:
        size += len(frame)
        if batch and (size > MAX_BUNDLE or len(batch) == MAX_BUNDLED):
            bundles.append(_packed(batch))
            batch = []
            size = len(frame)
        batch.append(frame)
    bundles.append(_packed(batch))
    return bundles


def _packed(batch: Sequence[bytes]) -> bytes:
    if len(batch) == 1:
        return batch[0]
    packed: bytes = Packer().pack(batch)
    return _MARK + packed


def unbundle(data: bytes) -> Sequence[bytes]:
    """Return the frames in `data`, which came in one message.

    A broken or oversized bundle is returned as a frame of its own: no frame begins with the mark, so `decode`
    refuses it.
    """
    if data[:1] != _MARK:
        return (data,)
    if len(data) <= MAX_BUNDLE + _OVERHEAD:
        try:
            frames: Any = unpackb(data[1:], max_array_len=MAX_BUNDLED, max_map_len=0, max_ext_len=0)
        except Exception:  # noqa: BLE001  # of many classes, RecursionError among them
            return (data,)
        if type(frames) is list and _BYTES.issuperset(map(type, frames)):
            return frames
    return (data,)
