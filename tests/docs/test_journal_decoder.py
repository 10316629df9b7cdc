"""A reader written from `docs/journal-format.md` alone, over real files.

Nothing of the package takes part in decoding. What is decoded is compared with what
the package says; the names of fields come from the page's table.
"""

import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
from tests.golden.make import FOLDER

from coordinator.checkpoint import decode_checkpoint
from coordinator.journals.segments.inspect import dump
from coordinator.journals.segments.posix import PosixFolder
from coordinator.model import Position
from coordinator.records import Record
from coordinator.state import PartitionState

PAGE = Path(__file__).parents[2] / "docs" / "journal-format.md"
ROW = re.compile(r"^\| ([0-9]+) \| ([A-Z][a-z]+) \| (.+) \|$", re.MULTILINE)


def fields_by_number() -> dict[int, tuple[str, list[str]]]:
    rows = ROW.findall(PAGE.read_text())
    return {
        int(number): (name, [field.split(" = ")[0] for field in fields.split(", ")])
        for number, name, fields in rows
    }


def segments_of(path: Path) -> Iterator[tuple[int, int, list[Any]]]:
    """Yield position, epoch and array of each record, and check all that is said."""
    described = json.loads((path / "journal.json").read_text())
    assert described["format"] == 1
    position, epoch, crc = 0, 0, 0
    names = sorted(p for p in (path / "p0").iterdir() if p.suffix == ".seg")
    for name in names:
        data = name.read_bytes()
        assert data[:8] == b"CSEG\1\1\0\0"
        assert struct.unpack_from("<II", data, 8) == (0, described["partitions"])
        assert data[16:32].hex() == described["id"]
        base, _, *before, header_crc = struct.unpack_from("<QQQII", data, 32)
        assert zlib.crc32(data[:60]) == header_crc
        assert (base, *before) == (position, epoch, crc)
        assert name.name == f"{base:020}.seg"
        at = 64
        while data[at : at + 4] == b"CBAT":
            assert data[at + 4 : at + 8] == b"\1\0\1\0"
            epoch, first, count, length, previous, own = struct.unpack_from(
                "<QQIIII", data, at + 8
            )
            end = at + 40 + length + -length % 8
            assert (first, previous) == (position, crc)
            assert (
                zlib.crc32(data[at + 40 : end], zlib.crc32(data[at : at + 36])) == own
            )
            record = at + 40
            for _ in range(count):
                (size,) = struct.unpack_from("<I", data, record)
                record += 4 + size
                yield (
                    position,
                    epoch,
                    msgspec.msgpack.decode(data[record - size : record]),
                )
                position += 1
            assert record == at + 40 + length
            crc, at = own, end
        assert not any(data[at:])
        assert at == len(data) or name == names[-1]


def test_a_journal_can_be_read_by_the_page_alone() -> None:
    rows = fields_by_number()
    theirs = list(dump(PosixFolder(str(FOLDER))))
    ours = list(segments_of(FOLDER))
    assert [p[:2] for p in ours] == [(t.position, t.epoch) for t in theirs]
    for (_, _, array), entry in zip(ours, theirs, strict=True):
        number, *values = array
        name, fields = rows[number]
        assert name == type(entry.record).__name__
        for field, value in zip(fields, values, strict=False):
            assert_same(getattr(entry.record, field), value)


def assert_same(ours: object, read: object) -> None:
    match ours:
        case msgspec.Struct():
            assert read == msgspec.msgpack.decode(msgspec.msgpack.encode(ours))
        case tuple():
            assert read == msgspec.msgpack.decode(msgspec.msgpack.encode(ours))
        case _:
            assert read == ours


def test_the_page_names_every_field_of_every_record() -> None:
    kinds: tuple[type[msgspec.Struct], ...] = get_args(Record)
    assert fields_by_number() == {
        kind.__struct_config__.tag: (kind.__name__, [*kind.__struct_fields__])
        for kind in kinds
    }


def test_a_checkpoint_can_be_read_by_the_page_alone() -> None:
    data = (FOLDER / "p0" / "checkpoint").read_bytes()
    assert data[:8] == b"CCKP\1\1\0\0"
    *_, size, crc = struct.unpack_from("<QQQ4xI", data, 32)
    assert size == len(data) - 64
    assert zlib.crc32(data[:60] + data[64:]) == crc
    _, content = PartitionState(0, low=7).encode_checkpoint(Position(7))
    assert msgspec.msgpack.decode(content) == [7, 7, []]
    assert decode_checkpoint(content).low == 7
    _, content = PartitionState(0, lease_ms=20_000).encode_checkpoint(Position(7))
    assert msgspec.msgpack.decode(content) == [7, 7, [], 20_000]
    assert decode_checkpoint(content).lease_ms == 20_000
