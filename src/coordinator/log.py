"""One opened partition: its state, what is appended to it, and its checkpoints.

    open:    claim --> load checkpoint --> fold what lies behind it
    append:  apply to the state, and into the group that is written next
    checkpoint, every `checkpoint_size` bytes and when closed:
             [carry over the workflows that pin an old tail]
             --> capture low and keys --> wait until all of it is durable
             --> save --> trim what lies before low

A crash between any two of these leaves an older checkpoint, from which recovery reads
more. The capture waits for its own records: a checkpoint that knew of a result that is
not durable would give out that result after a crash.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from coordinator.checkpoint import NO_CHECKPOINT, decode_checkpoint
from coordinator.commit import Durable, GroupCommit
from coordinator.errors import (
    DecodeError,
    EncodeError,
    JournalClosedError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
)
from coordinator.model import Position
from coordinator.ports import Journal, Partition
from coordinator.rare import sometimes
from coordinator.records import Accepted, Record, encode_record
from coordinator.state import (
    InvalidRecordError,
    PartitionState,
    WorkflowState,
)

__all__ = ["Log", "LogOptions"]

_LOGGER = logging.getLogger("coordinator")


CHECKPOINT_SHARE = 4
"""How many times the size of a checkpoint is appended until the next, at least: results
that are remembered are written again with each, a quarter on top at most."""


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much is remembered, and how often it is written down."""

    keys_max: int = 100_000
    """Ended keyed workflows that are remembered, so that asking again gets the same
    answer; about 300 bytes each in memory."""
    keys_size_max: int = 64 * 1024 * 1024
    """Bytes of their keys and results that are remembered, in memory and in every
    checkpoint; the newest result in any case."""
    keys_age_s_max: float = 24 * 3600
    """Seconds for which they are remembered at most."""
    checkpoint_size: int = 64 * 1024 * 1024
    """Bytes appended between two checkpoints, `CHECKPOINT_SHARE` times the size of one
    at least: bounds what a restart reads."""
    carry_after: int = 4
    """Checkpoints after which a workflow is written again at the head, so that the
    segments behind it may go."""


