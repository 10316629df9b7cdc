"""The checkpoint's bytes: of this version, of earlier ones, and of later ones."""

import msgspec
import pytest

from coordinator.checkpoint import (
    NO_CHECKPOINT,
    Checkpoint,
    Ended,
    decode_checkpoint,
    encode_checkpoint,
)
from coordinator.errors import DecodeError
from coordinator.model import EndStatus, Position

ENDED = Ended("Order", "a", Position(2), EndStatus.COMPENSATED, b"\xc0", 7)
CHECKPOINT = Checkpoint(Position(4), Position(5), [ENDED])
LEASED = Checkpoint(Position(4), Position(5), [ENDED], lease_ms=20_000)
PLAIN = [4, 5, [["Order", "a", 2, 1, b"\xc0", 7]]]


@pytest.mark.parametrize("checkpoint", [NO_CHECKPOINT, CHECKPOINT, LEASED])
def test_it_comes_back_as_it_was(checkpoint: Checkpoint) -> None:
    assert decode_checkpoint(encode_checkpoint(checkpoint)) == checkpoint


def test_without_a_lease_it_is_stored_as_it_was_before_there_were_any() -> None:
    assert encode_checkpoint(CHECKPOINT) == msgspec.msgpack.encode(PLAIN)


def test_a_lease_is_appended() -> None:
    assert msgspec.msgpack.decode(encode_checkpoint(LEASED)) == [*PLAIN, 20_000]


def test_one_of_an_earlier_version_knows_of_no_lease() -> None:
    assert decode_checkpoint(msgspec.msgpack.encode(PLAIN)).lease_ms == 0


def test_an_earlier_version_reads_one_with_a_lease() -> None:
    class Earlier(msgspec.Struct, frozen=True, array_like=True):
        low: int
        end: int
        ended: list[Ended]

    read = msgspec.msgpack.decode(encode_checkpoint(LEASED), type=Earlier)
    assert read == Earlier(4, 5, [ENDED])


def test_one_of_a_later_version_is_read() -> None:
    later = msgspec.msgpack.encode([*PLAIN, 20_000, "appended"])
    assert decode_checkpoint(later) == LEASED


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x90", b"\x93\x01\x02\x03", b"x"])
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not a checkpoint"):
        decode_checkpoint(data)
