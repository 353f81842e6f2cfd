"""The present value, apart from the handlers that a read shows in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tega_zmq.errors import NotFound, Offline
from tega_zmq.plugins.reading import Present, read, without_handlers


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (5, 5),
        ("%pi1.x", "%pi1.x"),
        ({"a": 1, "x": "%pi1.x"}, {"a": 1}),
        ({"x": ["%pi1.x", "%pi2.x"], "y": ["%pi1.z"]}, {"y": ["%pi1.z"]}),
        ({"x": "%pi1.y"}, {"x": "%pi1.y"}),
        ({"deep": {"x": "%a.x"}, "b": {}}, {"b": {}}),
        ({"deep": {"er": {"x": "%a.x"}}}, {}),
        ({"list": []}, {"list": []}),
    ],
)
def test_without_handlers(value: Any, kept: Any) -> None:
    assert without_handlers(value) == kept


class Client:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def node(self, path: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def find(self, regex: str) -> Any:
        return self.answer


def node(value: Any, version: int = 3, epoch: str = "e") -> Any:
    return SimpleNamespace(value=value, version=version, epoch=epoch)


def test_read() -> None:
    assert read(Client(node({"a": 1})), "x", regex=False) == Present(True, {"a": 1}, 3, "e")
    assert read(Client(node(None, 0)), "x", regex=False) == Present(True, None, 0, "e")
    assert read(Client(NotFound("no")), "x", regex=False) == Present(False, None, None, "")
    assert read(Client(node({"y": "%a.y"}, -1, "")), "x", regex=False) == Present(False, None, None, "")
    with pytest.raises(Offline):
        read(Client(Offline("no link")), "x", regex=False)


def test_read_by_regex() -> None:
    assert read(Client([("a.b", (), 1), ("a.c", (), {})]), "x", regex=True) == Present(
        True, {"a.b": 1, "a.c": {}}, None, ""
    )
    assert read(Client([]), "x", regex=True) == Present(False, None, None, "")
