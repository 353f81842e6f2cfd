"""The codec: what it carries arrives as it was; what it refuses is named."""

from __future__ import annotations

import enum
import re
from collections import OrderedDict
from typing import Any, NamedTuple, get_type_hints

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq.errors import InvalidValue, ProtocolError, TooLarge
from tega_zmq.wire import MAX_DEPTH, MAX_FRAME, check, codec, decode, encode, messages, request_id
from tega_zmq.wire.fields import reader
from tega_zmq.wire.messages import (
    Begin,
    Bye,
    Call,
    CallAll,
    Changed,
    Chunk,
    Dropped,
    Find,
    Forward,
    Get,
    Heartbeat,
    Hello,
    Invoke,
    Message,
    Publish,
    Reply,
    Result,
    RootUpdate,
    Subscribe,
    Welcome,
    Write,
)
from tests.wire_samples import ANY_MESSAGE, VALUE, sample

ALL = sorted(messages.CODES.items())


def frame(code: Any, *fields: Any) -> bytes:
    """Pack what a peer could send, right or wrong."""
    return msgpack.packb([code, *fields])


def refused(data: bytes) -> str:
    """Return why `data` is refused."""
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    assert caught.value.__cause__ is None
    return caught.value.message


def nested(depth: int, make: Any = lambda inner: [inner]) -> Any:
    """Return that many containers within one another."""
    value = make(None)
    for _ in range(depth - 1):
        value = make(value)
    return value


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


# -- what is right arrives ---------------------------------------------------------------------------


@settings(max_examples=400)
@given(ANY_MESSAGE)
def test_a_message_arrives_as_it_was(message: Any) -> None:
    assert same(decode(encode(message)), message)


@pytest.mark.parametrize(("code", "cls"), ALL, ids=lambda each: getattr(each, "__name__", str(each)))
def test_each_type_has_its_code_and_arrives(code: int, cls: type[Any]) -> None:
    message = sample(cls)
    data = encode(message)
    assert msgpack.unpackb(data)[0] == code
    assert same(decode(data), message)


def test_lists_in_values_stay_lists_and_paths_become_tuples() -> None:
    write = decode(frame(22, 1, 1, 5, [["put", ["r", "a"], {"l": [1, [2]]}, None, False]], "", ""))
    assert same(write, Write(1, 1, 5, (("put", ("r", "a"), {"l": [1, [2]]}, None, False),), "", ""))


@pytest.mark.parametrize(
    "twice",
    [
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x83\xa1a\x01\xa1b\x02\xa1a\x01",
        b"\xde\x00\x02\xa1a\x01\xa1a\x01",
        b"\xdf\x00\x00\x00\x02\xa1a\x01\xd9\x01a\x01",  # the same text, written longer
        b"\xde\x01\x2c" + b"\xa1a\x01" * 300,
    ],
)
@pytest.mark.parametrize("around", [b"%s", b"\x91%s", b"\x81\xa1z%s", b"\x82\xa1x\xc0\xa1y\x92\xc0%s"])
def test_a_key_that_comes_twice_is_refused(twice: bytes, around: bytes) -> None:
    data = encode(Reply(5, None))
    assert data[-1:] == b"\xc0"
    said = refused(data[:-1] + around % twice)
    assert said.endswith("a map has a key twice")
    once = data[:-1] + around % b"\x82\xa1a\x01\xa1b\x02"
    assert decode(once) == Reply(5, msgpack.unpackb(once)[2])


def test_what_is_not_written_the_shortest_way_arrives_as_well() -> None:
    value = {"a": 1, "b": [1.5, {"c": "\u00fc", "d": None}]}
    long = (
        b"\xdf\x00\x00\x00\x02\xd9\x01a\xcd\x00\x01\xda\x00\x01b\xdc\x00\x02\xca\x3f\xc0\x00\x00"
        b"\xde\x00\x02\xa1c\xd9\x02\xc3\xbc\xa1d\xc0"
    )
    assert same(decode(b"\x93\x3e\x05" + long), Reply(5, value))
    assert same(decode(b"\xdc\x00\x03\xcc\x3e\x05" + long), Reply(5, value))
    assert same(decode(b"\x94\x04\x05\xc3" + long), Result(5, True, value))
    write = b"\x97\x16\x01\x01\x05\xdd\x00\x00\x00\x01\x95\xa3put\x91\xa1r%s\xc0\xc2\xa0\xa0" % long
    assert same(decode(write), Write(1, 1, 5, (("put", ("r",), value, None, False),), "", ""))


