"""Go on in a partition whose checkpoint is damaged or gone, because a person says so.

The segments say how the unfinished commands stand. What only the checkpoint knew is
forgotten: keys and results of commands that ended before the oldest segment. So it
takes a person, and all segments have to be sound.

    lock; read all segments      damage there: refused, nothing was changed
    checkpoint.damaged           a copy of the damaged one; synced
    checkpoint.tmp, renamed      an empty one, of the oldest segment's position

A crash in between leaves the damaged checkpoint, or the empty one.
"""

from collections.abc import Callable

import msgspec

from coordinator.errors import JournalDamagedError
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.format import encode_checkpoint, segment_name
from coordinator.journals.segments.reading import Identity, path_in
from coordinator.journals.segments.recovery import (
    CHECKPOINT,
    check_start,
    is_marked,
    read_checkpoint,
    read_segments,
    segment_bases,
)

__all__ = ["Forgotten", "checkpoint_problem", "forget_checkpoint"]

_COPY = "checkpoint.tmp"
_KEPT = "checkpoint.damaged"


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about a partition's checkpoint."""

    partition: int
    low: int
    """The position from which the partition is read now."""
    kept: str
    """Where the damaged one is kept; empty if there was none."""


def checkpoint_problem(folder: Folder, identity: Identity) -> str:
    """Return what is wrong with the checkpoint in *folder*; empty if nothing is.

    Raises:
        JournalFormatError: It is of a newer format.
    """
    try:
        stored = read_checkpoint(folder, identity)
        if stored is None:
            base = segment_bases(folder)[0]
            path = path_in(folder, segment_name(base))
            check_start(path, base, identity, None)
    except JournalDamagedError as error:
        return f"{error.path}: {error.problem}"
    return ""


def forget_checkpoint(
    folder: Folder, identity: Identity, *, empty: Callable[[int], bytes], holder: str
) -> Forgotten | None:
    """Put an empty checkpoint in the place of one that is damaged or gone.

    Args:
        folder: Of the partition. Nobody else has it open.
        identity: Of the partition.
        empty: Returns the engine's data of a checkpoint that knows of nothing, and
            from which reading starts at the position that it gets.
        holder: What the lock says of us.

    Returns:
        What was done; None if the checkpoint is sound or none is needed: then nothing
        was changed.

    Raises:
        JournalLockedError: Another process holds the partition.
        JournalDamagedError: A segment is damaged; nothing was changed.
        JournalFormatError: A file is of a newer format; nothing was changed.
        OSError: The file system failed. Try again.
    """
    lock = folder.lock("LOCK", holder)
    try:
        problem = checkpoint_problem(folder, identity)
        if not problem:
            return None
        if is_marked(folder):
            # What is half moved may look sound, and is not what was.
            raise JournalDamagedError(path_in(folder, CHECKPOINT), 0, problem)
        found = read_segments(folder, identity)
        low = found.segments[0].base
        kept = _keep(folder)
        content = encode_checkpoint(
            empty(low),
            journal_id=identity.journal_id,
            partition=identity.partition,
            low=low,
            # Nothing more is claimed: what was read may be in the cache alone.
            end=low,
        )
        _put(folder, _COPY, content)
        folder.rename(_COPY, CHECKPOINT)
        folder.sync()
    finally:
        lock.release()
    return Forgotten(partition=identity.partition, low=low, kept=kept)


def _keep(folder: Folder) -> str:
    """Copy the checkpoint beside itself, if there is one; return the copy's path."""
    names = set(folder.names())
    if CHECKPOINT not in names:
        return ""
    file = folder.open(CHECKPOINT)
    try:
        content = file.read(0, file.size())
    finally:
        file.close()
    name, number = _KEPT, 1
    while name in names:
        name, number = f"{_KEPT}.{number}", number + 1
    _put(folder, name, content)
    # Durable before the other one loses its name.
    folder.sync()
    return path_in(folder, name)


def _put(folder: Folder, name: str, content: bytes) -> None:
    file = folder.create(name)
    try:
        file.write(0, content)
        file.sync()
    finally:
        file.close()
