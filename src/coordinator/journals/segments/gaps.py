"""Read what can be read of one segment: runs of sound batches, and gaps between them.

A bad batch whose header can be read says where the next one starts. Where it can't, the
next one is looked for at each aligned place, as `reading` does; but what was in the bad
batch was chosen by whoever sent it, and may hold the image of a batch. So a run that is
found that way counts only if it is *anchored*: it leads to the end of its segment, and
there to the next one, which names its crc. One between two places whose headers can't
be read is given up.

The segment is held in memory meanwhile. Nothing is changed here.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import msgspec

from coordinator.batch import (
    ALIGNMENT,
    HEADER_SIZE,
    Batch,
    BatchError,
    NewerFormatError,
    decode_batch,
)
from coordinator.errors import DecodeError, JournalFormatError
from coordinator.journals.chain import Chain, Verdict
from coordinator.journals.segments.format import (
    SEGMENT_HEADER_SIZE,
    BatchClaim,
    batch_claims,
    is_zeros,
)
from coordinator.records import Record, decode_record

__all__ = ["Following", "Gap", "Link", "Run", "SegmentRemains", "follow"]

_SEARCH_FACTOR = 16
"""Sizes of a segment that are checksummed in search of runs, at most."""
_HELD_MAX = 100_000
"""Records of a gap that are looked at; beyond it, nobody is named."""
_RECORD_SIZE_MIN = 5

_FIELDS = struct.Struct("<QQIIII")
_LENGTH = struct.Struct("<I")


class Following(NamedTuple):
    """The segment behind the one that is read."""

    base: int
    crc: int | None
    """Of the batch before it; None if its header is not sound."""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Positions whose records can't be read."""

    path: str
    """The file that they were in, or would be."""
    offset: int
    """Bytes from its start."""
    size: int
    """Bytes; 0 if the file is not there."""
    first: int
    """Position of the first record that is lost."""
    end: int
    """Position behind the last one; at most, where it is not known."""
    problem: str
    held: tuple[tuple[int, Record], ...] = ()
    """What seems to have been there, by position. Bad bytes, good for a message only:
    the checksum that would say which of them are right is the one that failed."""

    @property
    def complete(self) -> bool:
        """Whether it can be said of each position what was there."""
        return len(self.held) == self.end - self.first

    @property
    def where(self) -> str:
        """The place, for messages."""
        if not self.size:
            return self.path
        return f"{self.path} at bytes {self.offset} to {self.offset + self.size - 1}"


class Link(NamedTuple):
    """A place between two batches."""

    epoch: int
    end: int
    """Position of the next record."""
    crc: int
    """Of the batch before it, which the one behind it names."""

    @classmethod
    def of(cls, chain: Chain) -> "Link":
        """Return where *chain* stands."""
        return cls(chain.epoch, chain.end, chain.crc)

    def chain(self) -> Chain:
        """Return a chain that stands there."""
        return Chain(epoch=self.epoch, end=self.end, crc=self.crc)


class Run(NamedTuple):
    """Sound batches without a gap between them."""

    start: int
    """Bytes from the start of the file."""
    stop: int
    before: Link
    behind: Link


