"""Read a segment, and say what its end is.

    header | batch | batch | ... | batch | behind the last one lies

        nothing, or zeros (allocated ahead)     the end
        anything else, in the active segment    a torn tail, unless a valid batch lies
                                                somewhere behind it: then it is damage
        anything else, in a closed segment      damage; so are zeros there

A torn tail is a batch whose write was cut short by a crash. It was never acknowledged,
and it is the last one: the next is written only after it was flushed. So a bad batch
with a valid later one behind it *was* acknowledged, and then changed. A later one is
searched at each aligned offset behind the bad place, not where the bad header says it
ends: that length may be what was changed.

What a torn tail holds was chosen by whoever sent the record: it may be full of headers
that each claim the largest batch. So a header is looked at first, only what can follow
is read and checksummed, and of that no more than `SEARCH_FACTOR` times the file.

A batch that is intact but does not follow the one before it is damage wherever it is:
no crash makes one.
"""

from collections.abc import Iterator

import msgspec

from coordinator.batch import (
    ALIGNMENT,
    HEADER_SIZE,
    Batch,
    BatchError,
    IncompleteBatchError,
    NewerFormatError,
    decode_batch,
)
from coordinator.errors import JournalDamagedError, JournalFormatError
from coordinator.journals.chain import Chain, Verdict
from coordinator.journals.segments.files import File, Folder
from coordinator.journals.segments.format import (
    SEGMENT_HEADER_SIZE,
    BatchClaim,
    HeaderError,
    SegmentHeader,
    batch_claims,
    decode_segment_header,
    is_zeros,
)
from coordinator.rare import sometimes

__all__ = [
    "CHUNK_SIZE",
    "Identity",
    "SegmentReader",
    "check_follows",
    "path_in",
    "read_header",
    "read_live",
]

CHUNK_SIZE = 1024 * 1024
"""Bytes read at once: what a reader holds in memory, if no batch is larger."""
SEARCH_FACTOR = 4
"""Sizes of the file that are checksummed in search of a later batch, at most: a second
for a segment of 64 MiB. The batches that are there do not overlap, so they need one."""

_RECORD_SIZE_MIN = 5
"""Bytes of a record in a batch: its length, and at least one of its own."""

assert CHUNK_SIZE % ALIGNMENT == 0  # So that no magic lies across two chunks.


class Identity(msgspec.Struct, frozen=True):
    """Which partition of which journal a file has to belong to."""

    journal_id: bytes
    partition: int
    partitions: int


def path_in(folder: Folder, name: str) -> str:
    """Return the path of *name* in *folder*, for messages."""
    return f"{folder.path}/{name}"


def read_header(file: File, path: str, identity: Identity, base: int) -> SegmentHeader:
    """Read a segment's header and check that it is the one that belongs there.

    Args:
        file: The segment.
        path: Of it, for messages.
        identity: Of the partition it lies in.
        base: What its name says.

    Raises:
        JournalDamagedError: It is not.
        JournalFormatError: It is of a newer format.
    """
    try:
        header = decode_segment_header(file.read(0, SEGMENT_HEADER_SIZE))
    except HeaderError as error:
        raise JournalDamagedError(path, 0, str(error)) from error
    except JournalFormatError as error:
        raise JournalFormatError(f"{path}: {error}") from error
    for offset, what, found, wanted in (
        (8, "partition", header.partition, identity.partition),
        (12, "number of partitions", header.partitions, identity.partitions),
        (16, "journal id", header.journal_id.hex(), identity.journal_id.hex()),
        (32, "base position", header.base, base),
    ):
        if found != wanted:
            raise JournalDamagedError(
                path, offset, f"its {what} is {found}, it should be {wanted}"
            )
    return header


def check_follows(path: str, header: SegmentHeader, chain: Chain) -> None:
    """Check that a segment begins where *chain*, read from the one before it, ends.

    Raises:
        JournalDamagedError: It does not.
    """
    if header.base != chain.end:
        problem = "is missing" if header.base > chain.end else "is there twice"
        raise JournalDamagedError(
            path,
            32,
            f"it starts at position {header.base}, the segment before it ends at "
            f"{chain.end}: what is between {problem}",
        )
    if header.previous_crc != chain.crc or header.epoch != chain.epoch:
        raise JournalDamagedError(
            path,
            48,
            f"it follows a batch of epoch {header.epoch} with crc "
            f"{header.previous_crc:08x}, the segment before it ends with one of epoch "
            f"{chain.epoch} with crc {chain.crc:08x}",
        )


