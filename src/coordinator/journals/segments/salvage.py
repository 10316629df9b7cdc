"""Find all that can still be read of a damaged partition, and where the gaps are.

    what is there     by the segments' own headers, not by their names: a file that was
                      renamed, doubled or comes from elsewhere is told from one that is
                      missing
    run               batches that follow one another, each sound
    gap               positions between two runs. How many it has is known, for the run
                      behind it says where it starts

Positions behind the last run may have been given out too. Where the checkpoint knows of
them, or the header of the last segment is gone, `SKIPPED` more are left out: they are
part of idempotency keys, which no second workflow may get.

Nothing is changed here.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from coordinator.batch import Batch, BatchError, decode_batch
from coordinator.errors import JournalDamagedError, JournalFormatError
from coordinator.journals.chain import Chain
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.format import (
    SEGMENT_HEADER_SIZE,
    CheckpointHeader,
    HeaderError,
    SegmentHeader,
    decode_segment_header,
    parse_segment_name,
    segment_name,
)
from coordinator.journals.segments.gaps import (
    Following,
    Gap,
    Link,
    Run,
    SegmentRemains,
    follow,
)
from coordinator.journals.segments.reading import Identity, path_in
from coordinator.journals.segments.recovery import read_checkpoint

__all__ = ["SKIPPED", "Part", "Salvaged", "batches_in", "salvage"]

SKIPPED = 1 << 22
"""Positions left out behind an end that is not known: more than there is room for, at
16 bytes each, in the 64 MiB that may be written between two checkpoints."""
_UNKNOWN_END = 1 << 40
"""Where a partition goes on of which nothing is left."""


class Part(NamedTuple):
    """A segment as it ought to be, and what there is of it."""

    base: int
    name: str
    """Of the file it is read from; empty if there is none."""
    header: SegmentHeader | None
    """None if it is not sound."""
    pieces: tuple[Run | Gap, ...]
    intact: bool
    """Whether the file may stay as it is: closed, in its place, and sound."""


class Salvaged(NamedTuple):
    """What is left of a partition."""

    parts: tuple[Part, ...]
    """Gapless, by their bases."""
    chain: Chain
    """Where all of it ends: the next position, and the last epoch that was seen."""
    before: Gap | None
    """Needed positions that lie before the first part."""
    tail: Gap | None
    """Positions behind the last run; also the last piece of the last part, if any."""
    torn: int
    """Bytes behind the last run that were being written: nothing acknowledged."""
    unused: tuple[tuple[str, str], ...]
    """Files that are no part of it: path, and why."""
    checkpoint: tuple[CheckpointHeader, bytes] | None
    """Header and data; None if there is none, or it is not sound."""
    checkpoint_problem: str

    @property
    def gaps(self) -> list[Gap]:
        """All of them, in order."""
        found = [] if self.before is None else [self.before]
        for part in self.parts:
            found += [piece for piece in part.pieces if isinstance(piece, Gap)]
        return found

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not (self.gaps or self.unused or self.checkpoint_problem) and all(
            part.header is not None and part.name == segment_name(part.base)
            for part in self.parts
        )


class _Source(NamedTuple):
    """A segment's file."""

    name: str
    base: int
    """What its header says, or else its name."""
    header: SegmentHeader | None
    problem: str


def salvage(folder: Folder, identity: Identity) -> Salvaged:
    """Find what can be read of the partition in *folder*; change nothing.

    Raises:
        JournalFormatError: Something is of a newer format.
        OSError: A file can't be read.
    """
    checkpoint, problem = _checkpoint(folder, identity)
    end = 0 if checkpoint is None else checkpoint[0].end
    sources, unused = _sources(folder, identity)
    partition = _Partition(folder, sources, unused, end)
    partition.run()
    before = None
    base = partition.parts[0].base if partition.parts else partition.chain.end
    low = 0 if checkpoint is None else checkpoint[0].low
    if base > low and (checkpoint is not None or not partition.parts):
        before = Gap(
            path=path_in(folder, segment_name(low)),
            offset=0,
            size=0,
            first=low,
            end=base,
            problem="it is missing",
        )
    return Salvaged(
        parts=tuple(partition.parts),
        chain=partition.chain,
        before=before,
        tail=partition.tail,
        torn=partition.torn,
        unused=tuple(unused),
        checkpoint=checkpoint,
        checkpoint_problem=problem,
    )


def batches_in(folder: Folder, part: Part, run: Run) -> Iterator[Batch]:
    """Yield the batches of *run* again.

    Raises:
        JournalDamagedError: They are not there any more.
    """
    data = _read(folder, part.name, run.start, run.stop - run.start)
    chain = run.before.chain()
    for _, batch in follow(data, 0, chain):
        yield batch
    if chain.end != run.behind.end:
        path = path_in(folder, part.name)
        raise JournalDamagedError(path, run.start, "it changed while it was read")


def _checkpoint(
    folder: Folder, identity: Identity
) -> tuple[tuple[CheckpointHeader, bytes] | None, str]:
    try:
        return read_checkpoint(folder, identity), ""
    except JournalDamagedError as error:
        return None, error.problem


def _read(folder: Folder, name: str, offset: int = 0, size: int | None = None) -> bytes:
    file = folder.open(name)
    try:
        return file.read(offset, file.size() if size is None else size)
    finally:
        file.close()


