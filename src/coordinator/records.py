"""What the journal holds, record by record.

A record is a MessagePack array whose first element is the record's number. Types are
named, not numbered, where users define them; fields are only ever appended, with a
default, so that every later version reads every earlier record. ``workflow`` is the
position of the workflow's `Accepted` record in the same partition; times are integer
microseconds since 1970, UTC.

    0 Claimed    an owner took the partition over
    1 Accepted   a command came in; the record's position is the workflow's id
    2 Outcome    a step (or its undo) was done or refused
    3 Aborting   it was decided to undo; nothing was in flight when it was
    4 Finished   the workflow ended
    5 Stuck      the workflow waits for a person
    6 Resumed    a person said: try again
    7 Cancelled  a person said: undo it
    8 Carried    a workflow's whole state again, so that old segments may go
    9 Started    steps that may be in flight at the same time
    10 Lost      a record stood here that can't be read any more
    11 Held      the owner still is the owner, and had nothing else to write
    12 Released  the owner gave the partition up: nobody acts on it until it is claimed

What may follow what is `state.apply`'s business.
"""

from typing import Any, TypeAlias

import msgspec

from coordinator.errors import DecodeError, EncodeError
from coordinator.model import Direction, EndStatus, OutcomeStatus

__all__ = [
    "RECORD_SIZE_MAX",
    "Aborting",
    "Accepted",
    "Cancelled",
    "Carried",
    "Claimed",
    "Finished",
    "Held",
    "Lost",
    "Outcome",
    "PartitionRecord",
    "Record",
    "Released",
    "Resumed",
    "Started",
    "Stuck",
    "WorkflowRecord",
    "decode_record",
    "encode_record",
]

RECORD_SIZE_MAX = 20 * 1024 * 1024
"""Bytes of one encoded record: a 16 MiB body and room for what stands around it."""


class _Numbered(
    msgspec.Struct, frozen=True, array_like=True, gc=False, tag_field="number"
):
    """What all records have in common.

    In an array the number has no field name, but msgspec checks that the one it would
    have is free; its default, ``type``, is a field of `Accepted`.
    """


class Claimed(_Numbered, frozen=True, tag=0):
    """An owner took the partition over; older epochs' batches behind it are void."""

    epoch: int
    owner: str
    """For people: host, process id, version."""
    at: int
    lease_ms: int = 0
    """How long the owner may act from the beginning of its last acknowledged write on,
    in milliseconds of its own clock. 0: a lock keeps others out as long as it lives."""


class Accepted(_Numbered, frozen=True, tag=1):
    """A command is durable and will run; its workflow's id is this position."""

    type: str
    """Name of the command class."""
    codec: str
    """How `payload` is encoded: ``msgpack``, or the intake's codec, e.g. ``json``."""
    payload: bytes
    """The command, exactly as received."""
    at: int
    key: str = ""
    """The command's own key; empty if it has none."""
    trace: str = ""
    """W3C ``traceparent`` of the caller; empty if it sent none."""


class Outcome(_Numbered, frozen=True, tag=2):
    """A service did, or refused, a step or the undo of one."""

    workflow: int
    step: str
    """Name of the step, ``service.operation`` or ``service.operation[key]``."""
    occurrence: int
    value: bytes
    """MessagePack: the returned value, or a `saga.Refusal`."""
    at: int
    direction: Direction = Direction.DO
    status: OutcomeStatus = OutcomeStatus.DONE
    service: str = ""
    """Empty where it is the part of `step` before its last dot, which it mostly is."""


class Aborting(_Numbered, frozen=True, tag=3):
    """From here on the workflow is undone. No later event changes that."""

    workflow: int
    reason: str
    """For people."""
    at: int
    refusal: bytes = b""
    """MessagePack of the `saga.Refusal` that the client gets; empty if an operator
    cancelled."""


