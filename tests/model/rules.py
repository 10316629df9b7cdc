"""What a log holds, which of it is valid, and the rules that can be left out.

A batch stands for its records: it takes one position. Its `crc` is a name that no other
batch has; which batches it would take to make two crcs equal is not asked here.

    epoch  of the owner that wrote it
    first  the position it was written for
    after  the crc of the valid batch before it

`read` is the reader's rule, the same for every reader and every log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

__all__ = ["START", "Batch", "Checkpoint", "Place", "Rules", "Transport", "read"]


class Batch(NamedTuple):
    """One entry of the log. Where it lies is its offset, from 0."""

    crc: str
    epoch: int
    first: int
    after: str
    claim: bool
    checkpoint: "Checkpoint | None" = None
    """One that is kept in the log is an entry, and no batch."""


class Place(NamedTuple):
    """Where a reader goes on, and behind which valid batch."""

    offset: int
    """Of the next entry to be read."""
    epoch: int
    end: int
    """The position that the next valid batch starts at."""
    crc: str


START = Place(0, 0, 0, "")


class Checkpoint(NamedTuple):
    """What a reader may begin with, instead of with the beginning of the log."""

    epoch: int
    """Of the owner that saved it."""
    place: Place
    holds: tuple[str, ...]
    """The valid batches before `place`, folded."""


class Transport(Enum):
    """The two kinds of log that several processes can write to."""

    COMPARE = "compare-and-append"
    """JetStream: an append names the last offset it knows of, or it is refused.
    Checkpoints are in a place that is compared and set by its revision."""
    APPEND = "append-only"
    """Kafka: an append is put behind whatever is there, and its offset returned.
    Checkpoints are in places of their own, one each; whoever wants one lists them."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The protocol. Each is as it has to be; a planted bug is one that is not."""

    # The reader: what makes a batch valid.
    compares_epoch: bool = True
    """An entry of an older epoch than the last valid one is dropped."""
    compares_first: bool = True
    """So is one that does not start where the last valid one ended."""
    compares_crc: bool = True
    """So is one that names another crc than that of the last valid one."""

    # The claim.
    raises_epoch: bool = True
    reads_to_own_claim: bool = True
    """All before the claim was read, and the claim found valid, before it counts."""
    obeys_newer_checkpoint: bool = True
    """An owner that loads a checkpoint of a newer one knows that it is fenced."""
    claims_expect: bool = True
    """COMPARE: a claim expects the last offset read. False: it is appended anyhow, and
    its owner reads up to it, as on the other log."""
    claims_are_unique: bool = True
    """No two claims have the same bytes, so whoever sees one knows whose it is."""

    # The writer.
    in_flight: int = 1
    in_order: bool = True
    """No batch is acknowledged before those that were sent before it."""
    contiguous: bool = True
    """A batch counts as written if its offset is the last one of ours plus 1."""
    looks_between: bool = False
    """If it is not, what lies between is read: void entries do no harm."""
    dies_when_fenced: bool = True
    """Who is fenced writes nothing more. False: it goes on behind what it found."""
    takes_duplicates: bool = False
    """An answer that says "I have that one already" counts as an acknowledgement."""
    takes_refusal_for_ours: bool = False
    """"Wrong last sequence", where the last one is where ours would be: it is ours."""
    resends: bool = False
    """What is not answered is sent once more."""
    idempotent: bool = True
    """The log knows what it was sent twice, and answers with the first offset."""
    trusts_refusal_of_resent: bool = False
    """"Full", of something sent twice, counts as "nothing was written"."""
    message_ids: bool = False
    """The log takes no second batch for the same position, and says so."""

    # Checkpoint and trim.
    saves_in_log: bool = False
    """A checkpoint is an entry, written as batches are. False: it has a place of its
    own, beside the log."""
    fences_saves: bool = True
    """COMPARE: by the revision, or the last offset. APPEND: that of the highest epoch
    is loaded, of these the last. False: whatever was saved last is loaded."""
    saves_what_is_acknowledged: bool = True
    trims_behind_save: bool = True
    """Nothing is trimmed before the checkpoint that covers it is durable."""
    removes_only_older: bool = True
    """APPEND: of the other checkpoints only those that reach less far are removed."""
    notices_gap: bool = True
    """A reader that finds its first entry trimmed begins again, with the checkpoint."""
    recovers_all: bool = True
    """So does one that reads up to its claim after opening."""
    begins_by_checkpoint: bool = True
    """Whose `place` says what comes next. False: the oldest entry kept says it."""


def read(
    rules: Rules, entries: Sequence[Batch], begin: Place
) -> tuple[Place, tuple[str, ...]]:
    """Return the valid batches from *begin* on, and the place behind *entries*."""
    offset, epoch, end, crc = begin
    valid: list[str] = []
    for batch in entries[offset:]:
        offset += 1
        if batch.checkpoint is not None:
            continue
        if rules.compares_epoch and batch.epoch < epoch:
            continue
        if rules.compares_first and batch.first != end:
            continue
        if rules.compares_crc and batch.after != crc:
            continue
        epoch, end, crc = batch.epoch, batch.first + 1, batch.crc
        valid.append(batch.crc)
    return Place(offset, epoch, end, crc), tuple(valid)