def _sources(
    folder: Folder, identity: Identity
) -> tuple[list[_Source], list[tuple[str, str]]]:
    """Return the segments' files by their bases, and those that are not ours."""
    found: dict[int, _Source] = {}
    unused: list[tuple[str, str]] = []
    for name in folder.names():
        base = parse_segment_name(name)
        if base is None:
            continue
        path = path_in(folder, name)
        source, why = _source(folder, identity, name, base)
        if why:
            unused.append((path, why))
            continue
        other = found.get(source.base)
        if other is not None:
            # The one whose header is sound, or else the one in its place.
            if (other.header is None) > (source.header is None) or (
                source.name == segment_name(source.base)
                and (other.header is None) == (source.header is None)
            ):
                source, other = other, source
                found[other.base] = other
            why = f"{other.name} is the same segment"
            unused.append((path_in(folder, source.name), why))
            continue
        found[source.base] = source
    return [found[base] for base in sorted(found)], unused


def _source(
    folder: Folder, identity: Identity, name: str, base: int
) -> tuple[_Source, str]:
    try:
        header = decode_segment_header(_read(folder, name, 0, SEGMENT_HEADER_SIZE))
    except HeaderError as error:
        return _Source(name, base, None, str(error)), ""
    except JournalFormatError as error:
        raise JournalFormatError(f"{path_in(folder, name)}: {error}") from error
    why = ""
    if header.journal_id != identity.journal_id:
        why = f"it belongs to journal {header.journal_id.hex()}"
    elif header.partition != identity.partition:
        why = f"it belongs to partition {header.partition}"
    return _Source(name, header.base, header, ""), why


class _Partition:
    """Puts the segments in a row."""

    def __init__(
        self,
        folder: Folder,
        sources: Sequence[_Source],
        unused: list[tuple[str, str]],
        expected: int,
    ) -> None:
        self._folder = folder
        self._sources = sources
        self._unused = unused
        self._expected = expected
        """Records before it were durable when the checkpoint was saved."""
        self.parts: list[Part] = []
        self.chain = Chain()
        self.tail: Gap | None = None
        self.torn = 0

    def run(self) -> None:
        """Fill `parts`, `chain`, `tail` and `torn`."""
        sources = list(self._sources)
        while sources:
            source = sources.pop(0)
            if self.parts and not self._mayfollow(source):
                continue
            self._take(source, sources[0] if sources else None)
        if not self.parts:
            end = self._expected + SKIPPED if self._expected else _UNKNOWN_END
            self.chain.end = end

    def _mayfollow(self, source: _Source) -> bool:
        """Tell whether *source* goes on where we are, after a gap if need be."""
        chain, header = self.chain, source.header
        path = path_in(self._folder, source.name)
        if source.base < chain.end:
            self._unused.append((path, f"positions from {source.base} on are there"))
            return False
        if self._is_of_another_time(header):
            why = "it follows other records than those that are there"
            self._unused.append((path, why))
            return False
        if source.base > chain.end:
            path = path_in(self._folder, segment_name(chain.end))
            gap = Gap(
                path=path,
                offset=0,
                size=0,
                first=chain.end,
                end=source.base,
                problem="it is missing",
            )
            self.parts.append(Part(chain.end, "", None, (gap,), intact=False))
            self.chain = Chain(epoch=chain.epoch, end=source.base)
        return True

    def _is_of_another_time(self, header: SegmentHeader | None) -> bool:
        """Tell whether *header* follows other records than those that are there."""
        chain = self.chain
        if header is None:
            return False
        if header.base > chain.end or self._ends_in_gap():
            return header.epoch < chain.epoch
        return (header.previous_crc, header.epoch) != (chain.crc, chain.epoch)

    def _ends_in_gap(self) -> bool:
        pieces = self.parts[-1].pieces
        return bool(pieces) and isinstance(pieces[-1], Gap)

    def _take(self, source: _Source, following: _Source | None) -> None:
        path = path_in(self._folder, source.name)
        data = _read(self._folder, source.name)
        chain = self._start(source, data)
        known = chain is not None
        segment = SegmentRemains(
            path,
            data,
            chain or Chain(end=source.base),
            None if following is None else _following(following),
        )
        if known:
            segment.run()
        pieces, chain = segment.pieces, segment.chain
        if following is not None:
            # One that ends with its last batch is whole: what follows it is missing.
            whole = segment.offset == len(data) and chain.end > source.base
            if chain.end < following.base and not whole:
                segment.lose_rest(following.base, source.problem)
        elif chain.end < self._expected or not known:
            end = max(chain.end, self._expected) + SKIPPED
            self.tail = segment.lose_rest(end, source.problem)
        else:
            self.torn = segment.rest
        self.parts.append(
            Part(
                base=source.base,
                name=source.name,
                header=source.header,
                pieces=tuple(pieces),
                intact=source.header is not None
                # The last one may be in the cache and nowhere else.
                and following is not None
                and source.name == segment_name(source.base)
                and not any(isinstance(piece, Gap) for piece in pieces)
                and segment.offset == len(data),
            )
        )
        self.chain = chain

    def _start(self, source: _Source, data: bytes) -> Chain | None:
        """Return where the batches of *source* begin; None if nothing says so."""
        header = source.header
        if header is not None:
            return Chain(epoch=header.epoch, end=header.base, crc=header.previous_crc)
        if self.parts and not self._ends_in_gap():
            return Link.of(self.chain).chain()
        if source.base == 0:
            return Chain()
        try:
            batch = decode_batch(data, SEGMENT_HEADER_SIZE)
        except BatchError:
            return None
        if batch.first != source.base or batch.epoch < self.chain.epoch:
            return None
        return Chain(epoch=batch.epoch, end=batch.first, crc=batch.previous_crc)


def _following(source: _Source) -> Following:
    header = source.header
    return Following(source.base, None if header is None else header.previous_crc)