@pytest.mark.parametrize(
    "extension", [b"\xc7\x00\x05", b"\xc7\x00\xff", b"\xd4\x05\x01", b"\xd6\xff" + bytes(4)]
)
@pytest.mark.parametrize(
    "around", [b"%s", b"\x91%s", b"\x81\xa1a%s", b"\x82\xa1a%s\xa1b\x01", b"\x91\x82\xa1a\x91%s\xa1b\x01"]
)
def test_an_extension_is_refused_wherever_it_stands(extension: bytes, around: bytes) -> None:
    value = around % extension
    for message in (
        b"\x93\x3e\x01%s",
        b"\x94\x04\x01\xc3%s",
        b"\x97\x24\x01\x01\x01\x91\xa1a\x91%s\x80",
        b"\x97\x24\x01\x01\x01\x91\xa1a\x90\x81\xa1k%s",
        b"\x97\x16\x01\x01\x01\x91\x95\xa3put\x91\xa1r%s\xc0\xc2\xa0\xa0",
        b"\x92\x07\x91%s",
        b"\x94\x3e\x01\xc0%s",
    ):
        assert "not one valid msgpack object" in refused(message % value)


def test_an_integer_is_taken_for_a_float_field() -> None:
    fields = (1, "s", "t", False, "gw", "run", 15, 3, ":1", 4)
    welcome = decode(frame(60, *fields))
    assert isinstance(welcome, Welcome)
    assert same(welcome, Welcome(*fields[:6], 15.0, 3.0, ":1", 4))


def test_the_bounds_of_integers_are_inclusive() -> None:
    get = Get(2**63 - 1, 0, 0, (), -(2**63), "", "")
    assert decode(encode(get)) == get
    value = Reply(0, [2**64 - 1, -(2**63)])
    assert decode(encode(value)) == value


@given(st.lists(VALUE, min_size=1, max_size=3))
@settings(max_examples=50)
def test_fields_of_a_later_version_are_ignored(more: list[Any]) -> None:
    for code, cls in ALL:
        data = msgpack.packb([code, *sample(cls), *more])
        assert same(decode(data), sample(cls))


def test_a_value_that_is_not_finite_passes_but_a_field_does_not() -> None:
    infinite = decode(encode(Reply(1, [float("inf"), float("-inf")])))
    assert infinite == Reply(1, [float("inf"), float("-inf")])
    changed = sample(Changed)._replace(time=float("nan"))
    assert refused(encode(changed)) == "Changed.time: expected a finite number"
    assert refused(encode(changed._replace(time=float("inf")))) == "Changed.time: expected a finite number"


