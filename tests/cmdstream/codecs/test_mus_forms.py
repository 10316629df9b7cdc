"""The forms of MUS: against Go's bytes, at their bounds, and given the wrong value."""

import datetime as dt
import struct
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cmdstream.helpers import VECTORS

from cmdstream.codecs import mus_forms as forms
from cmdstream.codecs.mus_forms import Form
from cmdstream.codecs.mus_layout import Fields, Limits, Walk

ITEMS_MAX = 1000
NO_VALUE = (ArithmeticError, IndexError, TypeError, ValueError, struct.error)
LIMITS = Limits(body_size_max=100_000, items_max=ITEMS_MAX, depth_max=10)


def written(form: Form, value: object) -> bytes:
    out = bytearray()
    form.write(value, out)
    return bytes(out)


def time_of(text: str) -> dt.datetime:
    """Read an RFC 3339 time with nine decimals, three more than datetime has."""
    return dt.datetime.fromisoformat(text[:26] + "+00:00")


def same(value: Any) -> Any:
    return value


UINT64 = forms.int_form(64, "varint", signed=False)
POSITIVE = forms.int_form(64, "positive", signed=True)

# For each kind of the recordings: how its value is written there, and our form.
KINDS: dict[str, tuple[Callable[[Any], Any], Form]] = {
    "len / positive varint int": (same, POSITIVE),
    "DTM (positive varint int)": (same, POSITIVE),
    "seq (positive varint int64)": (same, POSITIVE),
    "varint int64 (zigzag)": (int, forms.INT),
    "varint uint64": (int, UINT64),
    "varint float64 (IEEE bits as uint64 varint)": (
        float, forms.float_form(64, "varint"),
    ),
    "raw int64 (little endian)": (int, forms.int_form(64, "raw", signed=True)),
    "raw int32": (int, forms.int_form(32, "raw", signed=True)),
    "raw float64": (float, forms.float_form(64, "raw")),
    "bool": (same, forms.BOOL),
    "string": (same, forms.STRING),
    "byte slice": (
        lambda text: bytes.fromhex(text.removeprefix("hex:")), forms.BYTES,
    ),
    "pointer to string": (
        lambda text: text and text.removeprefix("&"), forms.pointer(forms.STRING),
    ),
    "slice of varint int": (same, forms.items(forms.INT, ITEMS_MAX, None)),
    "map string->int": (same, forms.pairs(forms.STRING, forms.INT, ITEMS_MAX)),
    "raw TimeUnix (seconds)": (
        lambda text: time_of(text).replace(microsecond=0), forms.time_form("s"),
    ),
    "raw TimeUnixMilli": (
        lambda text: time_of(text).replace(microsecond=456_000), forms.time_form("ms"),
    ),
    "raw TimeUnixNano": (time_of, forms.time_form("ns")),
    "ServerInfo": (b64decode, forms.BYTES),
}  # fmt: skip

PRIMITIVES = [
    pytest.param(entry, id=f"{entry['kind']} {entry['value']}")
    for entry in VECTORS["primitives"]
]


def test_every_recorded_primitive_is_driven() -> None:
    assert len(PRIMITIVES) == 65
    assert {entry["kind"] for entry in VECTORS["primitives"]} == set(KINDS)


@pytest.mark.parametrize("entry", PRIMITIVES)
def test_we_write_what_go_writes(entry: dict[str, Any]) -> None:
    value_of, form = KINDS[entry["kind"]]
    data = written(form, value_of(entry["value"]))
    if entry["kind"] == "raw TimeUnixNano":
        # The recorded time has 12 ns more than a datetime can hold.
        data = (int.from_bytes(data, "little") + 12).to_bytes(8, "little")
    assert data.hex() == entry["hex"]


@pytest.mark.parametrize("entry", PRIMITIVES)
def test_we_read_what_go_writes_at_any_place(entry: dict[str, Any]) -> None:
    value_of, form = KINDS[entry["kind"]]
    data = bytes.fromhex(entry["hex"])
    expected = value_of(entry["value"])
    assert form.read(data, 0) == (expected, len(data))
    assert form.read(bytearray(b"\xff" + data + b"\xff"), 1) == (
        expected,
        len(data) + 1,
    )


