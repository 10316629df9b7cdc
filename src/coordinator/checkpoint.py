"""What a partition's checkpoint holds, so that recovery need not read everything.

A MessagePack array; ``docs/journal-format.md`` describes it with what stands around it.
"""

import msgspec

from coordinator.errors import DecodeError
from coordinator.model import EndStatus, Position

__all__ = [
    "NO_CHECKPOINT",
    "Checkpoint",
    "Ended",
    "decode_checkpoint",
    "encode_checkpoint",
]


class Ended(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A keyed workflow that ended: kept so that asking again gets the same answer."""

    type: str
    key: str
    position: Position
    status: EndStatus
    value: bytes
    """As in `Finished`."""
    at: int

    @property
    def size(self) -> int:
        """Bytes of what cannot be known beforehand."""
        return len(self.key) + len(self.value)


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """What `Partition.save_checkpoint` stores; fields are only ever appended."""

    low: Position
    """Where to read from."""
    end: Position
    """Every record before it is known to `ended`, and to `lease_ms`."""
    ended: list[Ended]
    """The keyed workflows that had ended and were remembered, oldest first."""
    lease_ms: int = 0
    """As `PartitionState.lease_ms`: the claims that it is from may lie before `low`."""


NO_CHECKPOINT = Checkpoint(Position(0), Position(0), [])
"""That of a journal which has none yet: everything is read."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Checkpoint)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Encode *checkpoint*; without a lease as it was before there were any."""
    fields = (checkpoint.low, checkpoint.end, checkpoint.ended, checkpoint.lease_ms)
    return _ENCODER.encode(fields if checkpoint.lease_ms else fields[:-1])


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Decode a stored checkpoint.

    Raises:
        DecodeError: It is not a checkpoint of a format we read.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a checkpoint: {error}") from error