# -- what is wrong is named --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "a frame of 0 bytes is not one valid msgpack object"),
        (b"\xc1", "FormatError"),
        (b"\xc0\xc0", "extra data"),
        (b"\xc0", "begins with its code, not nil"),
        (b"\x80", "begins with its code, not a map"),
        (b"\x90", "begins with its code, not a list"),
        (frame(99), "no message has the code 99"),
        (frame(-1), "no message has the code -1"),
        (frame(True), "code: a boolean"),
        (frame(2.0), "code: a float"),
        (frame([]), "code: a list"),
        (frame({}), "code: a map"),
        (frame(None), "code: nil"),
        (frame("Hello"), "code: text"),
        (frame(b"a"), "code: binary data"),
        (frame(1), "Hello: 0 fields, expected 5: no version"),
        (frame(23, 1, 2), "Begin: 2 fields, expected 3: no timeout"),
        (frame(23, -1, 0, 0), "Begin.id: expected an integer from 0 to 2^63-1, got the integer -1"),
        (
            frame(23, 0, 2**63, 0),
            "Begin.ack: expected an integer from 0 to 2^63-1, got the integer 922337203",
        ),
        (frame(23, 0, 0, True), "Begin.timeout: expected an integer, got a boolean"),
        (frame(23, 0, 0, 1.0), "Begin.timeout: expected an integer, got a float"),
        (frame(23, None, 0, 0), "Begin.id: expected an integer, got nil"),
        (frame(66, -3), "Dropped.count: expected an integer from 0 to 2^63-1, got the integer -3"),
        (frame(5, "s", "t", "body"), "Forward.body: expected binary data, got text"),
        (frame(4, 1, 1, None), "Result.ok: expected a boolean, got the integer 1"),
        (frame(20, 1, 1, 1, "a.b", None, "", ""), "Get.path: expected a list, got text"),
        (frame(20, 1, 1, 1, ["a", 5], None, "", ""), "Get.path[1]: expected text, got the integer 5"),
        (frame(20, 1, 1, 1, ["a", b"b"], None, "", ""), "Get.path[1]: expected text, got binary data"),
        (frame(20, 1, 1, 1, [], 2**63, "", ""), "Get.version: expected an integer from -2^63 to 2^63-1"),
        (frame(20, 1, 1, 1, [], 5.0, "", ""), "Get.version: expected an integer, text or nil, got a float"),
        (frame(20, 1, 1, 1, [], None, 7, ""), "Get.form: expected text, got the integer 7"),
        (frame(22, 1, 1, 1, {}, "", ""), "Write.ops: expected a list, got a map"),
        (frame(22, 1, 1, 1, ["x"], "", ""), "Write.ops[0]: expected a list of 5, got text"),
        (frame(22, 1, 1, 1, [["put", ["a"], 1]], "", ""), "Write.ops[0]: expected a list of 5, got one of 3"),
        (
            frame(22, 1, 1, 1, [["put", ["a"], 1, 0, 0]], "", ""),
            "Write.ops[0][4]: expected a boolean, got the integer 0",
        ),
        (
            frame(22, 1, 1, 1, [["put", ["a"], 1, 0, True], ["put", [None], 1, 0, False]], "", ""),
            "Write.ops[1][1][0]: expected text, got nil",
        ),
        (
            frame(22, 1, 1, 1, [["put", ["a"], 1, 2**63, True]], "", ""),
            "Write.ops[0][3]: expected an integer from -2^63 to 2^63-1",
        ),
        (frame(36, 1, 1, 1, [], {}, {}), "Call.args: expected a list, got a map"),
        (frame(36, 1, 1, 1, [], [], []), "Call.kwargs: expected a map, got a list"),
        (frame(65, [1, -1], "", "", 0), "Message.subscriptions[1]: expected an integer from 0 to 2^63-1"),
        (frame(65, [1, "1"], "", "", 0), "Message.subscriptions[1]: expected an integer, got text"),
        (frame(3, [["r", "e", 1.5]]), "Heartbeat.positions[0][2]: expected an integer, got a float"),
        (frame(3, [["r", "e"]]), "Heartbeat.positions[0]: expected a list of 3, got one of 2"),
        (frame(7, {}), "RootUpdate.update: expected a list, got a map"),
        (
            frame(64, 1, "r", "e", 1, 2, "now", "t", "m", None, False, []),
            "Changed.time: expected a finite number, got text",
        ),
        (
            frame(64, 1, "r", "e", 1, 2, 1.5, "t", "m", None, False, [[["r"], [1, 2], [], ""]]),
            "Changed.changes[0][1]: expected a list of at most one value, got one of 2",
        ),
        (
            frame(64, 1, "r", "e", 1, 2, 1.5, "t", "m", None, False, [[["r"], [], None, ""]]),
            "Changed.changes[0][2]: expected a list of at most one value, got nil",
        ),
        (frame(62, 1, {1: 2}), "not one valid msgpack object"),
        (frame(62, 1, {b"a": 2}), "the keys of a map must be text"),
        (frame(62, 1, {"a": [{b"": 2}]}), "the keys of a map must be text"),
        (b"\x93\x3e\x01\xa2\xc3\x28", "not one valid msgpack object"),
        (b"\x93\x3e\x01\xa3\xed\xa0\x80", "not one valid msgpack object"),
        (b"\x93\x3e\x01\xc7\x00\x05", "extension type 5"),
        (b"\x93\x3e\x01\xd4\x05\x01", "max_ext_len"),
        (b"\x93\x3e\x01\xd6\xff\x00\x00\x00\x00", "max_ext_len"),
        (b"\x93\x3e\x01\xd7\xff" + bytes(8), "max_ext_len"),
        (b"\x93\x3e\x01\xc7\x0c\xff" + bytes(12), "max_ext_len"),
        (b"\x93\x3e\x01\xdd\xff\xff\xff\xff", "max_array_len"),
        (b"\x93\x3e\x01\xdf\xff\xff\xff\xff", "max_map_len"),
        (b"\x93\x3e\x01\xdb\xff\xff\xff\xff", "not one valid msgpack object"),
        (b"\x93\x3e\x01\xc6\xff\xff\xff\xff", "not one valid msgpack object"),
        (b"\x91" * 5000, "not one valid msgpack object"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, said: str) -> None:
    assert said in refused(data)