@pytest.mark.parametrize("entry", PRIMITIVES)
def test_a_value_cut_short_is_no_value_and_the_walk_knows_how_short(
    entry: dict[str, Any],
) -> None:
    _, form = KINDS[entry["kind"]]
    data = bytes.fromhex(entry["hex"])
    for cut in range(len(data)):
        with pytest.raises(NO_VALUE):
            form.read(data[:cut], 0)
        assert Walk(form.layout, 0, LIMITS).run(data[:cut], 0) > cut
    assert Walk(form.layout, 0, LIMITS).run(data, 0) == len(data)


class Name(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "somebody"


class Blob(bytes):
    def __bytes__(self) -> bytes:
        return b"something"


SIGNED: dict[tuple[int, str], Form] = {
    (bits, encoding): forms.int_form(bits, encoding, signed=True)
    for bits in (8, 16, 32, 64)
    for encoding in ("varint", "positive", "raw")
}
UNSIGNED: dict[tuple[int, str], Form] = {
    (bits, encoding): forms.int_form(bits, encoding, signed=False)
    for bits in (8, 16, 32, 64)
    for encoding in ("varint", "raw")
}
SIGNED[64, "default"] = forms.INT


@pytest.mark.parametrize("said", SIGNED)
def test_a_signed_integer_has_its_bits_and_no_more(said: tuple[int, str]) -> None:
    form, high = SIGNED[said], 1 << said[0] - 1
    for value in (-high, -high + 1, -65, -64, -1, 0, 1, 63, 64, high - 2, high - 1):
        data = written(form, value)
        assert form.read(data, 0) == (value, len(data))
        assert Walk(form.layout, 0, LIMITS).run(data, 0) == len(data)
    for value in (-high - 1, high):
        with pytest.raises(ValueError, match=f"does not fit int{said[0]}"):
            written(form, value)


@pytest.mark.parametrize("said", UNSIGNED)
def test_an_unsigned_integer_has_its_bits_and_no_more(said: tuple[int, str]) -> None:
    form, high = UNSIGNED[said], (1 << said[0]) - 1
    for value in (0, 1, 127, 128, high - 1, high):
        data = written(form, value)
        assert form.read(data, 0) == (value, len(data))
        assert Walk(form.layout, 0, LIMITS).run(data, 0) == len(data)
    for value in (-1, high + 1):
        with pytest.raises(ValueError, match=f"does not fit uint{said[0]}"):
            written(form, value)


@pytest.mark.parametrize(
    ("form", "value", "data"),
    [
        # Go: varint.PositiveInt32 writes uint32(v), varint.Int16 a zigzag of 16 bits.
        (SIGNED[32, "positive"], -1, "ffffffff0f"),
        (SIGNED[16, "varint"], -(2**15), "ffff03"),
        (SIGNED[8, "raw"], -1, "ff"),
        (UNSIGNED[8, "raw"], 255, "ff"),
        (UNSIGNED[16, "raw"], 258, "0201"),
        (forms.float_form(32, "raw"), 1.5, "0000c03f"),
        (forms.float_form(32, "varint"), 1.5, "808080fe03"),
        (forms.time_form("us"), dt.datetime(1970, 1, 1, 0, 0, 1, 5, dt.UTC), 1_000_005),
        (forms.time_form("s"), dt.datetime(1, 1, 1, tzinfo=dt.UTC), -62135596800),
        (
            forms.time_form("s"),
            dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
            -1,
        ),
        (forms.items(forms.BOOL, 9, tuple), (True, False), "020100"),
        (forms.pointer(forms.pointer(forms.BOOL)), None, "01"),
    ],
)
def test_values_have_the_bytes_that_go_would_write(
    form: Form, value: object, data: str | int
) -> None:
    expected = (
        data.to_bytes(8, "little", signed=True)
        if isinstance(data, int)
        else bytes.fromhex(data)
    )
    assert written(form, value) == expected
    assert form.read(expected, 0) == (value, len(expected))


def test_what_a_unit_of_time_cannot_hold_is_cut_off() -> None:
    early = dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, dt.UTC)
    assert written(forms.time_form("s"), early) == (-1).to_bytes(
        8, "little", signed=True
    )
    late = dt.datetime(2026, 5, 3, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    form = forms.time_form("ns")
    assert form.read(written(form, late), 0)[0] == late
    assert forms.time_form("ns").read((1999).to_bytes(8, "little"), 0)[0] == (
        dt.datetime(1970, 1, 1, 0, 0, 0, 1, dt.UTC)
    )


def test_a_time_that_no_datetime_holds_is_no_value() -> None:
    with pytest.raises(OverflowError):
        forms.time_form("s").read((2**62).to_bytes(8, "little"), 0)
    with pytest.raises(ValueError, match="does not fit int64"):
        written(forms.time_form("ns"), dt.datetime(2300, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(ValueError, match="says no time zone"):
        written(forms.time_form("s"), dt.datetime(2026, 1, 1))  # noqa: DTZ001 -- the point


@pytest.mark.parametrize(
    ("scalar", "entry", "form", "value", "data"),
    [
        (str, Name, forms.STRING, Name("me"), b"\x02me"),
        (bytes, Blob, forms.BYTES, Blob(b"\x01"), b"\x01\x01"),
    ],
)
def test_a_class_made_from_a_scalar_is_written_as_that_whatever_it_says_itself(
    scalar: type, entry: type, form: Form, value: object, data: bytes
) -> None:
    bare = forms.made(form, scalar, entry)
    assert written(bare, value) == data
    read, end = bare.read(data, 0)
    assert (type(read), read, end) == (entry, value, len(data))


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (forms.BYTES, [1, 2]),
        (forms.BYTES, "ab"),
        (forms.STRING, b"ab"),
        (forms.STRING, "\ud800"),
        (forms.INT, 1.5),
        (forms.INT, "1"),
        (forms.float_form(64, "raw"), "1"),
        (forms.float_form(32, "raw"), 1e300),
        (forms.items(forms.INT, 9, None), 5),
        (forms.items(forms.BOOL, 2, None), [True] * 3),
        (forms.pairs(forms.INT, forms.INT, 2), {1: 1, 2: 2, 3: 3}),
    ],
)
def test_what_is_of_another_type_is_not_written(form: Form, value: object) -> None:
    with pytest.raises(NO_VALUE):
        written(form, value)


@pytest.mark.parametrize(
    ("form", "data"),
    [
        (forms.BOOL, b"\x02"),
        (forms.pointer(forms.BOOL), b"\x02\x00"),
        (forms.STRING, b"\x01\xff"),
        (forms.items(forms.BOOL, 2, None), b"\x03\x01\x01\x01"),
        (forms.pairs(forms.BOOL, forms.BOOL, 0), b"\x01\x01\x01"),
        (forms.checked(forms.INT, lambda value: 1 // value), b"\x00"),
    ],
)
def test_what_is_no_value_is_not_taken_for_one(form: Form, data: bytes) -> None:
    with pytest.raises(NO_VALUE):
        form.read(data, 0)


def test_of_equal_keys_the_last_one_wins() -> None:
    form = forms.pairs(forms.INT, forms.BOOL, 9)
    assert form.read(b"\x02\x02\x00\x02\x01", 0) == ({1: True}, 5)


def test_a_struct_is_its_fields_and_nothing_else() -> None:
    layout = Fields([forms.INT.layout, forms.STRING.layout])
    named = [
        (name, form.read, form.write)
        for name, form in (("real", forms.INT), ("name", forms.STRING))
    ]

    class Part:
        def __init__(self, real: int, name: str) -> None:
            self.real = real
            self.name = name

    form = forms.fields(layout, named, Part)
    assert written(form, Part(1, "a")) == b"\x02\x01a"
    value, end = form.read(b"\x02\x01a", 0)
    assert isinstance(value, Part)
    assert (value.real, value.name, end) == (1, "a", 3)


TEXTS = forms.items(forms.STRING, ITEMS_MAX, None)


@given(st.lists(st.text()))
def test_lists_of_texts_read_back(values: list[str]) -> None:
    data = written(TEXTS, values)
    assert TEXTS.read(data + b"rest", 0) == (values, len(data))
    assert Walk(TEXTS.layout, 0, LIMITS).run(data, 0) == len(data)
