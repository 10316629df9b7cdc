"""What an instance says of itself to the others: its notice.

Each notice takes the place of the one before. It goes over the connections between the
instances first, and onto the journal's notice board then: so of what the board has, at
most the last was not said over a connection that was up.

    [journal, partitions, name, count, address, takes, holds, claims, reads, version]

MessagePack, without field names; fields are only ever appended, with a default, and
those of a later version are skipped.
"""

import msgspec

from coordinator.errors import DecodeError

__all__ = ["NOTICE_SIZE_MAX", "Notice", "decode_notice", "encode_notice"]

NOTICE_SIZE_MAX = 64 * 1024
"""Bytes of a notice: one of an instance that holds all of 4,000 partitions fits."""
NAME_LENGTH_MAX = 200
"""Characters of a name or an address."""
NUMBER_MAX = 2**63 - 1


class Notice(msgspec.Struct, frozen=True, array_like=True):
    """One instance, as it last described itself."""

    journal: str
    """Id of the journal: notices of another one are foreign."""
    partitions: int
    """How many it has, as this instance knows it."""
    name: str
    """Of the instance; new with each start of a process."""
    count: int
    """Grows with each of its notices."""
    address: str = ""
    """Where the others reach it; empty if they can't."""
    takes: bool = True
    """Whether partitions may be given to it; not while it stops, or can't write."""
    holds: tuple[tuple[int, int], ...] = ()
    """The partitions it has, and the epoch of each."""
    claims: tuple[int, ...] = ()
    """The partitions that it is claiming."""
    reads: int = 1
    """The newest records that it can read: nothing newer is written beside it."""
    version: str = ""
    """Of the program, for people."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Notice)


def encode_notice(notice: Notice) -> bytes:
    """Encode *notice*."""
    data = _ENCODER.encode(notice)
    assert len(data) <= NOTICE_SIZE_MAX, len(data)
    return data


def decode_notice(data: bytes, *, journal: str, partitions: int) -> Notice:
    """Decode what somebody put on the board of *journal*, or sent.

    Raises:
        DecodeError: It is no notice, or not of this journal; nobody is to obey it.
    """
    if len(data) > NOTICE_SIZE_MAX:
        raise DecodeError(
            f"not a notice of an instance: {len(data)} bytes, at most {NOTICE_SIZE_MAX}"
        )
    try:
        notice = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a notice of an instance: {error}") from error
    if notice.journal != journal:
        raise DecodeError(
            f"a notice of {notice.name[:NAME_LENGTH_MAX]!r}, whose journal is "
            f"{notice.journal[:NAME_LENGTH_MAX]!r}; this one is {journal!r}: give each "
            f"journal a place of its own"
        )
    if notice.partitions != partitions:
        raise DecodeError(
            f"a notice of {notice.name[:NAME_LENGTH_MAX]!r}, which sees "
            f"{notice.partitions} partitions and not {partitions}; their number is "
            f"fixed when a journal is made: start it with the same journal URL"
        )
    if problem := _problem(notice):
        raise DecodeError(f"not a notice of an instance: {problem}")
    return notice


def _problem(notice: Notice) -> str:
    """Say what can't be; empty if nothing."""
    if not 0 < len(notice.name) <= NAME_LENGTH_MAX:
        return f"a name of {len(notice.name)} characters"
    if len(notice.address) > NAME_LENGTH_MAX:
        return f"an address of {len(notice.address)} characters"
    epochs = [epoch for _, epoch in notice.holds]
    numbers = [partition for partition, _ in notice.holds]
    for what, found, end in (
        ("count", [notice.count], NUMBER_MAX),
        ("epoch", epochs, NUMBER_MAX),
        ("partition", [*numbers, *notice.claims], notice.partitions),
    ):
        if found and not 0 <= min(found) <= max(found) < end:
            return f"{what} {min(found)} to {max(found)}"
    return ""