WRONG: tuple[Any, ...] = (
    None,
    True,
    3,
    -1,
    2**63,
    -(2**63),
    1.5,
    "t",
    b"b",
    [],
    [1],
    ["a"],
    [[]],
    {},
    {"a": 1},
)


@pytest.mark.parametrize(("code", "cls"), ALL, ids=lambda each: getattr(each, "__name__", str(each)))
def test_any_field_of_another_type_is_refused_by_name_or_taken_as_it_is(code: int, cls: type[Any]) -> None:
    right = msgpack.unpackb(encode(sample(cls)))
    for at, name in enumerate(get_type_hints(cls), 1):
        took = 0
        for wrong in WRONG:
            raw = [*right[:at], wrong, *right[at + 1 :]]
            try:
                message = decode(msgpack.packb(raw))
            except ProtocolError as error:
                assert error.message.startswith(f"{cls.__name__}.{name}"), error.message
            else:
                took += 1
                arrived = list(message)[at - 1]
                assert msgpack.packb(arrived) == msgpack.packb(wrong) or arrived == wrong
        # A field that takes anything is a value; every other refuses most of these.
        assert took <= 6 or get_type_hints(cls)[name] is Any


@pytest.mark.parametrize(("code", "cls"), ALL, ids=lambda each: getattr(each, "__name__", str(each)))
def test_a_missing_field_is_named(code: int, cls: type[Any]) -> None:
    names = list(get_type_hints(cls))
    right = msgpack.unpackb(encode(sample(cls)))
    for have in range(len(names)):
        text = f"{cls.__name__}: {have} fields, expected {len(names)}: no {names[have]}"
        assert refused(msgpack.packb(right[: have + 1])) == text


def test_a_frame_over_the_limit_is_refused_unread() -> None:
    assert "more than 8388608" in refused(b"\xc0" * (MAX_FRAME + 1))
    longest = Forward("", "", bytes(MAX_FRAME - 10))
    data = encode(longest)
    assert len(data) <= MAX_FRAME
    assert decode(data) == longest


def test_lengths_that_are_only_promised_reserve_nothing() -> None:
    # 1,000 lists within one another, each of which says that it has as many elements as the frame has bytes.
    size = 4 * 1024 * 1024
    promise = b"\xdd" + (size - 1).to_bytes(4, "big")
    data = b"\x93\x3e\x01" + promise * 1000
    data += b"\xc0" * (size - len(data))
    assert "not one valid msgpack object" in refused(data)


def test_depth_is_bounded_and_what_sessions_send_can_be_passed_on() -> None:
    for make in (lambda inner: [inner], lambda inner: {"a": inner}):
        deep = msgpack.packb([62, 1, nested(MAX_DEPTH - 1, make)])
        assert same(encode(decode(deep)), deep)
        assert f"more than {MAX_DEPTH}" in refused(msgpack.packb([62, 1, nested(MAX_DEPTH, make)]))
    sent = decode(msgpack.packb([4, 1, True, nested(239)]))
    assert isinstance(sent, Result)
    passed = Reply(1, [[["a"], "pi1", True, sent.value]])
    assert same(decode(encode(passed)), passed)
    assert "more than 240" in refused(msgpack.packb([4, 1, True, nested(240)]))
    assert "not one valid" in refused(b"\x93\x3e\x01" + b"\x91" * 900_000 + b"\xc0")


