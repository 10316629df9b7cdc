"""What a run left behind: the journal, the ledgers, the answers. Only read, not judged.

Each is read for itself, with no help from the engine: the records as they lie in the
segments, the rows as they lie in the databases. What they should say is `audit`'s.
"""

import itertools
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from examples.demo.client import Answer, make_orders, read_answers
from examples.demo.driver import SERVICES, Options
from examples.shop.orders import PlaceOrder

from coordinator.api.cmdstream import read_json_payload
from coordinator.errors import CoordinatorError
from coordinator.journals.segments import inspect
from coordinator.journals.segments.posix import PosixFolder
from coordinator.model import Direction, OutcomeStatus, format_workflow_id
from coordinator.records import (
    Accepted,
    Claimed,
    Finished,
    Outcome,
    PartitionRecord,
    WorkflowRecord,
)


@dataclass(frozen=True)
class Effect:
    """An idempotency key that a service knows, and what it decided under it."""

    key: str
    status: str


@dataclass(frozen=True)
class Change:
    """Something that really happened in the world."""

    service: str
    id: int
    operation: str
    order_id: str
    delta: int
    undoes: int | None


@dataclass
class Ledger:
    """One service's book."""

    effects: list[Effect]
    world: list[Change]
    calls: dict[str, int]
    """How many calls got which answer; ``lost``: those whose reply was thrown away."""


@dataclass
class Story:
    """One workflow, as the journal has it."""

    id: str
    order: PlaceOrder
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    """In the order of the journal."""
    ends: list[Finished] = field(default_factory=list[Finished])
    entries: list[inspect.Entry] = field(default_factory=list[inspect.Entry])
    """All records about it."""

    @property
    def finished(self) -> Finished | None:
        """How it ended first; None if it did not."""
        return self.ends[0] if self.ends else None

    def steps(self, direction: Direction) -> list[tuple[str, int]]:
        """Return what was done, or undone, in order."""
        return [
            (outcome.step, outcome.occurrence)
            for outcome in self.outcomes
            if outcome.direction is direction and outcome.status is OutcomeStatus.DONE
        ]


@dataclass
class Journal:
    """The journal's folder."""

    id: str
    stories: list[Story]
    longest_pause_s: float
    """Between two orders that were taken in."""
    in_flight_at_claims: list[int]
    """Per process that took it over: how many workflows it found unfinished."""
    batches: int
    records: int
    size: int
    """Bytes."""
    problems: list[str]
    """Damage that reading every segment found."""


@dataclass
class Evidence:
    """All of it."""

    options: Options
    orders: dict[str, PlaceOrder]
    answers: list[Answer]
    journal: Journal
    ledgers: dict[str, Ledger]


def read_evidence(folder: Path) -> Evidence:
    """Read what a run left in *folder*."""
    options = msgspec.json.decode((folder / "demo.json").read_bytes(), type=Options)
    return Evidence(
        options=options,
        orders={o.order_id: o for o in make_orders(options.orders, options.seed)},
        answers=list(read_answers(folder / "answers.jsonl")),
        journal=read_journal(folder / "journal"),
        ledgers={
            name: read_ledger(name, folder / f"{name}.sqlite") for name in SERVICES
        },
    )


def read_ledger(service: str, path: Path) -> Ledger:
    """Read a service's book, without changing it."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        effects = database.execute("SELECT key, status FROM effects")
        world = database.execute(
            "SELECT id, operation, subject, delta, undoes FROM world ORDER BY id"
        )
        calls = database.execute("SELECT answer, count(*) FROM calls GROUP BY 1")
        lost = database.execute("SELECT 'lost', count(*) FROM calls WHERE lost")
        return Ledger(
            effects=[Effect(*row) for row in effects],
            world=[Change(service, *row) for row in world],
            calls=dict([*calls, *lost]),
        )


def read_journal(path: Path) -> Journal:
    """Read and verify the journal's folder, without changing it."""
    folder = PosixFolder.make(str(path))
    reports = inspect.verify(folder)
    stories: dict[tuple[int, int], Story] = {}
    in_flight_at_claims: list[int] = []
    problems = [
        f"{problem.path} at byte {problem.offset}: {problem.problem}"
        for report in reports
        for problem in (*report.problems, *([report.torn] if report.torn else []))
    ]
    try:
        for entry in inspect.dump(folder):
            if isinstance(entry.record, Claimed):
                unfinished = sum(story.finished is None for story in stories.values())
                in_flight_at_claims.append(unfinished)
            elif not isinstance(entry.record, PartitionRecord):
                tell(stories, entry, entry.record)
    except CoordinatorError as error:  # Damage: what lies before it was told.
        problems.append(str(error))
    accepted_at = [story.entries[0].record.at for story in stories.values()]
    pauses = (later - at for at, later in itertools.pairwise(sorted(accepted_at)))
    segments = [segment for report in reports for segment in report.segments]
    return Journal(
        id=inspect.info(folder).id,
        stories=list(stories.values()),
        longest_pause_s=max(pauses, default=0) / 1e6,
        in_flight_at_claims=in_flight_at_claims,
        batches=sum(segment.batches for segment in segments),
        records=sum(segment.records for segment in segments),
        size=sum(segment.size for segment in segments),
        problems=problems,
    )


def tell(
    stories: dict[tuple[int, int], Story],
    entry: inspect.Entry,
    record: Accepted | WorkflowRecord,
) -> None:
    """Add a record to the story that it is about."""
    if isinstance(record, Accepted):
        order: PlaceOrder = read_json_payload(record.payload, PlaceOrder)
        id_ = format_workflow_id(entry.partition, entry.position)
        stories[entry.partition, entry.position] = Story(id_, order, entries=[entry])
        return
    story = stories[entry.partition, record.workflow]
    story.entries.append(entry)
    if isinstance(record, Outcome):
        story.outcomes.append(record)
    elif isinstance(record, Finished):
        story.ends.append(record)
