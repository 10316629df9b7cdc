"""Who waits for workflows of partitions that were lost, until one is held again.

What is not known to be durable when a partition dies may have landed or not; whoever
opens it next reads which. So nobody is told anything before that:

    unfinished there                     waits for that, as if nothing had been
    not there, ended by us               it ended as we knew: what we wrote has landed
    not there, never durable, by us      it has not landed: offered again
    not there, and it has a key          offered again: found by its key, or new
    not there, and another was between   nobody knows: told so

"By us" is: no other epoch lies between ours and the one under which it is held again.
"""

from collections.abc import Callable, Iterable

import msgspec

from coordinator.errors import JournalError
from coordinator.log import Log
from coordinator.model import WorkflowId
from coordinator.rare import sometimes
from coordinator.records import Accepted
from coordinator.runs import Caller, Outcome, Run, Submission, refuse, tell

__all__ = ["Orphan", "Orphans"]


class Orphan(msgspec.Struct, frozen=True):
    """A workflow whose partition was lost, and who waits for it."""

    id: WorkflowId
    accepted: Accepted
    durable: bool
    """`accepted` is."""
    stuck: bool
    """The callers were told so."""
    ended: Outcome | None
    """How it ended, if that was written last, and may have landed."""
    callers: tuple[Caller, ...]

    @property
    def submission(self) -> Submission:
        """What was offered."""
        accepted = self.accepted
        return Submission(
            accepted.type,
            accepted.codec,
            accepted.payload,
            accepted.key,
            accepted.trace,
        )


class _Lost(msgspec.Struct, frozen=True):
    epoch: int
    error: JournalError
    orphans: tuple[Orphan, ...]


class Orphans:
    """Those of all lost partitions."""

    def __init__(
        self,
        runs: dict[WorkflowId, Run],
        offer: Callable[[Submission, Caller], object],
    ) -> None:
        """Begin with none.

        Args:
            runs: The unfinished workflows of the partitions that are held.
            offer: Takes a command in.
        """
        self._runs = runs
        self._offer = offer
        self._lost: dict[int, list[_Lost]] = {}

    def take(self, log: Log, runs: Iterable[Run], error: JournalError) -> None:
        """Take the callers of *runs*, those of *log*, which was lost to *error*."""
        orphans: list[Orphan] = []
        for run in runs:
            run.forget_gone()
            callers, run.callers = run.callers, ()
            if callers:
                state = run.state
                orphan = Orphan(
                    state.id,
                    state.accepted,
                    run.durable,
                    state.stuck is not None and run.task is None,
                    None if state.finished is None else run.outcome(),
                    callers,
                )
                orphans.append(orphan)
        if orphans:
            lost = _Lost(log.partition.epoch, error, tuple(orphans))
            self._lost.setdefault(log.state.number, []).append(lost)

    def give_back(self, log: Log) -> None:
        """Have everyone hear on who waits for what was in *log*, held again."""
        for lost in self._lost.pop(log.state.number, ()):
            ours = log.partition.epoch == lost.epoch + 1
            for orphan in lost.orphans:
                self._settle(orphan, lost.error, ours=ours)

    def refuse(self, error: JournalError) -> None:
        """Tell all that nobody will ever know here."""
        for number in list(self._lost):
            for lost in self._lost.pop(number):
                for orphan in lost.orphans:
                    refuse(orphan.callers, error)

    def _settle(self, orphan: Orphan, error: JournalError, *, ours: bool) -> None:
        run = self._runs.get(orphan.id)
        if run is not None and run.state.accepted == orphan.accepted:
            for caller in orphan.callers:
                self._join(run, orphan, caller)
        elif ours and orphan.ended is not None:
            sometimes("orphan told of the end that landed")
            for caller in orphan.callers:
                tell(caller.ended, orphan.ended)
        elif orphan.accepted.key or (ours and not orphan.durable):
            sometimes("orphan offered again")
            for caller in orphan.callers:
                self._offer(orphan.submission, caller)
        else:
            sometimes("orphan of which nobody knows")
            refuse(orphan.callers, error)

    @staticmethod
    def _join(run: Run, orphan: Orphan, caller: Caller) -> None:
        sometimes("orphan goes on")
        run.callers = (*run.callers, caller)
        if not orphan.durable:
            tell(caller.accepted, run.state.id)
        if run.state.stuck is not None and not orphan.stuck:
            tell(caller.ended, run.outcome())