class Finished(_Numbered, frozen=True, tag=4):
    """The workflow ended."""

    workflow: int
    status: EndStatus
    value: bytes
    """Completed: MessagePack of the result. Compensated: of the `saga.Refusal`.
    Cancelled: of the reason, a string."""
    at: int
    ignored: tuple[str, ...] = ()
    """Steps with a recorded outcome that the run which ended never asked for: the code
    was changed in between. Their effects stand in the world."""


class Stuck(_Numbered, frozen=True, tag=5):
    """The workflow can't go on by itself."""

    workflow: int
    reason: str
    at: int


class Resumed(_Numbered, frozen=True, tag=6):
    """A person told a stuck workflow to try again."""

    workflow: int
    by: str
    at: int


class Cancelled(_Numbered, frozen=True, tag=7):
    """A person told the workflow to stop and undo."""

    workflow: int
    by: str
    reason: str
    at: int


class Started(_Numbered, frozen=True, tag=9):
    """Calls that may be in flight at once; durable before the last of them is made.

    Written only where `exec` makes calls at the same time. A run after a crash then
    knows of which steps it must learn before it may turn back.
    """

    workflow: int
    steps: tuple[tuple[str, int], ...]
    """Name and occurrence of each."""
    at: int


class Carried(_Numbered, frozen=True, tag=8):
    """A workflow's state as of this record; replaces all its earlier records."""

    workflow: int
    at: int
    accepted: Accepted
    outcomes: tuple[Outcome, ...] = ()
    cancelled: Cancelled | None = None
    aborting: Aborting | None = None
    stuck: Stuck | None = None
    started: tuple[tuple[tuple[str, int], ...], ...] = ()
    """The steps of each `Started`."""


class Lost(_Numbered, frozen=True, tag=10):
    """A record stood at this position that can't be read any more.

    Written by ``coordinator journal repair`` only, so that what lies behind keeps its
    position, and no position (nor idempotency key) is given out twice.
    """

    at: int = 0
    """When it was repaired; 0 in all but the first record of a batch of these."""
    why: str = ""
    """Where the damage was, for people; of the first record of a batch, too."""
    seal: bytes = b""
    """Four bytes that give its batch the crc that the next one names."""


class Held(_Numbered, frozen=True, tag=11):
    """The owner, with nothing else to write, found out that it still is the owner.

    As each of its records does, this prolongs its lease.
    """

    at: int


class Released(_Numbered, frozen=True, tag=12):
    """Nobody acts on the partition any more, neither its owner nor any before it."""

    at: int


PartitionRecord: TypeAlias = Claimed | Held | Released | Lost
"""Records that are about no workflow."""

WorkflowRecord: TypeAlias = (
    Outcome | Aborting | Finished | Stuck | Resumed | Cancelled | Carried | Started
)
"""Records about one workflow, which they name; `Accepted` names it by its position."""

Record: TypeAlias = Accepted | PartitionRecord | WorkflowRecord

_CLAIMED = Claimed.__struct_config__.tag
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """Encode *record*, without the length that the batch puts before it.

    Raises:
        EncodeError: It is larger than `RECORD_SIZE_MAX`, or a text in it is not one.
            What is in it comes from users and their clients, so this is no bug of ours.
    """
    stored: Any = record
    if type(record) is Claimed and not record.lease_ms:
        # An array would hold its default, too; so it is what it was before leases.
        stored = (_CLAIMED, record.epoch, record.owner, record.at)
    try:
        data = _ENCODER.encode(stored)
    except UnicodeEncodeError as error:
        raise EncodeError(f"a record can't be stored: {error}") from error
    if len(data) > RECORD_SIZE_MAX:
        raise EncodeError(
            f"a record of {len(data)} bytes can't be stored, the limit is "
            f"{RECORD_SIZE_MAX}; keep what is large elsewhere, and its place here"
        )
    return data


def decode_record(data: bytes | memoryview) -> Record:
    """Decode one record.

    Raises:
        DecodeError: It is no record of this format. The batch's CRC has been checked
            before, so either another version wrote it or the writer had a bug.
    """
    try:
        record: Record = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a journal record: {error}") from error
    return record
