"""What travels: the messages, the codec that makes frames of them and back, and bundles of frames."""

from tega_zmq.wire.bundles import bundle, unbundle
from tega_zmq.wire.codec import (
    MAX_DEPTH,
    MAX_FRAME,
    check,
    decode,
    decode_value,
    encode,
    encode_value,
    request_id,
)

__all__ = [
    "MAX_DEPTH",
    "MAX_FRAME",
    "bundle",
    "check",
    "decode",
    "decode_value",
    "encode",
    "encode_value",
    "request_id",
    "unbundle",
]
