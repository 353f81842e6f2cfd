"""What waits for callbacks is in order and bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq.client import notices as module
from tega_zmq.client.notices import Notice, Notices


def drain(notices: Notices) -> list[Any]:
    found = []
    while (notice := notices.pop()) is not None:
        found.append(notice.arguments[0])
    return found


def test_order() -> None:
    notices = Notices()
    notices.push(print, (1, 2))
    assert notices.push_message(repr, 3) == 0
    assert notices.count == 2
    assert notices.pop() == Notice(print, (1, 2))
    assert notices.pop() == Notice(repr, (3,))
    assert notices.pop() is None


@given(st.lists(st.sampled_from(["change", "message", "message", "pop"]), max_size=80))
def test_the_oldest_messages_go_and_nothing_else(steps: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_MESSAGES", 3)
        notices, model = Notices(), []
        for number, step in enumerate(steps):
            if step == "change":
                notices.push(print, (number,))
                model.append(("change", number))
            elif step == "message":
                model.append(("message", number))
                waiting = [each for each in model if each[0] == "message"]
                if len(waiting) > 3:
                    model.remove(waiting[0])
                assert notices.push_message(print, number) == (len(waiting) > 3)
            else:
                notice = notices.pop()
                assert (notice.arguments[0] if notice else None) == (model.pop(0)[1] if model else None)
            assert notices.count == len(model)
            assert len(notices._slots) <= len(model) + 4
        assert drain(notices) == [number for _, number in model]


def test_full_counts_changes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHANGES", 2)
    notices = Notices()
    for _ in range(5):
        notices.push_message(print, 0)
    assert not notices.full
    notices.push(print, (1,))
    notices.push(print, (1,))
    assert notices.full
    notices.clear()
    assert not notices.full
    assert notices.pop() is None