class SegmentReader:
    """Reads the batches of one segment, a chunk of the file at a time.

    Attributes:
        offset: Byte behind the last batch that was yielded.
        chain: What was read so far; stands before the first batch when it begins.
        problem: Why no batch starts at `offset`, once `batches` has come to its end;
            empty if the file ends there.
        torn: Bytes of the torn tail that `check_torn` found at `offset`, 0 if none: up
            to the last one that is not a zero.
    """

    def __init__(self, file: File, path: str, header: SegmentHeader) -> None:
        self._file = file
        self._path = path
        self.chain = Chain(epoch=header.epoch, end=header.base, crc=header.previous_crc)
        self.offset = SEGMENT_HEADER_SIZE
        self.problem = ""
        self.torn = 0

    def go_on(self, chain: Chain, offset: int) -> None:
        """Begin where another reader of the same segment stopped."""
        self.chain = chain
        self.offset = offset

    def batches(self) -> Iterator[Batch]:
        """Yield the valid batches up to the first place where none starts.

        May be called again later: goes on at `offset`, with what is there by then.

        Raises:
            JournalDamagedError: An intact batch does not follow the one before it.
            JournalFormatError: A batch is of a newer format.
        """
        data = b""
        at = 0
        """Where in *data* the next batch starts; `offset` of the file."""
        take = self.chain.take
        while True:
            try:
                batch = decode_batch(data, at)
            except IncompleteBatchError as error:
                # A batch may be larger than a chunk; its size is bounded, so is this.
                had = len(data) - at
                data = self._file.read(self.offset, max(CHUNK_SIZE, 2 * had))
                at = 0
                if len(data) <= had:
                    self.problem = str(error) if data else ""
                    return
            except NewerFormatError as error:
                raise JournalFormatError(
                    f"{self._path} at byte {self.offset}: {error}"
                ) from error
            except BatchError as error:
                self.problem = str(error)
                return
            else:
                verdict = take(batch)
                if verdict is Verdict.UNCHAINED:
                    sometimes("batch that does not follow")
                    raise JournalDamagedError(
                        self._path, self.offset, self._unchained(batch)
                    )
                size = len(batch.data)
                at += size
                self.offset += size
                if verdict is Verdict.NEXT:
                    yield batch

    def check_closed(self) -> None:
        """Check that the segment ends where its batches do.

        Raises:
            JournalDamagedError: It goes on.
        """
        if self.problem:
            sometimes("closed segment damaged")
            raise JournalDamagedError(self._path, self.offset, self.problem)

    def check_torn(self) -> None:
        """Set `torn`, of the *active* segment.

        Raises:
            JournalDamagedError: A later batch is there, so this one was acknowledged;
                or there is so much that looks like one that nobody can tell.
        """
        self.torn = 0
        file_size = self._file.size()
        left = SEARCH_FACTOR * file_size
        position = self.offset
        # With what a header that starts at the chunk's end has behind it.
        while data := self._file.read(position, CHUNK_SIZE + HEADER_SIZE - ALIGNMENT):
            if not is_zeros(data):
                self.torn = position + len(data.rstrip(b"\0")) - self.offset
                for claim in batch_claims(data):
                    offset = position + claim.offset
                    if not self._may_be_later(claim, offset, file_size):
                        continue
                    left -= claim.size
                    if left < 0:
                        raise self._too_much_like_batches()
                    self._check_not_later(offset, claim.size)
            position += CHUNK_SIZE

    def _may_be_later(self, claim: BatchClaim, offset: int, file_size: int) -> bool:
        """Tell whether a batch of ours can say that at *offset*, behind a bad one."""
        ahead = claim.first - self.chain.end
        return (
            claim.epoch >= self.chain.epoch
            and offset + claim.size <= file_size
            # What lies in between holds no more records than that.
            and 0 <= ahead <= (offset - self.offset) // _RECORD_SIZE_MIN
        )

    def _check_not_later(self, offset: int, size: int) -> None:
        try:
            decode_batch(self._file.read(offset, size))
        except BatchError:
            return
        sometimes("valid batch behind a bad one")
        raise JournalDamagedError(
            self._path,
            self.offset,
            f"{self.problem}; but a valid batch lies behind it at byte {offset}",
        )

    def _too_much_like_batches(self) -> JournalDamagedError:
        return JournalDamagedError(
            self._path,
            self.offset,
            f"{self.problem}; behind it lies so much that looks like batches that a "
            f"torn tail can't be told from damage; if the machine stopped while it was "
            f"written, cut the file there: what is behind was not acknowledged",
        )

    def _unchained(self, batch: Batch) -> str:
        return (
            f"the batch of epoch {batch.epoch} at position {batch.first} names "
            f"{batch.previous_crc:08x} as the crc before it; expected was position "
            f"{self.chain.end} behind {self.chain.crc:08x}"
        )


def read_live(reader: SegmentReader) -> Iterator[Batch]:
    """Yield the batches of an active segment; then `SegmentReader.torn` is known.

    Raises:
        JournalDamagedError: Stored bytes are not what was written.
    """
    while True:
        yield from reader.batches()
        offset = reader.offset
        try:
            reader.check_torn()
        except JournalDamagedError:
            # Or the batch was being written when we read it, and a later one has come
            # since. Then it is complete by now.
            yield from reader.batches()
            if reader.offset == offset:
                raise
        else:
            return
