"""Write a damaged partition anew: what is sound stays, gaps are filled.

    gap        filled with `Lost` records, one per position, so that what lies behind
               keeps its place. The last batch of them gets the crc that the next sound
               one names (`seal`): so no batch has to be written anew for what was lost
               before it, and segments behind a gap stay as they are, byte by byte
    end        a new segment: a claim, and what the engine says (`Carried`)
    checkpoint reading starts at that claim: what lies before it is history

    lock
    repair/...       the new segments and the checkpoint, synced; then the plan
    checkpoint       becomes the mark. From here on the repair is decided: nobody can
                     open the partition, and the next repair goes on with the plan
    damaged-<time>/  the files that are replaced move there, as they are
    segments         the new ones move to their places
    checkpoint       the new one replaces the mark: repaired

A crash before the mark leaves the damaged partition, and some files that nobody reads.
After it each step is a rename that is done or not, and the next repair does the rest.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from coordinator.batch import Batch, encode_batch
from coordinator.journals.chain import Chain, Verdict
from coordinator.journals.handle import encode_claim
from coordinator.journals.segments.files import File, Folder
from coordinator.journals.segments.format import (
    SEGMENT_HEADER_SIZE,
    SegmentHeader,
    encode_checkpoint,
    encode_segment_header,
    segment_name,
)
from coordinator.journals.segments.gaps import Gap, Link, Run
from coordinator.journals.segments.reading import Identity, path_in
from coordinator.journals.segments.recovery import CHECKPOINT, REPAIR_MARK, is_marked
from coordinator.journals.segments.salvage import Part, Salvaged, batches_in
from coordinator.records import Lost, encode_record

__all__ = ["Rebuilt", "finish", "size_needed", "stage", "start"]

_STAGED = "repair"
_PLAN = "plan"
_COPY = "checkpoint.tmp"
_BATCH_SIZE = 1024 * 1024
"""Bytes after which a batch ends."""
_SEGMENT_SIZE = 64 * 1024 * 1024
"""Bytes after which a new segment begins behind the old end."""
_FILLER = msgspec.msgpack.encode([10])
"""A `Lost` that says nothing: its fields have defaults."""
_FILLER_SIZE = 4 + len(_FILLER)
_CRC_BITS = 32


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be done once the mark stands."""

    kept: str
    """Folder where the files go that are replaced."""
    replaced: tuple[str, ...]
    """Their names, but for the checkpoint's."""
    added: tuple[str, ...]
    """Names of the new segments."""


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """What `finish` did."""

    kept: str
    """Path of the folder with the files that were replaced, as they were."""


def size_needed(salvaged: Salvaged, tail_size: int) -> int:
    """Return the bytes that `stage` will write, about; *tail_size* are the engine's."""
    size = tail_size + 2 * SEGMENT_HEADER_SIZE
    for part in salvaged.parts:
        if part.intact:
            continue
        for piece in part.pieces:
            if isinstance(piece, Run):
                size += piece.stop - piece.start
            else:
                size += (piece.end - piece.first) * _FILLER_SIZE
    return size + size // 100 + _BATCH_SIZE


def start(salvaged: Salvaged) -> Chain:
    """Return where the new end begins: the position and epoch before its claim.

    Each lost record may have been a claim, so as many epochs are left out.
    """
    chain, tail = salvaged.chain, salvaged.tail
    lost = 0 if tail is None else tail.end - tail.first
    if not salvaged.parts:
        lost = chain.end
    return Chain(epoch=chain.epoch + lost, end=chain.end, crc=chain.crc)


