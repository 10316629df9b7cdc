"""One simulated instance: the core decides, and here it is done, badly or not.

It runs on a clock of its own. While it is frozen, all that happens to it is kept, and
comes at once when it is thawed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from tests.cluster.broker import UNCERTAIN, Answer, Saga

from coordinator.cluster.decision import Own, decide, wake
from coordinator.cluster.members import Members
from coordinator.cluster.notices import Notice, decode_notice, encode_notice
from coordinator.cluster.tenure import Tenure

if TYPE_CHECKING:
    from tests.cluster.world import World

JOURNAL = "j"
CUT_OFF_S = 0.5
"""How long a call may go on when its partition is released."""


@dataclass(eq=False)
class Seat:
    """One owned partition: its tenure, and the saga that runs on it."""

    partition: int
    epoch: int
    tenure: Tenure
    saga: Saga
    found: int
    """The saga that was under way at the claim."""
    calling: bool = False
    writing: bool = False
    unknown: float = 0.0
    """How likely a call is to end unknown."""
    to: str = ""
    over: bool = False


class Node:
    """One process."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.rate = 1 + world.random.choice((-1, 0, 1)) * world.drift
        self.offset = world.random.uniform(-1e6, 1e6)
        self.dead = False
        self.frozen = False
        self._backlog: list[Callable[[], None]] = []
        self._count = 0
        self._look_at = 0.0
        self._looking = False
        now = self.clock()
        self.own = Own(started_s=now, looked_s=now)
        self.members = Members(name, world.timing)
        self.seats: dict[int, Seat] = {}
        self._takes = True

    def clock(self) -> float:
        return self.offset + self.world.now * self.rate

    def do(self, act: Callable[..., None], *values: object) -> None:
        """Run *act*, now or when we are thawed."""
        if self.frozen and not self.dead:
            self._backlog.append(partial(act, *values))
        elif not self.dead:
            act(*values)

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        self.world.at(max(delay_s, 0.0) / self.rate + 1e-6, partial(self.do, act))

    def thaw(self) -> None:
        self.frozen = False
        backlog, self._backlog = self._backlog, []
        # At worst, a timer comes before all that the others said meanwhile.
        for act in (self._look, *backlog):
            self.do(act)

    # -- others ----------------------------------------------------------------------

    def begin(self) -> None:
        for name, data in self.world.board.items():
            self.hear(data)
            other = self.world.nodes[name]
            if self.world.linked(self.name, name) and other.dead:
                self.after(self.world.small(), partial(self.refused, name))
        self.tell()
        self.look()
        self.keep_telling()

    def keep_telling(self) -> None:
        self.tell()
        self.after(self.world.timing.notice_s, self.keep_telling)

    def tell(self) -> None:
        self._count += 1
        world = self.world
        own = self.own
        data = encode_notice(
            Notice(
                JOURNAL,
                len(world.logs),
                self.name,
                self._count,
                takes=self._takes,
                holds=tuple(own.holds.items()),
                claims=tuple(own.claims),
            )
        )
        for other in world.up():
            if other is not self and world.linked(self.name, other.name):
                world.at(world.small(), partial(other.do, other.hear, data))
        if self.name not in world.cut_off and world.random.random() >= world.loss:
            world.at(world.random.uniform(0.01, 0.5), partial(self._post, data))

    def _post(self, data: bytes) -> None:
        world = self.world
        world.board[self.name] = data
        for other in world.up():
            if other.name not in world.cut_off and world.random.random() >= world.loss:
                world.at(
                    world.random.uniform(0.01, 0.5), partial(other.do, other.hear, data)
                )

    def hear(self, data: bytes) -> None:
        notice = decode_notice(data, journal=JOURNAL, partitions=len(self.world.logs))
        if self.members.hear(notice, self.clock()):
            self.look()

    def refused(self, name: str) -> None:
        self.members.refused(name)
        self.look()

    # -- deciding --------------------------------------------------------------------

    def look(self) -> None:
        """Decide in a turn of its own: what is decided changes what is looked at."""
        if not self._looking:
            self._looking = True
            self.after(0.0, self._look)

    def _look(self) -> None:
        self._looking = False
        now = self.clock()
        wake(self.own, self.members, self.world.timing, now)
        decision = decide(
            self.own,
            self.members,
            partitions=len(self.world.logs),
            timing=self.world.timing,
            now_s=now,
        )
        for partition in decision.drop:
            self.own.claims.discard(partition)
            if partition in self.seats:
                self.give_up(self.seats[partition])
        for partition in decision.claim:
            self.claim(partition)
        for partition, to in decision.release:
            self.release(self.seats[partition], to)
        if decision.claim or decision.drop or decision.takes != self._takes:
            self._takes = decision.takes
            self.tell()
        if self.own.stops and not self.own.holds and not self.own.claims:
            self.world.kill(self)
        until = min(decision.again_s, now + self.world.timing.notice_s)
        if self._look_at <= now or until < self._look_at:
            self._look_at = until
            self.after(until - now, self.look)

    def claim(self, partition: int) -> None:
        self.own.claims.add(partition)
        began_s = self.clock()
        seen = self.world.logs[partition].epoch
        self.world.request(
            self,
            lambda: self.world.serve_claim(partition, seen, self.name),
            lambda answer: self._claimed(partition, began_s, answer),
        )

    def _claimed(self, partition: int, began_s: float, answer: Answer) -> None:
        own, now = self.own, self.clock()
        if answer.verdict == "uncertain":
            self.failed(partition)
        else:
            own.claims.discard(partition)
            own.fails_since_s = None
            if answer.verdict == "ok":
                own.holds[partition] = answer.epoch
                tenure = Tenure(
                    self.world.timing,
                    began_s=began_s,
                    claimed_s=now,
                    earlier_lease_s=answer.earlier_lease_s,
                )
                saga = answer.saga
                seat = Seat(partition, answer.epoch, tenure, saga, saga.number)
                seat.unknown = self.world.random.choice((0.2, 0.98))
                self.seats[partition] = seat
                self.step(seat)
            else:
                self.members.claimed(partition, answer.epoch, answer.owner, now)
        self.tell()
        self.look()

    def failed(self, partition: int) -> None:
        """Nobody knows whether a write landed: claim again, and not at once."""
        own = self.own
        if own.fails_since_s is None:
            own.fails_since_s = self.clock()
            self.probe()
        if self._takes:
            own.claims.add(partition)

            def again() -> None:
                if partition in own.claims:
                    self.claim(partition)

            self.after(0.5, again)

    def probe(self) -> None:
        """Find out when the broker answers again."""

        def answered(answer: Answer) -> None:
            if answer is UNCERTAIN:
                self.after(1.0, self.probe)
            else:
                self.own.fails_since_s = None
                self.look()

        self.world.request(self, lambda: Answer("ok"), answered)

    def stop(self) -> None:
        self.own.stops = True
        self.look()

    def give_up(self, seat: Seat) -> None:
        seat.over = True
        self.own.holds.pop(seat.partition, None)
        self.own.releases.discard(seat.partition)
        self.seats.pop(seat.partition, None)

    def release(self, seat: Seat, to: str) -> None:
        seat.to = to
        self.own.releases.add(seat.partition)
        if seat.calling:
            self.after(CUT_OFF_S, partial(self._let_go, seat))
        else:
            self._let_go(seat)

    def _let_go(self, seat: Seat) -> None:
        if seat.over or seat.writing:
            return
        seat.over = True
        # A release says that nobody acts any more: not us, and nobody before us.
        if seat.calling or not seat.tenure.is_alone(self.clock()):
            self._gone(seat)
        else:
            self.write_release(seat)

    def write_release(self, seat: Seat) -> None:
        if seat.calling:
            self.world.broken.append(f"{seat} is released with a call in flight")
        self.write(seat, "released", partial(self._gone, seat))

    def _gone(self, seat: Seat) -> None:
        self.give_up(seat)
        self.tell()
        self.look()

    # -- acting ----------------------------------------------------------------------

    def write(self, seat: Seat, entry: str, then: Callable[[], None]) -> None:
        began_s = self.clock()
        seat.writing = True

        def replied(answer: Answer) -> None:
            seat.writing = False
            if self.seats.get(seat.partition) is not seat:
                return
            if answer.verdict == "ok":
                self.renew(seat, began_s)
                seat.saga.apply(entry)
                then()
                if seat.to:
                    self._let_go(seat)
                return
            self.give_up(seat)
            if answer.verdict == "fenced":
                now = self.clock()
                self.members.claimed(seat.partition, answer.epoch, answer.owner, now)
            else:
                self.failed(seat.partition)
            self.tell()
            self.look()

        partition, epoch = seat.partition, seat.epoch
        self.world.request(
            self, lambda: self.world.serve_append(partition, epoch, entry), replied
        )

    def renew(self, seat: Seat, began_s: float) -> None:
        seat.tenure.renewed(began_s)

    def step(self, seat: Seat) -> None:
        """Go on with the saga: one call, or one record."""
        if seat.over or seat.to:
            return
        saga, go_on, now = seat.saga, partial(self.step, seat), self.clock()
        plan = Random(f"{self.world.seed}/{seat.partition}/{saga.number}")
        steps = plan.randint(1, 4)
        refused_at = plan.randint(1, 4)
        if saga.aborting and saga.undone < saga.done:
            self.call(seat, "undo", saga.done - 1 - saga.undone, "undone")
        elif saga.aborting or saga.done == steps:
            self.write(seat, "end", go_on)
        elif saga.done < refused_at:
            self.call(seat, "do", saga.done, "done")
        elif saga.number == seat.found and not seat.tenure.is_alone(now):
            self.after(seat.tenure.alone_s - now, go_on)
        else:
            self.write(seat, "abort", go_on)

    def call(self, seat: Seat, kind: str, step: int, outcome: str) -> None:
        world, go_on = self.world, partial(self.step, seat)
        if not seat.tenure.may_start(self.clock()):
            self.write(seat, "held", go_on)
            return
        world.at(world.small(), partial(world.note, kind, seat, seat.saga.number, step))
        seat.calling = True

        def ended() -> None:
            seat.calling = False
            if seat.over:
                return
            if world.random.random() >= seat.unknown:
                self.write(seat, outcome, go_on)
            elif seat.to:
                self._let_go(seat)
            else:
                self.after(world.random.uniform(0.1, 1.0), go_on)  # unknown: again

        self.after(world.random.uniform(0.05, 0.8), ended)
