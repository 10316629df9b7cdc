"""Where commands come in: at once, when there is room, or as one that is here already.

    offer --> [an equal key is here: attach] --> [waits at the door] --> let in

Who may come in is `admission`'s; the order in which the others wait is `door`'s.
"""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet

from coordinator.admission import Admission
from coordinator.commit import Durable
from coordinator.door import Door
from coordinator.errors import EncodeError, JournalError, NotAcceptedError
from coordinator.log import Log
from coordinator.logs import ANY, Logs
from coordinator.model import WorkflowId, format_workflow_id
from coordinator.pace import Pace
from coordinator.rare import sometimes
from coordinator.records import Accepted
from coordinator.runs import Caller, Outcome, Run, Submission, refuse, tell
from coordinator.state import WorkflowState

__all__ = ["Entrance", "LetIn"]

LetIn = Callable[[Log, WorkflowState, Submission, tuple[Caller, ...], Durable], Run]
"""Has the engine run what was let in; the last is done once it is durable."""

_Kind = tuple[str, bool, int | None]
"""A command's type, whether a step offers it, and the partition that it waits for."""
_NONE_HELD = "no partition of the journal is held at present"
_FULL_OF_NESTED = (
    "{0.count} commands are in memory, twice as many as may come in by themselves "
    "(commands_max is {0.commands_max}): commands that wait in a step for commands of "
    "their own hold their places meanwhile; raise Options.commands_max, or let such a "
    "step `submit` without waiting for the result"
)


