"""Several instances on one journal, in virtual time, with everything going wrong.

The core decides, as it will in the product; what is simulated is around it: clocks of
different rates, messages that are late or lost, processes that are killed or frozen,
links and brokers that can't be reached. `broker` is the journal, `node` an instance.

On each partition its owner runs one saga after the other: so many steps, and many of
them turn back. A call may end unknown, and is made again then. The ledger of all calls
is what `violations` judges.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

from tests.cluster.broker import UNCERTAIN, Answer, Call, Claim, Log
from tests.cluster.node import Node, Seat

from coordinator.cluster.timing import TIMING, Timing

REPLY_S = 5.0
"""How long an answer of the broker is waited for."""


class World:
    """The machines, the network between them, and true time."""

    def __init__(
        self,
        seed: int,
        *,
        instances: int = 3,
        partitions: int = 4,
        timing: Timing = TIMING,
        drift: float | None = None,
        loss: float = 0.05,
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.timing = timing
        self.drift = 0.9 * timing.drift_max if drift is None else drift
        self.loss = loss
        self.now = 0.0
        self.logs = [Log() for _ in range(partitions)]
        self.ledger: list[Call] = []
        self.claims: list[Claim] = []
        self.taken: list[Claim] = []
        """Those of what somebody had who was there."""
        self.broken: list[str] = []
        """What was seen to be wrong as it happened."""
        self.board: dict[str, bytes] = {}
        self.blocked: set[frozenset[str]] = set()
        self.cut_off: set[str] = set()
        self.nodes: dict[str, Node] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._names = itertools.count()
        for _ in range(instances):
            self.start()

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._order), act))

    def run(self, duration_s: float) -> None:
        end = self.now + duration_s
        while self._events and self._events[0][0] <= end:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = end

    def run_until(self, happened: Callable[[], bool], limit_s: float = 100.0) -> float:
        """Run until it has happened; return how many seconds that took."""
        begin = self.now
        while not happened():
            assert self.now < begin + limit_s, "it does not happen"
            self.now, _, act = heapq.heappop(self._events)
            act()
        return self.now - begin

    def start(self) -> "Node":
        node = Node(self, f"i{next(self._names)}")
        self.nodes[node.name] = node
        node.begin()
        return node

    def up(self) -> list["Node"]:
        return [node for node in self.nodes.values() if not node.dead]

    def linked(self, a: str, b: str) -> bool:
        return frozenset((a, b)) not in self.blocked

    def small(self) -> float:
        return self.random.uniform(0.001, 0.02)

    # -- what goes wrong -------------------------------------------------------------

    def kill(self, node: "Node") -> None:
        node.dead = True
        for other in self.up():
            if self.linked(node.name, other.name):
                self.at(self.small(), partial(other.do, other.refused, node.name))

    def freeze(self, node: "Node", duration_s: float) -> None:
        node.frozen = True
        self.at(duration_s, node.thaw)

    def split(self, a: "Node", b: "Node") -> None:
        self.blocked.add(frozenset((a.name, b.name)))

    def reset(self, a: "Node", b: "Node") -> None:
        """Something between the two closes their connection and refuses new ones."""
        self.split(a, b)
        for one, other in ((a, b), (b, a)):
            self.at(self.small(), partial(one.do, one.refused, other.name))

    def isolate(self, node: "Node", frozen_s: float) -> None:
        """Cut a node off from all at once; the others are told that it is gone."""
        if frozen_s:
            self.freeze(node, frozen_s)
        self.cut_off.add(node.name)
        for other in self.up():
            if other is not node:
                self.reset(node, other)

    def disturb(self, duration_s: float) -> None:
        """Let things go wrong at random, then heal everything."""
        end = self.now + duration_s
        while self.now < end:
            self.run(self.random.expovariate(1 / 6))
            up = self.up() or [self.start()]
            if len(up) < 6 and self.random.random() < 0.2:
                self.start()
            elif len(up) > 1:
                self._disturb(*self.random.sample(up, 2))
        self.heal()
        self.loss = 0.0

    def _disturb(self, node: "Node", other: "Node") -> None:
        frozen_s = self.random.uniform(0.5, 40)
        kinds: list[Callable[[], None]] = [
            partial(self.kill, node),
            node.stop,
            partial(self.freeze, node, frozen_s),
            partial(self.split, node, other),
            partial(self.reset, node, other),
            partial(self.cut_off.add, node.name),
            partial(self.isolate, node, 0.0),
            partial(self.isolate, node, frozen_s / 2),
            self.heal,
        ]
        self.random.choice(kinds)()

    def heal(self) -> None:
        for pair in self.blocked:
            nodes = [self.nodes[name] for name in sorted(pair)]
            if any(node.dead for node in nodes):
                for node in nodes:
                    for other in nodes:
                        if other.dead and not node.dead:
                            node.do(node.refused, other.name)
                continue
            for one, other in (nodes, reversed(nodes)):
                one.do(one.members.connected, other.name)
        self.blocked.clear()
        self.cut_off.clear()
        for node in self.up():
            if node.frozen:
                node.thaw()

    # -- the journal -----------------------------------------------------------------

    def request(
        self,
        node: "Node",
        serve: Callable[[], Answer],
        reply: Callable[[Answer], None],
    ) -> None:
        """Have the broker do *serve*; *reply* is called once, maybe in doubt."""
        answered = False

        def give(answer: Answer) -> None:
            nonlocal answered
            if not answered:
                answered = True
                reply(answer)

        def arrive() -> None:
            if node.name in self.cut_off:
                return
            answer = serve()
            if self.random.random() >= self.loss / 5 and node.name not in self.cut_off:
                self.at(self.small(), partial(node.do, give, answer))

        node.after(REPLY_S, partial(give, UNCERTAIN))
        if node.name not in self.cut_off:
            self.at(self.small(), arrive)

    def serve_claim(self, partition: int, seen: int, name: str) -> Answer:
        log = self.logs[partition]
        if log.epoch != seen:
            return Answer("lost", log.epoch, log.owner)
        owner = self.nodes.get(log.owner)
        earlier_s = log.earlier_lease_s
        log.epoch, log.owner = seen + 1, name
        log.earlier_lease_s = self.timing.lease_s
        saga = log.saga
        frontier = None if saga.aborting else (saga.number, saga.done)
        claim = Claim(self.now, partition, log.epoch, name, frontier)
        self.claims.append(claim)
        if owner in self.up() and not owner.frozen and partition in owner.own.holds:
            self.taken.append(claim)
        return Answer("ok", log.epoch, name, earlier_s, replace(saga))

    def serve_append(self, partition: int, epoch: int, entry: str) -> Answer:
        log = self.logs[partition]
        verdict = "ok" if log.append(epoch, entry) else "fenced"
        return Answer(verdict, log.epoch, log.owner)

    def note(self, kind: str, seat: "Seat", saga: int, step: int) -> None:
        """Have a call reach its service."""
        call = Call(self.now, kind, seat.partition, saga, step, seat.epoch)
        self.ledger.append(call)

    # -- judging ---------------------------------------------------------------------

    def violations(self) -> list[str]:
        """Return what must not have happened."""
        found = list(self.broken)
        undone: dict[tuple[int, int, int], Call] = {}
        claims = {(claim.partition, claim.epoch): claim for claim in self.claims}
        for call in sorted(self.ledger):
            what = (call.partition, call.saga, call.step)
            if call.kind == "undo":
                undone.setdefault(what, call)
                continue
            if what in undone:
                found.append(f"{call} after {undone[what]}")
            # A stale owner may repeat what the next one begins with, and no more.
            after = claims.get((call.partition, call.epoch + 1))
            if (
                after is not None
                and after.at < call.at
                and after.frontier != (call.saga, call.step)
            ):
                found.append(f"{call} is not what {after} goes on with")
        return found

    def owners(self, partition: int) -> list[str]:
        return [node.name for node in self.up() if partition in node.own.holds]

    def settled(self) -> str:
        """Say why not all is owned, once each and evenly; empty if it is."""
        counts = [len(node.own.holds) for node in self.up()]
        if max(counts) - min(counts) > 1:
            return f"uneven: {counts}"
        for partition, log in enumerate(self.logs):
            owners = self.owners(partition)
            if owners != [log.owner]:
                return f"partition {partition}: {owners}, the journal says {log.owner}"
        return ""
