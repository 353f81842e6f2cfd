"""What travels: the messages, and the codec that makes frames of them and back."""

from tega_zmq.wire.codec import MAX_DEPTH, MAX_FRAME, check, decode, encode, request_id

__all__ = ["MAX_DEPTH", "MAX_FRAME", "check", "decode", "encode", "request_id"]