class Entrance:
    """The commands that are offered to one engine."""

    def __init__(
        self,
        runs: Mapping[WorkflowId, Run],
        admission: Admission,
        services_of: Callable[[str], AbstractSet[str] | None],
        now: Callable[[], int],
        let_in: LetIn,
    ) -> None:
        """Open with nobody waiting.

        Args:
            runs: The unfinished workflows; changes under our hands.
            admission: Knows who may come in.
            services_of: What a type of command needs.
            now: Microseconds since 1970.
            let_in: Called for each command that comes in.
        """
        self.closing = ""
        """Why nothing will come in any more; empty if something may."""
        self.failure: JournalError | None = None
        """Why the journal is dead."""
        self.on_door: Callable[[], None] = lambda: None
        """Called when the doors may have opened or closed; see `closed`."""
        self._runs = runs
        self._admission = admission
        self._services_of = services_of
        self._now = now
        self._let_in = let_in
        self._pace = Pace()
        self._logs: Logs | None = None
        self._time: Callable[[], float] = lambda: 0.0
        self._door: Door[_Kind, Submission, Caller] = Door()

    def open(self, logs: Logs, time: Callable[[], float]) -> None:
        """Begin: nothing may be offered before.

        Args:
            logs: Where commands go.
            time: Seconds, to see how long they take to be durable.
        """
        self._logs, self._time = logs, time

    def offer(self, submission: Submission, caller: Caller) -> bool:
        """Take a command in: at once, or when there is room for it.

        An equal key attaches to the workflow that has it, whatever the doors are. The
        caller hears of everything else.

        Returns:
            Whether it waits at the door; if its caller goes away, `withdraw` it.
        """
        if self.closing:
            refuse([caller], self.failure or NotAcceptedError(self.closing))
        elif not (submission.key and self._attach(submission, caller)):
            admission = self._admission
            kind = self._kind_of(submission)
            if submission.nested and admission.count >= admission.nested_max:
                refuse([caller], NotAcceptedError(_FULL_OF_NESTED.format(admission)))
            elif self._closed_to(kind):
                self._wait(submission, (caller,))
                return True
            else:
                self._accept(submission, (caller,))
        return False

    def let_in_again(self, submission: Submission, caller: Caller) -> None:
        """Take in what had come in before its partition was lost, whatever the doors.

        It may have landed all the same: an equal key attaches.
        """
        if not (submission.key and self._attach(submission, caller)):
            self._accept(submission, (caller,))

    def withdraw(self, caller: Caller) -> bool:
        """Take *caller* away from the door, and its command if nobody else wants it.

        Returns:
            Whether it was there, so that it will not be told of anything.
        """
        left = self._door.leave(caller)
        if left:
            self.on_door()
        return left

    @property
    def waiting(self) -> int:
        """How many commands wait at the door."""
        return self._door.count

    def is_open(self) -> bool:
        """Say whether some command may come in now; if not, `closed` may say why.

        Asked for each command: what `closed` looks at, in one go.
        """
        commands_max = self._admission.commands_max
        return (
            ANY in self._held
            and self._admission.count < commands_max
            and self._door.count < commands_max
            and not self.closing
            and (self._pace.may_enter() or self._full)
        )

    @property
    def closed(self) -> str:
        """Why no command comes in at present; empty if some may."""
        return (
            self.closing
            or ("" if ANY in self._held else _NONE_HELD)
            or self._admission.closed_to_all
            or (
                "commands that may not come in yet fill the door"
                if self._door.count >= self._admission.commands_max
                else ""
            )
        )

    @property
    def busy(self) -> str:
        """Why new commands wait for their turn, if they do; empty if they don't."""
        pace = self._pace
        if not (pace.holds_back and pace.coming):
            return ""
        return (
            f"at most {int(pace.allowed)} come in at a time: it takes "
            f"{1e3 * pace.lag_s:.1f} ms until one is durable, and "
            f"{1e3 * pace.usual_s:.1f} ms where there is little to do"
        )

    def look(self) -> None:
        """Let in who may come in now, in the order they came."""
        if self.closing:
            return
        while self._door.count and (
            entry := self._door.pop(lambda kind: not self._closed_to(kind))
        ):
            submission, callers = entry
            callers = tuple(caller for caller in callers if not caller.gone)
            # Another of the same key may have come in before it.
            if submission.key and callers and self._attach(submission, callers[0]):
                for caller in callers[1:]:
                    self._attach(submission, caller)
            elif callers:
                self._accept(submission, callers)
        self.on_door()

    def close(self, reason: str) -> None:
        """Let nothing in any more; those at the door are told *reason*."""
        self.closing = self.closing or reason
        while (entry := self._door.pop(lambda _: True)) is not None:
            refuse(entry[1], NotAcceptedError(self.closing))
        self.on_door()

    def _kind_of(self, submission: Submission) -> _Kind:
        number = self._held.partition_of(submission.key)
        absent = None if number in self._held else number
        return submission.type, submission.nested, absent

    def _closed_to(self, kind: _Kind) -> bool:
        type_, nested, absent = kind
        if absent is not None and absent not in self._held:
            return True
        admission = self._admission
        # Where all may come in, nobody needs to know what this one needs.
        if (
            admission.suspensions or admission.count >= admission.commands_max
        ) and admission.closed_to(self._services_of(type_), nested=nested):
            return True
        # What is let in comes first, and a step of it is a part of that.
        return not (nested or self._pace.may_enter() or self._full)

    @property
    def _full(self) -> bool:
        # Who comes to a full disk is refused at once, not kept waiting with those who
        # came before.
        return any(log.partition.full for log in self._held)

    @property
    def _held(self) -> Logs:
        assert self._logs is not None
        return self._logs

    def came_in(self, run: Run) -> None:
        """Note that *run*, which was let in, is durable."""
        records = run.log.next - run.state.position
        if self._pace.durable(run, self._time(), records):
            self.look()

    def lost(self, run: Run) -> None:
        """Note that *run*, which was let in, will not be durable: its log was lost."""
        self._pace.lost(run)

    def _attach(self, submission: Submission, caller: Caller) -> bool:
        if (located := self._held.find(submission.type, submission.key)) is None:
            return False
        log, found = located
        id_ = format_workflow_id(log.state.number, found.position)
        if (run := self._runs.get(id_)) is not None:
            # Perhaps it has ended, but that is not durable yet: told when it is.
            run.join(caller)
        else:
            assert not isinstance(found, WorkflowState)
            tell(caller.accepted, id_)
            tell(caller.ended, Outcome(id_, found.type, found.status, found.value))
        return True

    def _wait(self, submission: Submission, callers: Iterable[Caller]) -> None:
        kind = self._kind_of(submission)
        for caller in callers:
            self._door.push(kind, submission.key, submission, caller)
        self.on_door()

    def _accept(self, submission: Submission, callers: tuple[Caller, ...]) -> None:
        log = self._held.choose(submission.key)
        if log is None:
            sometimes("partition lost while a command waited at the door")
            self._wait(submission, callers)
            return
        if full := log.partition.full:
            refuse(callers, NotAcceptedError(f"no new command is taken: {full}"))
            return
        accepted = Accepted(
            submission.type,
            submission.codec,
            submission.payload,
            self._now(),
            submission.key,
            submission.trace,
        )
        try:
            state, durable = log.accept(accepted)
        except (EncodeError, JournalError) as error:
            refuse(callers, error)
            return
        run = self._let_in(log, state, submission, callers, durable)
        self._pace.let_in(run, self._time())
