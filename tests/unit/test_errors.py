"""The error tree: fields, codes, and the way over the wire."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from tega_zmq import errors
from tega_zmq.errors import Collision, HandlerError, NotFound, TegaError, decode, encode, text_of

CLASSES = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_the_wire_and_pickle(cls: type[TegaError]) -> None:
    error = cls("what was wrong", **{name: f"a {name}" for name in cls.fields})
    for copy in (decode(*encode(error)), pickle.loads(pickle.dumps(error))):
        assert type(copy) is cls
        assert copy.message == str(copy) == "what was wrong"
        assert {name: getattr(copy, name) for name in cls.fields} == {
            name: f"a {name}" for name in cls.fields
        }
    assert error.code == cls.__name__
    assert cls.__doc__


def test_fields_that_are_not_given_are_none_and_are_not_sent() -> None:
    error = Collision("x", path="a.b", expected=3)
    assert error.actual is None
    assert encode(error) == ("Collision", "x", {"path": "a.b", "expected": 3})


def test_falsy_fields_are_sent() -> None:
    assert encode(Collision("x", expected=0, actual="absent"))[2] == {"expected": 0, "actual": "absent"}


def test_unknown_fields_are_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match="NotFound has no field pth"):
        NotFound("x", pth="a")


def test_a_newer_peer_is_understood() -> None:
    error = decode("Melted", "too hot", {"degrees": 90})
    assert type(error) is TegaError
    assert error.message == "Melted: too hot"
    known = decode("HandlerError", "x", {"type": "KeyError", "since": 4})
    assert isinstance(known, HandlerError)
    assert (known.type, known.text) == ("KeyError", None)


def test_the_contract_names_them_all() -> None:
    contract = (
        "NotFound InvalidPath InvalidValue TooLarge Collision TransactionExpired MixedOwners ReadOnly "
        "TakenOver Offline OwnerAway NoHandler HandlerGone HandlerError Timeout Cancelled Unauthorized "
        "Forbidden Disconnected ProtocolError StorageError Compacted"
    )
    assert {cls.__name__ for cls in CLASSES} == {*contract.split(), "TegaError"}


def test_any_error_has_a_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise self.args[0]

    class Odd(Exception):
        __str__: Any = lambda self: 5

    assert text_of(ValueError("x", 1)) == "('x', 1)"
    assert text_of(ValueError("\ud800")) == "?"
    assert text_of(Mute(SystemExit())) == "its message cannot be read: SystemExit"
    assert text_of(Mute(ValueError())) == "its message cannot be read: ValueError"
    assert text_of(Odd()) == "its message cannot be read: TypeError"
