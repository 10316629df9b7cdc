"""Find out what a partition's folder holds, without changing anything.

What is refused, each by file and offset:

* a segment whose header is not what was written, or belongs elsewhere;
* of the segments from the checkpoint's low position on: a gap or an overlap between
  them, a bad batch in a closed one, a bad batch with a valid later one behind it;
* an end below the one that the checkpoint knows to be durable, or a start above the
  position that it needs. Without a checkpoint, that is 0: nothing was ever trimmed.

What lies before the low position is not needed and not read, but for its headers: it
waits for its retention to end. A segment that was removed and came back (a crash during
a trim) is among that, and is removed again.
"""

from dataclasses import dataclass, field

from coordinator.errors import JournalDamagedError, JournalFormatError
from coordinator.journals.chain import Chain
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.format import (
    CheckpointHeader,
    HeaderError,
    SegmentHeader,
    decode_checkpoint,
    parse_segment_name,
    segment_name,
)
from coordinator.journals.segments.reading import (
    Identity,
    SegmentReader,
    check_follows,
    path_in,
    read_header,
)
from coordinator.rare import sometimes

__all__ = [
    "CHECKPOINT",
    "REPAIR_MARK",
    "Recovered",
    "check_start",
    "is_marked",
    "partition_folder",
    "read_checkpoint",
    "read_segments",
    "recover",
    "segment_bases",
]

CHECKPOINT = "checkpoint"
REPAIR_MARK = b"a repair is under way: `coordinator journal repair` goes on with it\n"
"""What stands in the place of the checkpoint meanwhile: nobody opens the partition."""


@dataclass(slots=True)
class Recovered:
    """What a partition's folder holds."""

    segments: list[SegmentHeader]
    """Oldest first; the last one is active."""
    chain: Chain = field(default_factory=Chain)
    """Where the valid batches end."""
    active_size: int = 0
    """Bytes of the active segment up to there."""
    torn: int = 0
    """Bytes of the torn tail behind that; 0 if there is none."""
    checkpoint: CheckpointHeader | None = None


def partition_folder(folder: Folder, number: int) -> Folder:
    """Open the folder of a partition in that of the journal.

    Raises:
        JournalDamagedError: It is missing. It was made before the journal was.
    """
    name = f"p{number}"
    try:
        return folder.folder(name)
    except FileNotFoundError as error:
        path = path_in(folder, name)
        problem = f"the folder of partition {number} is missing"
        raise JournalDamagedError(path, 0, problem) from error


def segment_bases(folder: Folder) -> list[int]:
    """Return the base positions of the segments in *folder*, oldest first.

    Raises:
        JournalDamagedError: There is none. One was made with the partition, and the
            last one is never removed.
    """
    bases = (parse_segment_name(name) for name in folder.names())
    found = sorted(base for base in bases if base is not None)
    if not found:
        raise JournalDamagedError(folder.path, 0, "no segment is there")
    return found


def read_checkpoint(
    folder: Folder, identity: Identity
) -> tuple[CheckpointHeader, bytes] | None:
    """Read and check the whole checkpoint file; None if there is none.

    Returns:
        Its header, and all of the file's bytes.

    Raises:
        JournalDamagedError: It is not what was stored.
        JournalFormatError: It is of a newer format.
    """
    path = path_in(folder, CHECKPOINT)
    try:
        file = folder.open(CHECKPOINT)
    except FileNotFoundError:
        return None
    try:
        data = file.read(0, file.size())
    finally:
        file.close()
    if data == REPAIR_MARK:
        problem = "a repair was cut off: `coordinator journal repair` goes on with it"
        raise JournalDamagedError(path, 0, problem)
    try:
        header = decode_checkpoint(data)
        _check_identity(header, identity)
    except HeaderError as error:
        sometimes("checkpoint rejected")
        problem = f"{error}; {_way_out(identity)}"
        raise JournalDamagedError(path, 0, problem) from error
    except JournalFormatError as error:
        raise JournalFormatError(f"{path}: {error}") from error
    return header, data