def stage(
    folder: Folder,
    identity: Identity,
    salvaged: Salvaged,
    *,
    end: Callable[[int], tuple[Iterable[bytes], int, bytes]],
    kept: str,
    owner: str,
    at: int,
) -> None:
    """Write all that is new beside the partition; durable on return. Nothing is moved.

    Args:
        folder: Of the partition, locked by us.
        identity: Of the partition.
        salvaged: What is left of it.
        end: Gets the position behind our claim; returns the encoded records that go
            there, and low position and data of the checkpoint.
        kept: Name of the folder for what is replaced; there is none of that name.
        owner: What the claim says of us.
        at: Now, in microseconds since 1970.

    Raises:
        JournalDamagedError: A file changed since it was salvaged.
        OSError: The file system failed, or has no space.
    """
    staged = folder.make_folder(_STAGED)
    for name in staged.names():
        staged.remove(name)
    writer = _Writer(staged, identity, _first(salvaged).chain())
    try:
        for index, part in enumerate(salvaged.parts):
            if part.intact:
                writer.skip(part)
            else:
                _write_part(folder, writer, part, salvaged.parts[index + 1 :], at)
        chain = writer.chain
        writer.begin(at)
        chain.epoch = start(salvaged).epoch
        claim = encode_claim(chain, owner=owner, at=at)
        writer.put(claim)
        records, low, data = end(claim.end)
        for batch in _batches(records, chain):
            if writer.is_long:
                writer.begin(at)
            writer.put(batch)
    finally:
        writer.close()
    content = encode_checkpoint(
        data,
        journal_id=identity.journal_id,
        partition=identity.partition,
        low=low,
        end=chain.end,
    )
    _put(staged, CHECKPOINT, content)
    names = set(folder.names())
    plan = _Plan(
        kept=kept,
        replaced=tuple(sorted(_replaced(salvaged, names))),
        added=tuple(writer.names),
    )
    _put(staged, _PLAN, msgspec.json.encode(plan))
    staged.sync()


def finish(folder: Folder) -> Rebuilt:
    """Put what is staged in the place of what is damaged; durable on return.

    May be called again after a crash: what was done is passed over.

    Raises:
        OSError: The file system failed. Call it again.
    """
    staged = folder.make_folder(_STAGED)
    plan = msgspec.json.decode(_content(staged, _PLAN), type=_Plan)
    kept = folder.make_folder(plan.kept)
    if not is_marked(folder):
        _mark(folder, kept)
    for name in plan.replaced:
        if name not in kept.names():
            _move(folder, name, kept)
    for name in (*plan.added, CHECKPOINT):
        if name in staged.names():
            _move(staged, name, folder)
    staged.remove(_PLAN)
    staged.sync()
    return Rebuilt(kept=path_in(folder, plan.kept))


def _mark(folder: Folder, kept: Folder) -> None:
    if CHECKPOINT in folder.names():
        _put(kept, CHECKPOINT, _content(folder, CHECKPOINT))
        kept.sync()
    _put(folder, _COPY, REPAIR_MARK)
    folder.rename(_COPY, CHECKPOINT)
    folder.sync()


def _move(source: Folder, name: str, target: Folder) -> None:
    source.move(name, target)
    # First where it went: in between it may have both names, not none.
    target.sync()
    source.sync()


def _replaced(salvaged: Salvaged, names: set[str]) -> Iterator[str]:
    for part in salvaged.parts:
        if not part.intact and part.name:
            yield part.name
        if not part.intact and segment_name(part.base) in names - {part.name}:
            yield segment_name(part.base)
    for path, _ in salvaged.unused:
        yield path.rpartition("/")[2]


def _first(salvaged: Salvaged) -> Link:
    """Return where the first segment begins."""
    if not salvaged.parts:
        return Link(0, salvaged.chain.end, 0)
    part = salvaged.parts[0]
    header = part.header
    if header is not None:
        return Link(header.epoch, header.base, header.previous_crc)
    return _entry(part) or Link(0, part.base, 0)


def _write_part(
    folder: Folder, writer: "_Writer", part: Part, behind: Sequence[Part], at: int
) -> None:
    # Retention counts from it: where it is lost, once more from now on.
    writer.begin(at if part.header is None else part.header.created_at)
    pieces = part.pieces
    for index, piece in enumerate(pieces):
        if isinstance(piece, Run):
            for batch in batches_in(folder, part, piece):
                writer.put(batch)
        else:
            writer.fill(piece, _wanted(pieces[index + 1 :], behind), at)


def _wanted(rest: Sequence[Run | Gap], behind: Sequence[Part]) -> Link | None:
    """Return what the piece behind a gap begins with; None if anything will do."""
    if rest:
        return _asked(rest[0])
    return _entry(behind[0]) if behind else None


def _entry(part: Part) -> Link | None:
    """Return what *part* begins with; None if anything will do."""
    header = part.header
    if header is not None and (part.intact or not part.pieces):
        return Link(header.epoch, header.base, header.previous_crc)
    return _asked(part.pieces[0]) if part.pieces else None


def _asked(piece: Run | Gap) -> Link | None:
    return piece.before if isinstance(piece, Run) else None