def test_many_containers_side_by_side_are_fine() -> None:
    wide = Reply(1, [[index, {}] for index in range(5000)])
    assert decode(encode(wide)) == wide
    text = Reply(1, {"\u0420\u0443\u0441": "\u4e00\u4e8c\u4e09" * 500, "bytes": b"\x91\xc4" * 500})
    assert decode(encode(text)) == text


# -- ids of what cannot be decoded -------------------------------------------------------------------


def test_the_id_of_a_broken_request_is_found() -> None:
    assert request_id(frame(22, 12345, "no ack")) == 12345
    assert request_id(frame(20, 2**63 - 1)) == 2**63 - 1
    assert request_id(frame(43, 7, 0, 0, "what", {1: 2})) == 7
    whole = encode(Find(99, 1, 1, "x" * 5000, ""))
    assert request_id(whole) == 99
    assert request_id(whole[:20]) == 99


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\x91\x14",
        b"\x92\x14",
        frame(22, "one"),
        frame(22, True),
        frame(22, -1),
        frame(22, 2**63),
        frame(22, None),
        frame(22, [1]),
        frame(4, 1),
        frame(62, 1),
        frame(99, 1),
        frame(True, 1),
        frame("Get", 1),
        frame([], 1),
        frame({}, 1),
        b"\x92\x14\xc7\x00\x05",
        b"\x92\xdd\xff\xff\xff\xff",
        b"\x92" + b"\x91" * 2000,
    ],
)
def test_no_id_is_made_up(data: bytes) -> None:
    assert request_id(data) is None


# -- what cannot be sent -----------------------------------------------------------------------------


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2**64, "the value: an integer beyond 64 bits"),
        (-(2**63) - 1, "the value: an integer beyond 64 bits"),
        ("a\ud800", "the value: text that is not valid Unicode"),
        ({"\ud800": 1}, "the value['\\ud800']: text that is not valid Unicode"),
        ({"a": [1, {"b": {2}}]}, "the value['a'][1]['b']: a value cannot be of type set"),
        ({"a": {1: 2}}, "the value['a'][1]: a key must be text, not int"),
        ({b"a": 2}, "the value[b'a']: a key must be text, not bytes"),
        ([0, object], "the value[1]: a value cannot be of type type"),
        (1j, "the value: a value cannot be of type complex"),
        (nested(201), "the value: more than 200 containers within one another"),
    ],
)
def test_a_value_that_cannot_travel_is_named_where_it_is_sent(value: Any, said: str) -> None:
    sent: list[Any] = [
        Publish(1, 1, 1, "c", value),
        Result(1, True, value),
        messages.Report(1, 1, 1, "n", value),
        Write(1, 1, 1, (("put", ("a",), value, None, False),), "", ""),
    ]
    for message in sent:
        with pytest.raises(InvalidValue, match="^" + re.escape(said) + "$") as caught:
            encode(message)
        assert caught.value.path == said.partition(": ")[0]


def test_arguments_and_operations_are_named() -> None:
    with pytest.raises(InvalidValue, match=r"args\[1\]: an integer beyond"):
        encode(Call(1, 1, 1, ("a",), (1, 2**70), {}))
    with pytest.raises(InvalidValue, match=r"kwargs\['x'\]: a value cannot be of type set"):
        encode(messages.CallAll(1, 1, 1, "a", (), {"x": set()}))
    good = ("put", ("a",), "x", None, False)
    with pytest.raises(InvalidValue, match=r"the value of operation 1: an integer beyond"):
        encode(Write(1, 1, 1, (good, ("put", ("a",), 2**70, None, False)), "", ""))


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidValue, match="more than 200 containers"):
        encode(Publish(1, 1, 1, "c", loop))
    with pytest.raises(InvalidValue, match="recursion limit exceeded"):
        encode(Reply(1, loop))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (Reply(1, 2**64), "Reply cannot be sent: an integer beyond 64 bits"),
        (Reply(1, "\ud800"), "Reply cannot be sent: text that is not valid Unicode"),
        (Reply(1, {1, 2}), "Reply cannot be sent: can not serialize 'set' object"),
        (Reply(1, nested(MAX_DEPTH)), "Reply cannot be sent: more than 256 containers in one another"),
        (Reply(1, nested(MAX_DEPTH, lambda inner: {"a": inner})), "more than 256 containers"),
        (Find(1, 1, 1, "\udc80", ""), "Find cannot be sent: text that is not valid Unicode"),
        (RootUpdate((nested(240),)), "RootUpdate cannot be sent: more than 240 containers in one another"),
        (Begin(2**64, 1, 1), "Begin cannot be sent: an integer beyond 64 bits"),
    ],
)
def test_what_msgpack_cannot_carry_is_an_invalid_value(message: Any, said: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(said)) as caught:
        encode(message)
    assert caught.value.__cause__ is None


