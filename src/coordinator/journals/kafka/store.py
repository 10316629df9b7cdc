"""One partition: claimed, written, read. What decides, over `topic.TopicPartition`.

    open    read all --> claim --> read up to it --> ours? --> no: again
    append  send --> offset is the last + 1? --> no: read what lies between
    save    chunks, one by one --> commit
    trim    delete what lies before the base of the stored checkpoint

Every message of an owner goes through `_put`, so one is in flight at a time and all of
them are fenced alike: batches, chunks and commits. All calls block, and are made from
one thread.
"""

import zlib
from collections.abc import Iterator

from coordinator.batch import Batch
from coordinator.errors import (
    DecodeError,
    FencedError,
    JournalBrokenError,
    JournalDamagedError,
    JournalError,
    JournalFormatError,
    JournalLockedError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.journals.chain import Chain
from coordinator.journals.handle import encode_claim
from coordinator.journals.kafka.fold import Folded, Place, Scan, Strangers, take
from coordinator.journals.kafka.messages import (
    Chunk,
    Commit,
    Landmark,
    Message,
    Stranger,
    encode_batch_message,
    encode_chunk,
    encode_commit,
)
from coordinator.journals.kafka.topic import GoneError, TopicPartition
from coordinator.model import Position
from coordinator.rare import sometimes
from coordinator.records import Claimed

__all__ = ["CHUNK_SIZE", "Store"]

CLAIMS_MAX = 16
"""Claims that may lie behind somebody else's message before we give up. The first one
stops an owner that writes; only others who claim all the time come before the next."""
CHUNK_SIZE = 1024 * 1024
"""Bytes of a checkpoint per message; a batch waits for no more than one of them."""


class Store:
    """A partition of a topic; `open` it first."""

    def __init__(self, topic: TopicPartition, place: Place) -> None:
        self.place = place
        self._topic = topic
        self._identity = place.identity
        self._strangers = Strangers(place)
        self._owned: Folded | None = None
        self._claimed_at = -1
        self._last = -1
        """Offset of our last message."""
        self._saved = 0
        """Checkpoints begun under our epoch."""
        self._doubt = ""
        """Why nothing may be sent any more; empty as long as all is well."""

    def tell(self) -> str:
        """Return what people should know of strangers, once; empty if nothing."""
        return self._strangers.tell()

    def open(self, owner: str, at: int) -> Batch:
        """Claim the partition, and return the claim.

        Args:
            owner: Says to people who we are.
            at: Now, in microseconds since 1970.

        Raises:
            JournalLockedError: Others claim it all the time.
            JournalDamagedError: Stored bytes are not what was written.
            JournalFormatError: Of a newer format.
            JournalUnavailableError: It can't be reached, or not be read.
            JournalBrokenError: The claim can't be written.
        """
        scan = self._scan()
        folded = scan.fold()
        for _ in range(CLAIMS_MAX):
            claim = encode_claim(folded.chain, owner=owner, at=at)
            try:
                offset = self._topic.append(encode_batch_message(self._identity, claim))
            except UncertainError as error:
                # It may turn up later: void, or nobody's, and stops an owner.
                raise JournalBrokenError(
                    f"can't claim {self.place}: {error}"
                ) from error
            if offset < scan.end:
                raise self._went_back(offset, scan.end - 1)
            try:
                scan.read(self._topic.fetch(scan.end, offset + 1))
            except GoneError:
                scan = self._scan()  # its owner has trimmed meanwhile, and goes on
            folded = scan.fold()
            if folded.last == offset:
                self._owned = folded
                self._claimed_at = self._last = offset
                self._strangers = scan.strangers
                return claim
            sometimes("claim came second")
        winner = f"others, the last of whom claimed it at offset {folded.last}"
        raise JournalLockedError(str(self.place), winner)

    def append(self, batch: Batch) -> None:
        """Make *batch* durable, behind all that is valid.

        Raises:
            FencedError: Somebody newer owns the partition, or is about to.
            UncertainError: Nobody knows whether it landed, or where.
            JournalBrokenError: The topic takes nothing, or has lost something.
        """
        owned = self._mine()
        chain = owned.chain
        offset = self._put(encode_batch_message(self._identity, batch))
        owned.landmarks.add(Landmark(offset, chain.end, chain.epoch, chain.crc))
        valid = take(chain, batch, self.place, offset)
        assert valid, "what lies between was read, and none of it was valid"

    def read(self, since: int) -> Iterator[Batch]:
        """Yield the valid batches from the one that holds *since* up to our claim.

        Raises:
            JournalDamagedError: Stored bytes are not what was written.
            JournalBrokenError: They can't be read.
        """
        mark = self._mine().landmarks.find(since)
        chain = Chain(epoch=mark.epoch, end=mark.position, crc=mark.crc)
        try:
            for offset, data in self._topic.fetch(mark.offset, self._claimed_at + 1):
                batch = self.place.decode(offset, data)
                if (
                    isinstance(batch, Batch)
                    and take(chain, batch, self.place, offset)
                    and batch.end > since
                ):
                    yield batch
        except GoneError as error:
            raise self._taken_away() from error

    def save(self, low: Position, data: bytes) -> Iterator[None]:
        """Store a checkpoint; one message per step, so that batches get in between.

        It is stored when this ends; until then the one before is. Leave it where you
        like.

        Raises:
            FencedError: Somebody newer owns the partition, or is about to.
            JournalBrokenError: It can't be stored, or nobody knows whether it is.
        """
        owned = self._mine()
        # Now, and not behind the chunks: what is written meanwhile it knows nothing of.
        end, base = Position(owned.chain.end), self._base_of(owned, low)
        self._saved += 1
        number, epoch = self._saved, owned.chain.epoch
        since = -1
        count = 0
        for index, start in enumerate(range(0, len(data), CHUNK_SIZE)):
            chunk = Chunk(epoch, number, index, data[start : start + CHUNK_SIZE])
            offset = self._save(encode_chunk(self._identity, chunk))
            since = offset if since < 0 else since
            count += 1
            yield
        commit = Commit(
            epoch=epoch,
            number=number,
            chunks=count,
            size=len(data),
            crc=zlib.crc32(data),
            since=self._last + 1 if since < 0 else since,
            low=low,
            end=end,
            base=base,
        )
        assert base.offset <= commit.since, "noted before the first chunk was sent"
        owned.commit_offset = self._save(encode_commit(self._identity, commit))
        owned.commit = commit

    def load_checkpoint(self) -> bytes | None:
        """Return the stored checkpoint; None if there is none.

        Raises:
            JournalDamagedError: It is not what was stored.
            JournalBrokenError: It can't be read.
        """
        owned = self._mine()
        commit = owned.commit
        if commit is None:
            return None
        pieces: list[bytes] = []
        try:
            for offset, data in self._topic.fetch(commit.since, owned.commit_offset):
                match self.place.decode(offset, data):
                    case Chunk(commit.epoch, commit.number, index, piece):
                        if index == len(pieces):  # a second copy of one comes behind
                            pieces.append(piece)
                    case _:
                        pass
        except GoneError as error:
            raise self._taken_away() from error
        found = b"".join(pieces)
        if len(found) != commit.size or zlib.crc32(found) != commit.crc:
            raise self.place.damaged(
                owned.commit_offset,
                f"the checkpoint stored there has {commit.size} bytes with crc "
                f"{commit.crc:08x}, found are {len(found)} with "
                f"{zlib.crc32(found):08x}",
            )
        return found

    def trim(self, before: int) -> None:
        """Let go of what the stored checkpoint needs no more, up to *before*.

        Raises:
            JournalUnavailableError: It can't be done now.
        """
        owned = self._mine()
        commit = owned.commit
        # Another one was stored since by nobody: we own the partition, or are fenced
        # and had stored this one before the claim. See the page.
        if commit is not None and commit.base.position <= before:
            owned.landmarks.rebase(commit.base)
            self._topic.delete(commit.base.offset)  # its chunks lie behind

    def close(self) -> None:
        """Let go of the topic."""
        self._topic.close()

    def _mine(self) -> Folded:
        assert self._owned is not None, "opened first"
        return self._owned

    def _scan(self) -> Scan:
        """Read all there is.

        Raises:
            JournalError: See `open`.
        """
        for _ in range(CLAIMS_MAX):
            start, end = self._topic.bounds()
            scan = Scan(self.place, start)
            try:
                scan.read(self._topic.fetch(start, end))
            except GoneError:
                sometimes("trimmed while it was read")
                continue
            scan.end = end
            return scan
        raise JournalUnavailableError(
            f"can't read {self.place}: it is trimmed quicker than it is read"
        )

    def _base_of(self, owned: Folded, low: int) -> Landmark:
        """Return where reading has to start for *low*."""
        chain = owned.chain
        if low >= chain.end:
            return Landmark(self._last + 1, chain.end, chain.epoch, chain.crc)
        return owned.landmarks.find(low)

    def _save(self, message: bytes) -> int:
        try:
            return self._put(message)
        except UncertainError as error:
            raise JournalBrokenError(
                f"nobody knows whether the checkpoint of {self.place} is stored: "
                f"{error}"
            ) from error

    def _put(self, message: bytes) -> int:
        """Send *message*, and return its offset once it is durable and fenced.

        Raises:
            JournalError: See `append`; nothing may be sent any more.
        """
        if self._doubt:
            raise UncertainError(self._doubt)
        try:
            offset = self._topic.append(message)
            if offset <= self._last:
                raise self._went_back(offset, self._last)
            if offset != self._last + 1:
                self._look_between(offset, message)
        except JournalError as error:
            self._doubt = str(error)
            raise
        self._last = offset
        return offset

    def _look_between(self, offset: int, message: bytes) -> None:
        """Judge what lies between our last message and *message*, which is at *offset*.

        Raises:
            FencedError: A claim does, or what somebody newer wrote.
            UncertainError: Our own is not found there.
            JournalBrokenError: It can't be read.
        """
        sometimes("something lies between")
        epoch = self._mine().chain.epoch
        found = b""
        try:
            for at, data in self._topic.fetch(self._last + 1, offset + 1):
                if at < offset:
                    self._judge(at, data, epoch)
                else:
                    found = data
        except GoneError as error:
            raise self._taken_away() from error
        if found != message:
            raise UncertainError(
                f"{self.place} does not hold at offset {offset} what was written there"
            )

    def _judge(self, offset: int, data: bytes, epoch: int) -> None:
        """Pass if the message at *offset* leaves the partition ours."""
        try:
            other = self.place.decode(offset, data)
        except JournalFormatError as error:
            raise FencedError(
                f"a newer version writes to {self.place}: {error}"
            ) from error
        except JournalDamagedError as error:
            raise JournalBrokenError(str(error)) from error
        match other:
            case Stranger():
                self._strangers.note(offset, other)
            case Batch() | Chunk() | Commit() if other.epoch > epoch:
                who = _owner_in(other) or "somebody"
                raise FencedError(
                    f"{who} claimed {self.place} under epoch {other.epoch}, at offset "
                    f"{offset}; ours is {epoch}"
                )
            case _:
                # A straggler of an older owner, a claim that came second to ours, or a
                # journal's second founding: void for every reader.
                pass

    def _went_back(self, offset: int, last: int) -> JournalBrokenError:
        return JournalBrokenError(
            f"{self.place} went back: a message landed at offset {offset}, and there "
            f"had been one at {last}; what was acknowledged is gone. Was the topic "
            f"made anew, or a broker without all messages elected?"
        )

    def _taken_away(self) -> JournalBrokenError:
        return JournalBrokenError(
            f"{self.place} was trimmed while it was read: by a retention, by hand, or "
            f"by a newer owner"
        )


def _owner_in(message: Message) -> str:
    """Return who claims by *message*; empty if it is no claim, or can't be read."""
    if not isinstance(message, Batch):
        return ""
    try:
        records = [record for _, record in message.records()]
    except DecodeError:
        return ""
    return next((one.owner for one in records if isinstance(one, Claimed)), "")
