"""Every crash state of a recorded run, rebuilt and recovered (as ALICE does, OSDI '14).

    whole:W:PART      the scripted run
    killed:W:PART     a run is killed at a drawn call; then the life that recovers it,
                      with what the first one had not flushed still in the air

Each system call of a run is recorded where the journal makes it. Behind each of them,
the disk is rebuilt as a power cut may leave it (`recording.Model`): of what was not
flushed nothing, everything, or any part, by sectors; of the names that were not synced,
likewise. W is the workload, another seed of the scheduler's and of the drawn kill;
PART says which share of its calls.

**What it proves.** What was acknowledged when the power went, in whichever of these
states, is there; a start goes on from each; and a power cut within that start, at a
drawn call of it, changes nothing about that. A real power cut gives a few of these
states per second, and never those that today's file system does not happen to leave.

**How it judges.** From each state a coordinator is started, on a model disk that holds
these files, in virtual time. The services know what they knew at that moment. It is
asked again for everything that clients had asked for by then, and closed; then the
power is cut again, and only what is durable stays. The history checker reads what is
left, with what clients had been told by then. One state in `CUTS_EVERY` has its
recovery cut off first. Equal states are recovered once.
"""

import asyncio
import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.journals.disk import Data, Disk, Names, PowerCut, cut_at
from tests.torture.checker import check
from tests.torture.evidence import Evidence, read_journal
from tests.torture.harness import Harness, Result, spread
from tests.torture.history import Event, Notes, read_history
from tests.torture.ledger import Effect, Known, Ledger, read_ledger
from tests.torture.recording import Model, Recorder, State, Survives, read_recording
from tests.torture.sagas import LocalService, Services, make_order
from tests.torture.script import (
    DONE,
    HEALED,
    Life,
    Place,
    asked_for,
    coordinator_of,
    heal,
    in_child,
    open_journal,
    order_all,
    script,
)

from coordinator.testing.loop import Life as LoopLife
from coordinator.testing.loop import SimulatedLoop

__all__ = ["HARNESS"]

PARTS = 8
CHOICES: tuple[tuple[Survives, Survives], ...] = (
    (Survives.NONE, Survives.NONE),
    (Survives.ALL, Survives.NONE),
    (Survives.NONE, Survives.ALL),
    *itertools.repeat((Survives.SOME, Survives.FIRST), 8),
    *itertools.repeat((Survives.FIRST, Survives.SOME), 4),
    *itertools.repeat((Survives.SOME, Survives.SOME), 8),
)
CUTS_EVERY = 5


@dataclass(frozen=True)
class Moment:
    """What there was when the power went."""

    state: State
    events: list[Event]
    keys: list[Known]
    world: list[Effect]