class Log:
    """One opened partition."""

    def __init__(
        self,
        partition: Partition,
        state: PartitionState,
        clock: Callable[[], int],
        options: LogOptions,
        on_failure: Callable[[JournalError], None],
    ) -> None:
        self.partition = partition
        self.state = state
        self._clock = clock
        self._options = options
        self._on_failure = on_failure
        self.failure: JournalError | None = None
        """Why the partition is dead."""
        self.given_up = False
        """What is unfinished here is somebody else's, or a later `Log`'s."""
        self._commit = GroupCommit(partition, self._fail)
        # It may die of what it does by itself, while nothing is written for hours.
        partition.watch(self._fail)
        self._checkpoint_at = options.checkpoint_size
        self._checkpoint_ends: list[int] = []
        self._checkpointing: asyncio.Task[None] | None = None
        self._checkpoints = True
        """Whether one may be begun: none is under way, and the log is not closing."""
        self._closing = False
        self._closed = False
        self._closing_lock = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        journal: Journal,
        number: int,
        *,
        owner: str,
        clock: Callable[[], int],
        options: LogOptions,
        on_failure: Callable[[JournalError], None],
    ) -> "Log":
        """Claim partition *number* of *journal* and rebuild its state.

        Raises:
            JournalError: It can't be claimed or read; see `ports.Journal.open`.
        """
        partition = await journal.open(number, owner=owner, at=clock())
        try:
            state = await _recover(partition, options)
        except BaseException:
            await partition.aclose()
            raise
        return cls(partition, state, clock, options, on_failure)

    def append(self, record: Record) -> Durable:
        """Apply *record* and put it at the end; what is returned is done when durable.

        Raises:
            EncodeError: It is too large; nothing was appended.
            InvalidRecordError: It can't follow; nothing was appended.
            JournalError: The partition is dead.
        """
        commit = self._commit
        # What can't be written must not change the state; what can't follow must not be
        # written, or no process could open the journal any more. So the first two may
        # raise, the third does not, and nobody else gets control in between.
        if commit.failure is not None:
            raise commit.failure
        data = encode_record(record)
        self.state.apply(commit.next, record)
        durable = commit.put(data)
        if commit.size >= self._checkpoint_at and self._checkpoints:
            self._checkpoint_at = commit.size + self._options.checkpoint_size
            self._checkpoints = False
            loop = asyncio.get_running_loop()
            self._checkpointing = loop.create_task(self._checkpoint_quietly())
        return durable

    def accept(self, record: Accepted) -> tuple[WorkflowState, Durable]:
        """Append a new workflow.

        Raises:
            EncodeError: It is too large; nothing was appended.
            JournalError: The partition is dead.
        """
        position = self._commit.next
        durable = self.append(record)
        return self.state.workflows[position], durable

    @property
    def next(self) -> int:
        """The position that the next record gets."""
        return self._commit.next

    async def flush(self) -> None:
        """Return once everything appended so far is durable.

        Raises:
            JournalError: It will never be.
        """
        await self._commit.flush()

    def stop_waiting(self) -> None:
        """Wait no longer for space on a full disk; see `GroupCommit.stop_waiting`."""
        self._commit.stop_waiting()

    async def checkpoint(self) -> None:
        """Write down where recovery may start, and let go of what lies before.

        Raises:
            JournalError: The partition is dead, or has no space for it.
        """
        commit, state = self._commit, self.state
        self._carry_old_workflows()
        end = Position(commit.next)
        low, data = state.encode_checkpoint(end)
        self._checkpoint_at = max(
            self._checkpoint_at, commit.size + CHECKPOINT_SHARE * len(data)
        )
        await commit.flush()
        await self.partition.save_checkpoint(low, data)
        self._checkpoint_ends.append(end)
        await self.partition.trim(low)

    def _carry_old_workflows(self) -> None:
        """Write workflows again at the head when the oldest one pins a long tail."""
        ends = self._checkpoint_ends
        low = self.state.low(Position(self._commit.next))
        while ends and ends[0] <= low:
            ends.pop(0)
        if len(ends) >= self._options.carry_after:
            now = self._clock()
            for workflow in list(self.state.older_than(ends[-1])):
                sometimes("workflow carried")
                try:
                    self.append(workflow.carry(now))
                except EncodeError as error:
                    sometimes("workflow too large to be carried")
                    # Its records fit one by one, and are kept as long as it runs.
                    _LOGGER.warning(
                        "workflow %s keeps old segments: %s", workflow.id, error
                    )
            # One that could not be carried pins the tail on. Without this, every
            # checkpoint from now on would write all the others again.
            ends.clear()

    async def _checkpoint_quietly(self) -> None:
        try:
            await self.checkpoint()
        except JournalFullError as error:
            sometimes("checkpoint put off")
            _LOGGER.warning(
                "no checkpoint of partition %d: %s", self.state.number, error
            )
        except JournalClosedError:
            pass  # nobody waits for space any more; `aclose` says what it could not do
        except JournalError as error:
            self._fail(error)
        finally:
            self._checkpointing = None
            self._checkpoints = not self._closing

    def _fail(self, error: JournalError) -> None:
        """Tell that the partition is dead: once, though both its writers find out."""
        if self.failure is None:
            self.failure = error
            self._on_failure(error)

    async def aclose(self) -> None:
        """Flush, take a checkpoint if that can be done, give the partition up.

        May be called twice, also at once: each call returns when it is closed.
        """
        self._closing = True
        self._checkpoints = False
        async with self._closing_lock:
            await self._close()

    async def _close(self) -> None:
        if self._closed:
            return
        try:
            if self._checkpointing is not None:
                await asyncio.wait({self._checkpointing})
            await self.checkpoint()
        except JournalError as error:
            sometimes("closed without a checkpoint")
            # What is acknowledged is in the journal; recovery only reads more of it.
            _LOGGER.warning(
                "closed partition %d without a checkpoint: %s", self.state.number, error
            )
        finally:
            await self._commit.aclose()
            await self.partition.aclose()
        self._closed = True


async def _recover(partition: Partition, options: LogOptions) -> PartitionState:
    """Fold what the journal holds.

    Raises:
        JournalError: It can't be read, or makes no sense.
    """
    data = await partition.load_checkpoint()
    what = "its checkpoint"
    try:
        checkpoint = NO_CHECKPOINT if data is None else decode_checkpoint(data)
        low = checkpoint.low
        state = PartitionState(
            partition.number,
            low=low,
            ended=checkpoint.ended,
            ended_before=checkpoint.end,
            ended_max=options.keys_max,
            ended_size_max=options.keys_size_max,
            ended_age_us_max=int(options.keys_age_s_max * 1_000_000),
            lease_ms=checkpoint.lease_ms,
        )
        async for batch in partition.read(low):
            what = f"the batch from position {batch.first}"
            for position, record in batch.records():
                # The batch that holds `low` may begin before it.
                if position >= low:
                    state.apply(position, record)
    except (DecodeError, InvalidRecordError) as error:
        raise JournalDamagedError(
            f"partition {partition.number}",
            0,
            f"{what} is intact and makes no sense: {error}",
        ) from error
    return state
