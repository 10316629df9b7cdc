"""The three witnesses, read side by side: clients, services, journal. Not judged here.

The journal is read record by record, with no help from the engine. Segments that were
trimmed are read from the archive, so that nothing that was ever written is missing.
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.history import Event, read_history
from tests.torture.ledger import Effect, Known, read_ledger

from coordinator.errors import CoordinatorError
from coordinator.journals.segments import inspect
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.posix import PosixFolder
from coordinator.model import format_workflow_id
from coordinator.records import (
    Accepted,
    Claimed,
    Finished,
    Lost,
    Outcome,
    PartitionRecord,
    Record,
    Stuck,
)

__all__ = ["Evidence", "Journal", "Story", "merged", "read_evidence", "read_journal"]


@dataclass
class Story:
    """One workflow, as the journal has it."""

    id: str
    """Position and partition: ``0-17``."""
    accepted: Accepted
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    """In the order of the journal."""
    ends: list[Finished] = field(default_factory=list[Finished])
    stuck: list[Stuck] = field(default_factory=list[Stuck])


@dataclass
class Journal:
    """What the journal says."""

    id: str
    stories: list[Story]
    epochs: dict[int, list[int]]
    """Of each partition: those of its claims, in order."""
    problems: list[str]
    """Damage that reading everything found."""


@dataclass
class Evidence:
    """All of it."""

    events: Sequence[Event]
    keys: Sequence[Known]
    world: Sequence[Effect]
    journal: Journal


def read_evidence(folder: Path) -> Evidence:
    """Read what a run left in *folder*: journal, ledger.sqlite, history*.jsonl."""
    events = itertools.chain.from_iterable(
        read_history(path) for path in sorted(folder.glob("history*.jsonl"))
    )
    keys, world = read_ledger(folder / "ledger.sqlite")
    journal = PosixFolder(str(merged(folder / "journal", folder / "merged")))
    return Evidence(list(events), keys, world, read_journal(journal))


def merged(journal: Path, target: Path) -> Path:
    """Make *target* a journal with all segments, also the archived, by hard links."""
    target.mkdir()
    os.link(journal / "journal.json", target / "journal.json")
    for partition in journal.glob("p[0-9]*"):
        (target / partition.name).mkdir()
        archived = journal.glob(f"archive/*/{partition.name}/*.seg")
        for path in (*archived, *partition.glob("*.seg")):
            link = target / partition.name / path.name
            if not link.exists():
                os.link(path, link)
    return target


def read_journal(folder: Folder) -> Journal:
    """Read and verify a journal's folder, without changing it."""
    stories: dict[tuple[int, int], Story] = {}
    epochs: dict[int, list[int]] = {}
    problems = [
        f"{problem.path} at byte {problem.offset}: {problem.problem}"
        for report in inspect.verify(folder)
        for problem in report.problems
    ]
    try:
        for entry in inspect.dump(folder):
            if isinstance(entry.record, Claimed):
                epochs.setdefault(entry.partition, []).append(entry.record.epoch)
            elif isinstance(entry.record, Accepted):
                id_ = format_workflow_id(entry.partition, entry.position)
                story = Story(id_, entry.record)
                stories[entry.partition, entry.position] = story
            elif isinstance(entry.record, Lost):
                problems.append(f"something was given up as lost: {entry.record}")
            elif not isinstance(entry.record, PartitionRecord):
                _tell(stories[entry.partition, entry.record.workflow], entry.record)
    except CoordinatorError as error:
        problems.append(str(error))
    except KeyError as error:
        problems.append(f"a record about a workflow that was never accepted: {error}")
    return Journal(inspect.info(folder).id, list(stories.values()), epochs, problems)


def _tell(story: Story, record: Record) -> None:
    match record:
        case Outcome():
            story.outcomes.append(record)
        case Finished():
            story.ends.append(record)
        case Stuck():
            story.stuck.append(record)
        case _:
            pass