def _cases(count: int, _seed: int) -> Iterable[str]:
    workloads = [
        f"{kind}:{number}:{part}"
        for number in range(max(1, -(-count // (2 * PARTS))))
        for kind in ("whole", "killed")
        for part in range(PARTS)
    ]
    return spread(workloads, count)


def _run(case: str, seed: int, folder: Path) -> Result:
    kind, workload, part = case.split(":")
    place = Place(folder)
    chance = random.Random(f"{seed}/{kind}/{workload}")
    record = folder / "recording"
    dies_at = chance.randrange(40, 500) if kind == "killed" else None
    place.journal.mkdir()
    code = in_child(place, script, Life(Recorder(record, place.journal, dies_at)))
    if kind == "killed":
        code = in_child(place, heal, Life(Recorder(record, place.journal)))
    if code != DONE:
        return Result([f"the run ended with {code}:\n{place.log.read_text()}"])
    result = Result(count=0)
    seen: set[bytes] = set()
    for index, moment in enumerate(
        _moments(place, record, int(part), f"{seed}/{case}")
    ):
        result.facts["states rebuilt"] += 1
        digest = _digest(moment)
        if digest in seen:
            continue
        seen.add(digest)
        result.count += 1
        dice = random.Random(f"{seed}/{case}/{index}")
        violations = _recover(moment, dice, index % CUTS_EVERY == 0, result.facts)
        if violations:
            result.violations += [f"state {index}: {said}" for said in violations]
            break
    return result


def _moments(place: Place, record: Path, part: int, seed: str) -> Iterator[Moment]:
    """Yield what a crash may leave, behind each call of one part of a recording."""
    operations = list(read_recording(record))
    events = list(read_history(place.history))
    keys, world = read_ledger(place.ledger)
    ours = range(len(operations) * part // PARTS, len(operations) * (part + 1) // PARTS)
    model = Model()
    chance = random.Random(seed)
    for number, operation in enumerate(operations):
        model.take(operation)
        if number not in ours:
            continue
        later = operations[number + 1 : number + 2]
        now = later[0].at if later else events[-1].time + 1
        known = (
            [event for event in events if event.time < now],
            [key for key in keys if key.at < now],
            [effect for effect in world if effect.at < now],
        )
        for data, names in CHOICES if model.pending() else CHOICES[:1]:
            yield Moment(model.crash(data, names, chance), *known)


def _digest(moment: Moment) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for path, data in moment.state.items():
        digest.update(f"{path} {-1 if data is None else len(data)} ".encode())
        digest.update(data or b"")
    # The same files are another state for whoever was told more by then.
    digest.update(f"{len(moment.events)} {len(moment.keys)}".encode())
    return digest.digest()


def disk_of(state: State) -> Disk:
    """Return a model disk that holds *state*, durably."""
    disk = Disk()
    files: dict[str, dict[str, bytes]] = {"": {}}
    for path, data in state.items():
        parent, _, name = path.rpartition("/")
        if data is None:
            files[path] = {}
            disk.folder(f"/journal/{parent}".rstrip("/")).make_folder(name)
        else:
            files[parent][name] = data
    for path, content in files.items():
        disk.folder(f"/journal/{path}".rstrip("/")).put_back(content)
    return disk


def _recover(
    moment: Moment, chance: random.Random, cuts: bool, facts: Counter[str]
) -> list[str]:
    disk = disk_of(moment.state)
    notes = Notes("healer")
    notes.events = list(moment.events)
    ledger = Ledger(":memory:")
    ledger.put_back(moment.keys, moment.world)
    try:
        if cuts:
            disk.fault = cut_at(disk.calls + chance.randrange(400))
            if not _live(disk, notes, ledger, chance):
                facts["cut off while they recovered"] += 1
            disk.cut_power(chance.choice(list(Data)), chance.choice(list(Names)))
        assert _live(disk, notes, ledger, chance)
        disk.cut_power(Data.NONE, Names.NONE)
        keys, world = ledger.read()
        journal = read_journal(_merged(disk).folder())
        return check(Evidence(notes.events, keys, world, journal))
    except Exception as error:  # noqa: BLE001 -- whatever ends a recovery is a finding
        return [f"{type(error).__name__}: {error}"]
    finally:
        ledger.close()


def _live(disk: Disk, notes: Notes, ledger: Ledger, chance: random.Random) -> bool:
    """Start from what is on *disk*, have all done, and close; False: the power went."""
    loop = SimulatedLoop(chance, LoopLife(1))
    services = Services(lambda name: LocalService(name, ledger))
    orders = [*asked_for(notes.events), make_order(HEALED)]

    async def main() -> None:
        journal = await open_journal(disk.folder(), partitions=None)
        try:
            async with coordinator_of(journal, services) as coordinator:
                await order_all(coordinator, orders, notes)
        finally:
            await journal.aclose()

    asyncio.set_event_loop(None)
    try:
        loop.run_until_complete(main())
    except PowerCut:
        return False
    else:
        return True
    finally:
        loop.bury()


def _merged(disk: Disk) -> Disk:
    """Return a disk whose journal has all segments, archived ones too."""
    journal = disk.folder()
    both = Disk()
    both.folder().put_back({"journal.json": bytes(journal.bytes_of("journal.json"))})
    for name in journal.names():
        if name.startswith("p"):
            both.folder().make_folder(name)
            files = disk.folder(f"/journal/{name}").copy_of()
            archive = disk.folder("/journal/archive")
            for id_ in archive.names():
                files = disk.folder(f"/journal/archive/{id_}/{name}").copy_of() | files
            both.folder(f"/journal/{name}").put_back(files)
    return both


HARNESS = Harness("states", "distinct states recovered", _cases, _run, 240, 2)