def test_a_frame_too_long_to_be_taken_is_not_made() -> None:
    with pytest.raises(
        TooLarge, match="Reply would be a frame of 8388618 bytes, more than 8388608"
    ) as caught:
        encode(Reply(1, bytes(MAX_FRAME + 2)))
    assert (caught.value.size, caught.value.limit) == (MAX_FRAME + 10, MAX_FRAME)


def test_check_takes_what_arrives_as_it_is() -> None:
    plain = {"a": [1, -(2**63), 2**64 - 1, 1.5, None, True, "\u00fc", b"b", {}, []], "\u00e9": nested(198)}
    check(plain)
    assert decode(encode(Result(1, True, plain))) == Result(1, True, plain)
    check((1, OrderedDict(a=Colour.RED), 1.5))
    with pytest.raises(InvalidValue, match=r"^port: a value cannot be of type bytearray"):
        check(bytearray(b"a"), "port")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_a_session_sends_is_finite(number: float) -> None:
    for message in (
        Publish(1, 1, 1, "c", number),
        Publish(1, 1, 1, "c", {"a": [number]}),
        Call(1, 1, 1, ("a", "f"), (number,), {}),
        CallAll(1, 1, 1, "a.f", (), {"b": number}),
        Result(1, True, [number]),
        Publish(1, 1, 1, "c", {"a": [number], "long": "x" * 300}),
        Publish(1, 1, 1, "c", [[], number] * 300),
        Call(1, 1, 1, ("a", "f"), ("x" * 300, number), {}),
        Write(1, 1, 1, (("put", ("a",), {"a": number, "long": "x" * 300}, None, False),), "", ""),
    ):
        with pytest.raises(InvalidValue, match="is not a finite number"):
            encode(message)


@settings(max_examples=100)
@given(VALUE)
def test_what_check_takes_can_be_sent_and_arrives(value: Any) -> None:
    check(value)
    assert same(decode(encode(Result(1, True, value))), Result(1, True, value))


def test_a_field_of_an_unknown_kind_is_found_at_import() -> None:
    class Odd(NamedTuple):
        names: set[str]

    with pytest.raises(TypeError, match=r"no check for a field of type set\[str\]"):
        reader(Odd)


def test_plain_messages_without_fields() -> None:
    assert encode(Bye()) == b"\x91\x02"
    assert decode(b"\x91\x02") == Bye()
    assert isinstance(decode(encode(sample(Chunk))), Chunk)
    assert isinstance(decode(encode(sample(Invoke))), Invoke)
    assert isinstance(decode(encode(sample(Subscribe))), Subscribe)
    assert decode(encode(Heartbeat(()))) == Heartbeat(())
    assert decode(encode(Message((), "c", "t", None))) == Message((), "c", "t", None)
    assert decode(encode(Dropped(0))) == Dropped(0)
    assert decode(encode(Hello(1, "", "", "", ""))) == Hello(1, "", "", "", "")


@pytest.mark.parametrize("value", [[[]] * 300, [{"a": 1}] * 300, {f"k{n}": [n] for n in range(300)}])
def test_what_is_usual_is_looked_through_once(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(codec, "check", never)
    monkeypatch.setattr(codec, "_check_depth", never)
    write = sample(Write)._replace(ops=(("put", ("a",), value, None, False),))
    assert same(decode(encode(write)).ops[0][2], value)
    call = sample(Call)._replace(args=(value,), kwargs={"k": value})
    assert same(decode(encode(call)).kwargs["k"], value)
