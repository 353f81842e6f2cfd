"""Nothing missed, nothing told twice, whatever is lost in between."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq.client import subscriptions as module
from tega_zmq.client.subscriptions import Subscriptions
from tega_zmq.errors import InvalidValue
from tega_zmq.wire import messages as m


def changed(
    version: int, previous: int, *, epoch: str = "e", root: str = "a", reset: bool = False
) -> m.Changed:
    fields = (((root, "b"), (previous,), (version,), ""),)
    return m.Changed(1, root, epoch, previous, version, 1.5, "noc-1", "why", None, reset, fields)


def standing(position: int = 3) -> Subscriptions:
    subscriptions = Subscriptions()
    subscriptions.to_path(("a",), "local", print)
    assert not subscriptions.confirmed(1, [["a", "e", position]])
    return subscriptions


def told(subscriptions: Subscriptions, each: m.Changed) -> tuple[list[Any], bool]:
    _, changes, again = subscriptions.take(each)
    return [change.new for change in changes], again


def test_the_first_ask_has_no_positions() -> None:
    subscriptions = Subscriptions()
    path = subscriptions.to_path(("a", "b"), "global", print)
    regex = subscriptions.to_regex("a.*", "local", print)
    channel = subscriptions.to_channel("alerts", True, "local", print)
    assert path.ask() == (m.Subscribe, (1, ("a", "b"), "global", (), False))
    assert regex.ask() == (m.SubscribeRegex, (2, "a.*", "local", (), False))
    assert channel.ask() == (m.Listen, (3, "alerts", True, "local"))
    assert len(subscriptions) == 3
    assert subscriptions.find(m.Subscribe, ("a", "b")) == [1]
    assert subscriptions.find(m.Listen, ("alerts", True)) == [3]
    assert subscriptions.find(m.Listen, ("alerts", False)) == []


def test_a_change_is_passed_on_with_all_that_is_known_of_it() -> None:
    _, (change,), again = standing().take(changed(4, 3))
    assert not again
    assert change.path == "a.b"
    assert change.oids == ("a", "b")
    assert change.root == "a"
    assert change.versions == (3, 4)
    assert (change.old, change.new, change.tega_id, change.message) == (3, 4, "noc-1", "why")
    assert (change.time, change.epoch, change.backto) == (1.5, "e", None)
    assert not (change.created)
    assert not (change.deleted)
    assert not (change.reset)
    assert not (change.ephemeral)


@pytest.mark.parametrize(
    ("old", "new", "created", "deleted"),
    [
        ((), (None,), True, False),
        ((None,), (), False, True),
        ((None,), (1,), False, False),
        ((1,), (None,), 0, 0),
    ],
)
def test_a_stored_null_is_not_absence(old: Any, new: Any, created: bool, deleted: bool) -> None:
    each = changed(4, 3)._replace(changes=((("a", "b"), old, new, "s1"),))
    _, (change,), _ = standing().take(each)
    assert (change.created, change.deleted) == (created, deleted)
    assert change.ephemeral


def test_a_change_that_was_passed_on_is_not_told_again() -> None:
    subscriptions = standing()
    assert told(subscriptions, changed(4, 3)) == ([4], False)
    assert told(subscriptions, changed(4, 3)) == ([], False)
    assert told(subscriptions, changed(3, 2)) == ([], False)
    assert told(subscriptions, changed(4, 3, reset=True)) == ([], False)
    assert told(subscriptions, changed(5, 3)) == ([5], False)


def test_a_gap_is_asked_for_once() -> None:
    subscriptions = standing()
    assert told(subscriptions, changed(6, 5)) == ([], True)
    assert told(subscriptions, changed(7, 6)) == ([], False)
    subscribed = subscriptions.get(1)
    assert subscribed is not None
    assert subscribed.ask() == (m.Subscribe, (1, ("a",), "local", (("a", "e", 3),), False))
    subscriptions.confirmed(1, [["a", "e", 3]])
    assert [told(subscriptions, changed(v, v - 1)) for v in (4, 5, 6, 7)] == [
        ([v], False) for v in (4, 5, 6, 7)
    ]


def test_a_refused_repair_may_be_asked_for_again() -> None:
    subscriptions = standing()
    assert told(subscriptions, changed(6, 5)) == ([], True)
    subscriptions.refused(1)
    assert told(subscriptions, changed(7, 6)) == ([], True)
    subscriptions.refused(99)


def test_a_reset_fills_every_gap() -> None:
    subscriptions = standing()
    _, (change,), again = subscriptions.take(changed(90, 3, reset=True))
    assert (change.new, change.reset, change.created, again) == (90, True, False, False)
    assert told(subscriptions, changed(91, 90)) == ([91], False)
    assert told(subscriptions, changed(2, 0, epoch="f", reset=True)) == ([2], False)
    assert told(subscriptions, changed(3, 2, epoch="f")) == ([3], False)


def test_another_epoch_is_a_gap_unless_the_node_said_so() -> None:
    subscriptions = standing()
    assert told(subscriptions, changed(0, -1, epoch="f")) == ([], True)
    subscriptions.confirmed(1, [["a", "f", 0]])
    assert told(subscriptions, changed(1, 0, epoch="f")) == ([1], False)


def test_a_root_that_comes_into_being() -> None:
    subscriptions = Subscriptions()
    subscribed = subscriptions.to_path(("a",), "local", print)
    subscriptions.confirmed(1, [])
    assert told(subscriptions, changed(0, -1)) == ([0], False)
    assert subscribed.ask()[1][3] == (("a", "e", 0),)


def test_a_root_that_comes_into_being_while_nobody_is_connected() -> None:
    subscriptions = Subscriptions()
    subscribed = subscriptions.to_path(("a",), "local", print)
    subscriptions.confirmed(1, [])
    assert subscriptions.welcomed(True) == [1]
    assert subscribed.ask()[1][3] == (("a", "", -1),)
    assert not subscriptions.confirmed(1, [["a", "", -1]])
    assert told(subscriptions, changed(5, -1, reset=True)) == ([5], False)


def test_all_commits_of_a_root_that_came_into_being_while_nobody_was_connected() -> None:
    subscriptions = Subscriptions()
    subscriptions.to_path(("a",), "local", print)
    subscriptions.confirmed(1, [])
    assert subscriptions.welcomed(True) == [1]
    subscriptions.get(1).ask()  # type: ignore[union-attr]
    assert told(subscriptions, changed(1, 0)) == ([], False), "the first one was lost with the connection"
    assert not subscriptions.confirmed(1, [["a", "", -1]])
    assert told(subscriptions, changed(-1, -1)) == ([-1], False), "a part of the first"
    assert told(subscriptions, changed(0, -1)) == ([0], False)
    assert told(subscriptions, changed(1, 0)) == ([1], False)


def test_the_first_word_of_a_new_root_was_lost_with_the_connection() -> None:
    subscriptions = Subscriptions()
    subscribed = subscriptions.to_regex("[ab]", "local", print)
    assert not subscriptions.confirmed(1, [["a", "e", 3]])
    assert subscriptions.welcomed(True) == [1]
    assert told(subscriptions, changed(8, 7, root="b")) == ([], False)
    assert told(subscriptions, changed(8, 8, root="b")) == ([], False), "a part of one"
    assert subscribed.ask()[1][3] == (("a", "e", 3),)
    assert subscriptions.confirmed(1, [["a", "e", 3], ["b", "e", 8]])
    assert subscribed.ask()[1][3] == (("a", "e", 3), ("b", "", -1))
    assert not subscriptions.confirmed(1, [["a", "e", 3], ["b", "", -1]])
    assert told(subscriptions, changed(8, -1, root="b", reset=True)) == ([8], False)


def test_what_follows_on_a_root_that_came_into_being_meanwhile_is_not_all_of_it() -> None:
    subscriptions = Subscriptions()
    subscriptions.to_regex(".*", "local", print)
    assert not subscriptions.confirmed(1, [])
    assert subscriptions.welcomed(False) == [1]
    assert subscriptions.confirmed(1, [["a", "e", 0]]), "ask again"
    assert told(subscriptions, changed(1, 0)) == ([], False)
    assert not subscriptions.confirmed(1, [["a", "", -1]])
    assert told(subscriptions, changed(1, -1, reset=True)) == ([1], False)


def test_a_regex_asks_for_roots_of_which_it_heard_nothing() -> None:
    subscriptions = Subscriptions()
    subscribed = subscriptions.to_regex(".*", "local", print)
    assert not subscriptions.confirmed(1, [["a", "e", 3]])
    subscriptions.welcomed(False)
    assert subscribed.ask()[1][3] == (("a", "e", 3),)
    assert subscriptions.confirmed(1, [["a", "e", 3], ["b", "e", 9]])
    assert subscribed.asking
    assert set(subscribed.ask()[1][3]) == {("a", "e", 3), ("b", "", -1)}
    assert not subscriptions.confirmed(1, [["a", "e", 3], ["b", "", -1]])
    assert told(subscriptions, changed(9, -1, root="b", reset=True)) == ([9], False)


def test_what_is_asked_again_after_a_welcome() -> None:
    subscriptions = Subscriptions()
    for _ in range(2):
        subscriptions.to_path(("a",), "local", print)
    subscriptions.to_channel("c", False, "local", print)
    subscriptions.confirmed(1, [])
    subscriptions.confirmed(3, [])
    assert subscriptions.welcomed(True) == [1]
    assert subscriptions.welcomed(False) == [1, 3]


def test_what_comes_for_an_ended_subscription_is_dropped() -> None:
    subscriptions = standing()
    assert subscriptions.remove(1)
    assert not subscriptions.remove(1)
    assert subscriptions.take(changed(4, 3)) == (None, (), False)
    assert not subscriptions.confirmed(1, [["a", "e", 3]])
    assert subscriptions.get(1) is None


def test_no_more_than_a_session_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SUBSCRIPTIONS", 2)
    subscriptions = Subscriptions()
    subscriptions.to_path(("a",), "local", print)
    subscriptions.to_path(("a",), "local", print)
    with pytest.raises(InvalidValue, match="2 subscriptions"):
        subscriptions.to_channel("c", False, "local", print)


class Owner:
    """A node with one root and one subscription, as design and protocol want it: what it sends, in order."""

    def __init__(self, version: int) -> None:
        self.epoch, self.version, self.oldest = "e0", version, 0
        self.sent: tuple[str, int] | None = None
        self.line: list[Any] = []

    def subscribe(self, since: tuple[Any, ...]) -> None:
        there = self.version >= 0
        self.sent = (self.epoch, self.version) if there else ("", -1)
        for _, epoch, version in since:
            self.sent = (epoch, version)
        self.line.append([["a", *self.sent]] if there or since else [])
        if since:
            self.catch_up()

    def catch_up(self) -> None:
        assert self.sent is not None
        epoch, version = self.sent
        if self.sent == (self.epoch, self.version) or self.version < 0:
            return
        if self.sent == ("", -1):
            epoch = self.epoch
        if epoch != self.epoch or version < self.oldest - (self.oldest == 0):
            self.sent = (self.epoch, self.version)
            self.line.append(changed(self.version, version, epoch=self.epoch, reset=True))
            return
        for after in range(version + 1, self.version + 1):
            self.tell(after)

    def tell(self, version: int) -> None:
        assert self.sent is not None
        previous = self.sent[1] if self.sent[0] == self.epoch else -1
        self.sent = (self.epoch, version)
        self.line.append(changed(version, previous, epoch=self.epoch))

    def commit(self) -> None:
        self.version += 1
        if self.sent is not None:
            self.tell(self.version)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(["commit", "commit", "read", "read", "drop one", "cut", "compact", "clear"]),
        max_size=60,
    ),
    st.sampled_from([3, -1]),
)
def test_a_subscriber_ends_where_its_owner_is(steps: list[str], version: int) -> None:
    owner = Owner(version)
    subscriptions = Subscriptions()
    subscribed = subscriptions.to_path(("a",), "local", print)
    owner.subscribe(subscribed.ask()[1][3])
    seen: list[tuple[str, int, bool]] = []
    reads = itertools.count()

    def read() -> None:
        assert next(reads) < 10_000, "it asks again and again"
        each = owner.line.pop(0)
        if isinstance(each, list):
            if subscriptions.confirmed(1, each):
                owner.subscribe(subscribed.ask()[1][3])
            return
        _, changes, again = subscriptions.take(each)
        seen.extend((change.epoch, change.version, change.reset) for change in changes)
        if again:
            owner.subscribe(subscribed.ask()[1][3])

    def reconnect() -> None:
        owner.line.clear()
        if subscriptions.welcomed(False):
            owner.subscribe(subscribed.ask()[1][3])
        else:
            owner.subscribe(subscribed.ask()[1][3])  # the session sends the unanswered request again

    if version < 0:
        read()  # from now on it stands
    for step in steps:
        match step:
            case "commit":
                owner.commit()
            case "read" if owner.line:
                read()
            case "drop one" if owner.line and not isinstance(owner.line[0], list):
                owner.line.pop(0)
            case "cut":
                reconnect()
            case "compact":
                owner.oldest = max(owner.version, 0)
            case "clear":
                owner.epoch, owner.version, owner.oldest = owner.epoch + "x", -1, 0
                owner.commit()
            case _:
                pass
    reconnect()
    while owner.line:
        read()
    owner.commit()
    while owner.line:
        read()
    assert seen[-1][:2] == (owner.epoch, owner.version)
    if version < 0 and not {"compact", "clear", "drop one"} & set(steps):
        assert [each[1:] for each in seen] == [(number, False) for number in range(owner.version + 1)]
    for (epoch, version, _), (next_epoch, next_version, reset) in itertools.pairwise(seen):
        assert reset or (next_epoch, next_version) == (epoch, version + 1) or next_version == 0
