"""The Protobuf codec: messages, rules, and bytes that are none."""

import importlib
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cmdstream.messages import Cmd1, Cmd2, Everything, Part, Required, Result1

import cmdstream.codecs.protobuf
from cmdstream import (
    DecodeError,
    EncodeError,
    Registry,
    RegistryError,
    RemoteProtocolError,
    ResultType,
)
from cmdstream.codec import Decoded
from cmdstream.codecs.protobuf import ProtobufCodec
from cmdstream.wire import write_size

CODEC = ProtobufCodec(
    Registry([Cmd1, Cmd2, Everything, Required], [ResultType(Part, "last"), Result1])
)


def read(data: bytes) -> Any:
    found = CODEC.decode_command(data, 0)
    assert isinstance(found, Decoded)
    assert found.end == len(data)
    return found.value


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (Cmd1(X=150), "0003089601"),
        (Cmd2(Y="hello"), "01070a0568656c6c6f"),
        (Cmd1(), "0000"),
        (Cmd1(X=-1), "000b08ffffffffffffffffff01"),
        (Required(must=1), "03020801"),
    ],
)
def test_messages_have_the_bytes_that_go_writes(message: Any, data: str) -> None:
    assert CODEC.encode_command(message).hex() == data
    assert read(bytes.fromhex(data)) == message
    assert type(read(bytes.fromhex(data))) is type(message)


def test_equal_messages_have_equal_bytes() -> None:
    one, other = Everything(), Everything()
    names = [f"name{number}" for number in range(20)]
    for number, name in enumerate(names):
        one.counts[name] = number
    for number, name in reversed(list(enumerate(names))):
        other.counts[name] = number
    assert CODEC.encode_command(one) == CODEC.encode_command(other)


def test_fields_that_we_do_not_know_are_kept() -> None:
    data = b"\x00\x05\x08\x01\x92\x06\x00"
    assert read(data).X == 1
    assert CODEC.encode_command(read(data)) == data


def has_a_value(part: Any) -> bool:
    return part.value > 0  # type: ignore[no-any-return]  # messages have no types here


@pytest.mark.parametrize(
    ("rule", "last"),
    [
        (True, [True, True]),
        (False, [False, False]),
        ("last", [False, True]),
        (has_a_value, [True, False]),
    ],
)
def test_the_last_result_is_known_by_any_rule(rule: Any, last: list[bool]) -> None:
    codec = ProtobufCodec(Registry([], [ResultType(Part, rule)]))
    results = [Part(value=1, last=False), Part(value=0, last=True)]
    assert [codec.is_last(result) for result in results] == last
    with pytest.raises(EncodeError, match="Cmd1 is not a registered result: Part"):
        codec.is_last(Cmd1())


def test_a_rule_about_a_field_that_a_message_has_not_is_refused() -> None:
    with pytest.raises(RegistryError, match="Part has no 'final' to tell the last by"):
        Registry([], [ResultType(Part, "final")])


def test_what_is_no_message_class_is_refused_at_start_up() -> None:
    with pytest.raises(RegistryError, match="int is no Protobuf message class"):
        ProtobufCodec(Registry([int], []))


def test_a_message_that_lacks_what_is_required_is_not_sent() -> None:
    with pytest.raises(EncodeError, match="Required cannot be written"):
        CODEC.encode_command(Required())


@pytest.mark.parametrize(
    "body",
    [
        b"\x08",  # a field and no value
        b"\x0a\x05hi",  # a length beyond the message
        b"\x08" + b"\x80" * 11,  # a varint without an end
        b"\x0c",  # the end of a group that never began
        b"\x07\x01",  # a wire type that there is not
    ],
)
def test_what_is_no_message_is_the_peers_fault(body: bytes) -> None:
    with pytest.raises(DecodeError, match="command Cmd1: "):
        CODEC.decode_command(b"\x00" + write_size(len(body)) + body, 0)


def test_a_string_that_is_no_utf8_is_the_peers_fault() -> None:
    with pytest.raises(DecodeError, match="command Cmd2: "):
        CODEC.decode_command(b"\x01\x03\x0a\x01\xff", 0)


def test_messages_in_one_another_have_an_end() -> None:
    body = b""
    for _ in range(1000):
        body = b"\x3a" + write_size(len(body)) + body
    with pytest.raises(DecodeError, match="command Everything: "):
        CODEC.decode_command(b"\x02" + write_size(len(body)) + body, 0)


def test_a_message_over_the_limit_is_refused_both_ways() -> None:
    codec = ProtobufCodec(Registry([Cmd2], []), body_size_max=10)
    assert codec.encode_command(Cmd2(Y="x" * 8))
    with pytest.raises(EncodeError, match="takes 11 bytes, the limit is 10"):
        codec.encode_command(Cmd2(Y="x" * 9))
    with pytest.raises(RemoteProtocolError, match="announces 11 bytes"):
        codec.decode_command(b"\x00\x0b", 0)


everything = st.builds(
    Everything,
    flag=st.booleans(),
    number=st.integers(-(2**63), 2**63 - 1),
    ratio=st.floats(allow_nan=False),
    text=st.text(),
    data=st.binary(),
    many=st.lists(st.integers(-(2**31), 2**31 - 1)),
    inner=st.none() | st.builds(Everything, text=st.text()),
    counts=st.dictionaries(st.text(), st.integers(0, 9)),
)


@given(everything)
def test_whatever_is_written_reads_back_and_asks_for_more_until_then(
    message: Any,
) -> None:
    data = CODEC.encode_command(message)
    assert read(data) == message
    for cut in range(len(data)):
        needed = CODEC.decode_command(data[:cut], 0)
        assert isinstance(needed, int)
        assert cut < needed <= len(data)


@given(everything, st.data())
def test_damage_is_a_message_or_the_peers_fault(
    message: Any, data: st.DataObject
) -> None:
    frame = bytearray(CODEC.encode_command(message))
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8
    with suppress(RemoteProtocolError):
        CODEC.decode_command(frame, 0)


@given(st.binary(max_size=60))
def test_any_body_is_a_message_or_the_peers_fault(body: bytes) -> None:
    for tag in range(4):
        with suppress(DecodeError):
            read(bytes((tag, len(body))) + body)


def test_without_protobuf_the_import_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "google.protobuf.message", None)
    monkeypatch.delitem(sys.modules, "cmdstream.codecs.protobuf")
    with pytest.raises(ImportError, match=r"pip install 'coordinator\[protobuf\]'"):
        importlib.import_module("cmdstream.codecs.protobuf")
    assert cmdstream.codecs.protobuf.ProtobufCodec is ProtobufCodec