class SegmentRemains:
    """Reads what can be read of one file."""

    def __init__(
        self, path: str, data: bytes, chain: Chain, following: Following | None
    ) -> None:
        self._path = path
        self._data = data
        self._following = following
        self._left = _SEARCH_FACTOR * len(data)
        self.chain = chain
        self.offset = min(SEGMENT_HEADER_SIZE, len(data))
        self.pieces: list[Run | Gap] = []

    @property
    def rest(self) -> int:
        """Bytes behind the last run, up to the last one that is not a zero."""
        return len(self._data[self.offset :].rstrip(b"\0"))

    def run(self) -> None:
        """Read to the end of the last run."""
        while True:
            self._read_run()
            batch = self._resume()
            if batch is None:
                return
            offset, found = batch
            self._lose(offset, found.first)
            self.chain = Chain(
                epoch=found.epoch, end=found.first, crc=found.previous_crc
            )
            self.offset = offset

    def lose_rest(self, end: int, problem: str) -> Gap:
        """Note that all positions up to *end* are lost."""
        gap = self._gap(len(self._data), end, problem)
        self.pieces.append(gap)
        self.chain.end = end
        return gap

    def _read_run(self) -> None:
        start, before = self.offset, Link.of(self.chain)
        for offset, _ in follow(self._data, start, self.chain, self._path):
            self.offset = offset
        if self.offset > start:
            self.pieces.append(Run(start, self.offset, before, Link.of(self.chain)))

    def _lose(self, offset: int, end: int) -> None:
        self.pieces.append(self._gap(offset, end, ""))

    def _gap(self, stop: int, end: int, problem: str) -> Gap:
        offset, data = self.offset, self._data
        if not problem:
            try:
                decode_batch(data, offset)
                problem = "the batch does not follow the one before it"
            except BatchError as error:
                problem = str(error)
        return Gap(
            path=self._path,
            offset=offset,
            size=stop - offset,
            first=self.chain.end,
            end=end,
            problem=problem,
            held=_held(data[offset:stop], self.chain.end, end),
        )

    def _resume(self) -> tuple[int, Batch] | None:
        """Return where the next run starts, and its first batch; None if none does."""
        data, offset, chain = self._data, self.offset, self.chain
        if is_zeros(data[offset:]):
            return None
        found = self._by_header(offset, chain)
        if found is not None:
            return found
        # Not at the place itself: there is no room for what would be lost before it.
        for claim in batch_claims(data[offset:]):
            place = offset + claim.offset
            batch = self._sound(place, claim, offset, chain)
            if batch is not None and self._anchored(place, batch):
                return place, batch
            if self._left < 0:
                break
        return None

    def _by_header(self, offset: int, chain: Chain) -> tuple[int, Batch] | None:
        """Return the batch behind the bad one at *offset*, if that says where it is."""
        claim = next(batch_claims(self._data[offset : offset + HEADER_SIZE]), None)
        if claim is None or claim.offset or claim.first != chain.end:
            return None
        place = offset + claim.size
        then = next(batch_claims(self._data[place : place + HEADER_SIZE]), None)
        if then is None or then.offset:
            return None
        batch = self._sound(place, then, offset, chain)
        return None if batch is None else (place, batch)

    def _sound(
        self, place: int, claim: BatchClaim, behind: int, chain: Chain
    ) -> Batch | None:
        ahead = claim.first - chain.end
        limit = (place - behind) // _RECORD_SIZE_MIN
        end = self._following.base if self._following is not None else None
        if (
            claim.epoch < chain.epoch
            or not 0 < ahead <= limit
            or (end is not None and claim.first >= end)
            or place + claim.size > len(self._data)
        ):
            return None
        self._left -= claim.size
        try:
            return decode_batch(self._data, place)
        except BatchError:
            return None

    def _anchored(self, place: int, batch: Batch) -> bool:
        """Tell whether the run that starts at *place* was written, and not sent."""
        data, following = self._data, self._following
        offset = place
        found: tuple[int, Batch] | None = (place, batch)
        while True:
            assert found is not None
            offset, first = found
            chain = Chain(epoch=first.epoch, end=first.first, crc=first.previous_crc)
            for stop, _ in follow(data, offset, chain, self._path):
                self._left -= stop - offset
                offset = stop
            if following is not None and chain.end == following.base:
                return following.crc in (None, chain.crc)
            if is_zeros(data[offset:]):
                return following is None
            found = self._by_header(offset, chain)
            if found is None:
                # The last one of all may have a torn tail behind it, and no more.
                return following is None and not self._more_behind(offset, chain)

    def _more_behind(self, offset: int, chain: Chain) -> bool:
        return any(
            self._sound(offset + claim.offset, claim, offset, chain) is not None
            for claim in batch_claims(self._data[offset:])
        )


def follow(
    data: bytes, offset: int, chain: Chain, path: str = ""
) -> Iterator[tuple[int, Batch]]:
    """Yield the batches from *offset* on that follow *chain*, and where each ends.

    Raises:
        JournalFormatError: One is intact, and of a newer format.
    """
    while True:
        try:
            batch = decode_batch(data, offset)
        except NewerFormatError as error:
            if _is_intact(data, offset):
                raise JournalFormatError(f"{path} at byte {offset}: {error}") from error
            return
        except BatchError:
            return
        verdict = chain.take(batch)
        if verdict is Verdict.UNCHAINED:
            return
        offset += len(batch.data)
        if verdict is Verdict.NEXT:
            yield offset, batch


def _is_intact(data: bytes, offset: int) -> bool:
    """Tell whether what is there has the crc that it says, whatever its format."""
    crc: int
    *_, length, _, crc = _FIELDS.unpack_from(data, offset + 8)
    stop = offset + HEADER_SIZE + length + -length % ALIGNMENT
    covered = zlib.crc32(data[offset : offset + HEADER_SIZE - 4])
    return stop <= len(data) and (
        zlib.crc32(data[offset + HEADER_SIZE : stop], covered) == crc
    )


def _held(data: bytes, first: int, end: int) -> tuple[tuple[int, Record], ...]:
    """Return what seems to be in the bad bytes *data*."""
    found: list[tuple[int, Record]] = []
    offset, position = 0, first
    while position < end and len(found) < _HELD_MAX:
        claim = next(batch_claims(data[offset : offset + HEADER_SIZE]), None)
        if claim is None or claim.offset or claim.first != position:
            break
        stop = min(offset + claim.size, len(data))
        at = offset + HEADER_SIZE
        while at + _LENGTH.size < stop and position < end:
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + length
            if not length or at > stop:
                break
            with suppress(DecodeError):
                found.append((position, decode_record(data[at - length : at])))
            position += 1
        offset = stop
    return tuple(found)