def is_marked(folder: Folder) -> bool:
    """Tell whether a repair of the partition in *folder* was decided, and cut off."""
    try:
        file = folder.open(CHECKPOINT)
    except FileNotFoundError:
        return False
    try:
        return file.read(0, file.size()) == REPAIR_MARK
    finally:
        file.close()


def _check_identity(header: CheckpointHeader, identity: Identity) -> None:
    if header.journal_id != identity.journal_id:
        raise HeaderError(f"it belongs to journal {header.journal_id.hex()}")
    if header.partition != identity.partition:
        raise HeaderError(f"it belongs to partition {header.partition}")


def _way_out(identity: Identity) -> str:
    return (
        f"`coordinator journal forget-checkpoint --partition {identity.partition}` "
        f"goes on from the segments alone, and forgets only keys and results from "
        f"before the oldest of them"
    )


def check_start(
    path: str, base: int, identity: Identity, checkpoint: CheckpointHeader | None
) -> None:
    """Check that nothing that is needed lies before the oldest segment.

    Args:
        path: Of that segment.
        base: Where it starts.
        identity: Of the partition.
        checkpoint: None if there is none.

    Raises:
        JournalDamagedError: Something does.
    """
    low = 0 if checkpoint is None else checkpoint.low
    if base <= low:
        return
    problem = f"it is the oldest segment and starts at position {base}, but "
    if checkpoint is None:
        # Only what lies before the position of a *stored* checkpoint is ever trimmed.
        problem += (
            f"without a checkpoint all records are needed; if that was lost and no "
            f"segment, {_way_out(identity)}"
        )
    else:
        problem += f"records from {low} on are needed"
    raise JournalDamagedError(path, 32, problem)


def recover(folder: Folder, identity: Identity) -> Recovered:
    """Read what is needed to go on in *folder*.

    Raises:
        JournalDamagedError: Stored bytes are not what was written.
        JournalFormatError: A file is of a newer format.
    """
    stored = read_checkpoint(folder, identity)
    checkpoint = None if stored is None else stored[0]
    segments = _read_headers(folder, identity)
    base = segments[0].base
    path = path_in(folder, segment_name(base))
    check_start(path, base, identity, checkpoint)
    found = _read_from(folder, segments, 0 if checkpoint is None else checkpoint.low)
    found.checkpoint = checkpoint
    if checkpoint is not None and found.chain.end < checkpoint.end:
        sometimes("end of the records before that of the checkpoint")
        raise JournalDamagedError(
            path_in(folder, segment_name(segments[-1].base)),
            found.active_size,
            f"the records end at position {found.chain.end}, but those before "
            f"{checkpoint.end} were durable when the checkpoint was saved",
        )
    return found


def read_segments(folder: Folder, identity: Identity) -> Recovered:
    """Read all segments that are there, and not the checkpoint.

    Raises:
        JournalDamagedError: Stored bytes are not what was written.
        JournalFormatError: A file is of a newer format.
    """
    return _read_from(folder, _read_headers(folder, identity), 0)


def _read_headers(folder: Folder, identity: Identity) -> list[SegmentHeader]:
    headers: list[SegmentHeader] = []
    for base in segment_bases(folder):
        name = segment_name(base)
        file = folder.open(name)
        try:
            headers.append(read_header(file, path_in(folder, name), identity, base))
        finally:
            file.close()
    return headers


def _read_from(folder: Folder, segments: list[SegmentHeader], low: int) -> Recovered:
    """Read the segments that hold what is not before *low*."""
    found = Recovered(segments)
    before: Chain | None = None
    for index, header in enumerate(segments):
        active = index == len(segments) - 1
        if not active and segments[index + 1].base <= low:
            sometimes("segment that is no longer needed, not read")
            continue
        name = segment_name(header.base)
        path = path_in(folder, name)
        if before is not None:
            check_follows(path, header, before)
        file = folder.open(name)
        try:
            reader = SegmentReader(file, path, header)
            for _ in reader.batches():
                pass
            if active:
                reader.check_torn()
                found.torn = reader.torn
                found.active_size = reader.offset
            else:
                reader.check_closed()
        finally:
            file.close()
        before = found.chain = reader.chain
    return found
