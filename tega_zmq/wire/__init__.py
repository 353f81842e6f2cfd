"""What travels: the messages, the codec that makes frames of them and back, and bundles of frames."""

from tega_zmq.wire.bundles import bundle, unbundle
from tega_zmq.wire.codec import MAX_DEPTH, MAX_FRAME, check, decode, encode, request_id

__all__ = ["MAX_DEPTH", "MAX_FRAME", "bundle", "check", "decode", "encode", "request_id", "unbundle"]