class _Writer:
    """Writes segments, one behind the other, into the folder beside the partition."""

    def __init__(self, folder: Folder, identity: Identity, chain: Chain) -> None:
        self._folder = folder
        self._identity = identity
        self._file: File | None = None
        self._offset = 0
        self.chain = chain
        """Where what was written, or left as it is, ends."""
        self.names: list[str] = []

    def skip(self, part: Part) -> None:
        """Go on behind *part*, which stays as it is."""
        entry = _entry(part)
        assert entry is not None
        last = part.pieces[-1] if part.pieces else None
        link = last.behind if isinstance(last, Run) else entry
        self.chain = link.chain()

    def begin(self, created_at: int) -> None:
        """Begin a segment where we are."""
        self.close()
        chain, identity = self.chain, self._identity
        name = segment_name(chain.end)
        self.names.append(name)
        self._file = self._folder.create(name)
        header = SegmentHeader(
            journal_id=identity.journal_id,
            partition=identity.partition,
            partitions=identity.partitions,
            base=chain.end,
            created_at=created_at,
            epoch=chain.epoch,
            previous_crc=chain.crc,
        )
        self._file.write(0, encode_segment_header(header))
        self._offset = SEGMENT_HEADER_SIZE

    def put(self, batch: Batch) -> None:
        """Write *batch*, which follows what we have."""
        assert self._file is not None
        taken = self.chain.take(batch)
        assert taken is Verdict.NEXT, taken
        self._file.write(self._offset, batch.data)
        self._offset += len(batch.data)

    @property
    def is_long(self) -> bool:
        """Whether the next batch should begin a segment."""
        return self._offset >= _SEGMENT_SIZE

    def fill(self, gap: Gap, wanted: Link | None, at: int) -> None:
        """Write a `Lost` for each position of *gap*, so that *wanted* may follow."""
        # A path may hold what is no text.
        why = f"{gap.where}: {gap.problem}".encode(errors="replace").decode()
        lost = Lost(at=at, why=why)
        chain = self.chain
        epoch = chain.epoch if wanted is None else wanted.epoch
        left = gap.end - gap.first - 1
        while left:
            count = min(left, _BATCH_SIZE // _FILLER_SIZE)
            records = [encode_record(lost), *[_FILLER] * (count - 1)]
            self.put(
                encode_batch(
                    records, epoch=epoch, first=chain.end, previous_crc=chain.crc
                )
            )
            left -= count
        self.put(_sealed(lost, chain, epoch, wanted))

    def close(self) -> None:
        """Make what was written durable."""
        if self._file is not None:
            self._file.sync()
            self._file.close()
            self._file = None


def _sealed(lost: Lost, chain: Chain, epoch: int, wanted: Link | None) -> Batch:
    """Return a batch of one record, with the crc that *wanted* names.

    A CRC is linear: what the bits of the seal do to it is the same whatever stands
    around them, and of four bytes in a row any crc can be had.
    """

    def sealed(seal: int) -> Batch:
        record = msgspec.structs.replace(lost, seal=seal.to_bytes(4, "little"))
        data = encode_record(record)
        return encode_batch(
            [data], epoch=epoch, first=chain.end, previous_crc=chain.crc
        )

    batch = sealed(0)
    if wanted is None:
        return batch
    missing, seal = batch.crc ^ wanted.crc, 0
    # Gaussian elimination over the bits: by the highest bit of the crc that each has.
    by_height: dict[int, tuple[int, int]] = {}
    for bit in range(_CRC_BITS):
        effect, bits = sealed(1 << bit).crc ^ batch.crc, 1 << bit
        while effect and effect.bit_length() in by_height:
            other, other_bits = by_height[effect.bit_length()]
            effect, bits = effect ^ other, bits ^ other_bits
        by_height[effect.bit_length()] = effect, bits
    while missing:
        effect, bits = by_height[missing.bit_length()]
        missing, seal = missing ^ effect, seal ^ bits
    batch = sealed(seal)
    assert batch.crc == wanted.crc
    return batch


def _batches(records: Iterable[bytes], chain: Chain) -> Iterator[Batch]:
    """Yield *records* in batches that follow *chain*, which moves with them."""

    def batch() -> Batch:
        return encode_batch(
            group, epoch=chain.epoch, first=chain.end, previous_crc=chain.crc
        )

    group: list[bytes] = []
    size = 0
    for record in records:
        group.append(record)
        size += len(record)
        if size >= _BATCH_SIZE:
            yield batch()
            group, size = [], 0
    if group:
        yield batch()


def _put(folder: Folder, name: str, content: bytes) -> None:
    file = folder.create(name)
    try:
        file.write(0, content)
        file.sync()
    finally:
        file.close()


def _content(folder: Folder, name: str) -> bytes:
    file = folder.open(name)
    try:
        return file.read(0, file.size())
    finally:
        file.close()
