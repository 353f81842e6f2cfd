"""What a link has for a socket when it is no ZeroMQ socket."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Piped"]


class Piped(ABC):
    """Carries frames like a DEALER: the few methods of `zmq.Socket` that drivers use."""

    __slots__ = ()

    @abstractmethod
    def readable(self) -> bool:
        """Whether a frame can be received now. Also sends what waits, as far as the peer reads."""

    @abstractmethod
    def recv(self, flags: int = 0) -> bytes:
        """Return the next frame. Never waits. Raises `zmq.Again`."""

    @abstractmethod
    def send(self, data: bytes, flags: int = 0) -> None:
        """Send a frame. Never waits. Raises `zmq.Again` if too much waits already."""

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        """Return the next message: it has one frame. Raises `zmq.Again`."""
        return [self.recv(flags)]

    def getsockopt(self, option: int) -> int:  # noqa: ARG002  # as zmq.Socket has it
        """Return 0: the only option asked for is whether more frames follow."""
        return 0
