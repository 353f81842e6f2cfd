"""Which sockets and descriptors something came on.

As `zmq.Poller`, but that one asks every socket of itself before and after it sleeps, which for a loop that
serves one request at a time is a good part of its work. This one asks only those that were used since they
were found empty: the descriptor of a ZeroMQ socket tells only of what comes after its `EVENTS` were read
last, and whatever is done with the socket may read them (see `ZMQ_FD` in the manual of `zmq_getsockopt`).
"""

from __future__ import annotations

import select
from typing import Any, TypeAlias

import zmq

from tega_zmq.client.link import readable

__all__ = ["Poller", "Source"]

Source: TypeAlias = zmq.Socket[Any] | int
"""A ZeroMQ socket, or the descriptor of something else."""


class Poller:
    """Sleeps until something comes on one of its sources. For one thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sources: dict[int, Source] = {}
        """By descriptor."""
        self._descriptors: dict[Source, int] = {}
        self._used: dict[zmq.Socket[Any], None] = {}
        """Sockets that must be asked before their descriptors can be relied on."""
        self.slept = False
        """Whether `poll` found nothing at once the last time."""

    def register(self, source: Source) -> None:
        """Tell of what comes on `source` from now on. Raises `OSError` if it is registered already."""
        if isinstance(source, int):
            fd = source
        else:
            fd = int(source.getsockopt(zmq.FD))
            self._used[source] = None
        self._epoll.register(fd, select.EPOLLIN)
        self._sources[fd] = source
        self._descriptors[source] = fd

    def unregister(self, source: Source) -> None:
        """Tell no more of `source`, which is still open. Raises `KeyError` if it was not registered."""
        fd = self._descriptors.pop(source)
        del self._sources[fd]
        self._epoll.unregister(fd)
        if not isinstance(source, int):
            self._used.pop(source, None)

    def used(self, socket: zmq.Socket[Any]) -> None:
        """Something was sent on `socket`, or an option set or read: it is asked before the next sleep."""
        self._used[socket] = None

    def emptied(self, socket: zmq.Socket[Any]) -> None:
        """`socket` was asked last of all, and had nothing: its descriptor tells of what comes next."""
        self._used.pop(socket, None)

    def poll(self, wait: float) -> list[Source]:
        """Return the sources on which something may have come; sleep for `wait` seconds at most until then.

        What is received without waiting from a socket that is returned here may raise `zmq.Again`. A socket
        that is not emptied is returned again next time.
        """
        ready: list[Source] = []
        if self._used:
            for socket in list(self._used):
                if readable(socket):
                    ready.append(socket)
                else:
                    del self._used[socket]
        self.slept = not ready
        for fd, _ in self._epoll.poll(0 if ready else wait):
            source = self._sources[fd]
            if type(source) is int:
                ready.append(source)
            elif source not in self._used:
                self._used[source] = None  # type: ignore[index]  # it is a socket
                ready.append(source)
        return ready

    def close(self) -> None:
        """Give the descriptor back; the sources stay open."""
        self._epoll.close()
