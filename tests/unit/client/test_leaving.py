"""How a block over a subscription ends, with both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tega_zmq.client import aio, blocking
from tega_zmq.client.requests import LEAVING
from tega_zmq.client.subscriptions import Subscribed
from tega_zmq.errors import Disconnected, Forbidden, NotFound, TegaError, Timeout
from tega_zmq.wire import messages


class Client:
    """Ends subscriptions, or fails to."""

    def __init__(self) -> None:
        self.state, self._timeout = "connected", 10.0
        self.waited: list[float | None] = []
        self.fail: list[TegaError] = []

    def unsubscribe(self, _subscription: Any, timeout: float | None = None) -> None:
        self.waited.append(timeout)
        if self.fail:
            raise self.fail[0]


class AsyncClient(Client):
    async def unsubscribe(self, subscription: Any, **options: Any) -> None:  # type: ignore[override]
        super().unsubscribe(subscription, **options)


Leave = Callable[..., None]
Block = Callable[[Subscribed], None]


def leave(client: Client, block: Block = lambda _: None) -> None:
    subscribed = Subscribed(1, messages.Subscribe, ("a",), "local", print)
    with blocking.Subscription(client, subscribed):  # type: ignore[arg-type]
        block(subscribed)


def leave_async(client: Client, block: Block = lambda _: None) -> None:
    async def main() -> None:
        subscribed = Subscribed(1, messages.Subscribe, ("a",), "local", print)
        async with aio.Subscription(client, subscribed):  # type: ignore[arg-type]
            block(subscribed)

    asyncio.run(main())


both = pytest.mark.parametrize(("made", "leave"), [(Client, leave), (AsyncClient, leave_async)])


def failing(_: Subscribed) -> None:
    raise KeyError("mine")


@both
def test_it_is_ended_with_the_block(made: type[Client], leave: Leave) -> None:
    client = made()
    leave(client)
    assert client.waited == [None]


@both
@pytest.mark.parametrize("error", [Timeout("no answer"), Disconnected("gone"), NotFound("ended")])
def test_the_error_of_the_block_is_what_is_raised(made: type[Client], leave: Leave, error: TegaError) -> None:
    client = made()
    client.fail = [error]
    with pytest.raises(KeyError, match="mine"):
        leave(client, failing)
    assert client.waited == [LEAVING]
    client._timeout = 0.2
    with pytest.raises(KeyError):
        leave(client, failing)
    assert client.waited[1:] == [0.2], "not longer than all else"


@both
def test_it_may_be_ended_and_the_client_closed_within_the_block(made: type[Client], leave: Leave) -> None:
    client = made()
    client.fail = [NotFound("it ended already")]
    leave(client)
    client.fail = [Disconnected("the connection is lost")]
    with pytest.raises(Disconnected):
        leave(client)
    client.state = "closed"
    leave(client)


@both
def test_what_it_ended_by_is_raised_unless_the_block_has_an_error(made: type[Client], leave: Leave) -> None:
    client = made()

    def ended(subscribed: Subscribed) -> None:
        subscribed.error = Forbidden("not any more")

    def ended_and_failing(subscribed: Subscribed) -> None:
        ended(subscribed)
        failing(subscribed)

    with pytest.raises(Forbidden):
        leave(client, ended)
    with pytest.raises(KeyError):
        leave(client, ended_and_failing)
    assert client.waited == []
