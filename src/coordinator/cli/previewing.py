"""``coordinator check --against``: what new code would do with what is unfinished.

    each partition's state --> Preview.judge, one workflow after the other
                                  |--> --json: a line for each, then the summary
                                  '--> text: the summary, then what is not fine,
                                       equal findings together

Nothing is locked, written or called, so a server may run.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from coordinator.api.cmdstream import CODEC, read_json_payload
from coordinator.app import Coordinator
from coordinator.cli.exits import CliError, ExitCode
from coordinator.cli.offline import opened, partitions
from coordinator.cli.output import Line, emit_lines, progress, show_count
from coordinator.cli.printing import emit_json
from coordinator.cli.remote import folder_of
from coordinator.cli.target import load_target
from coordinator.journals.segments.files import Folder
from coordinator.preview import Finding, Preview, Prospect

__all__ = ["check"]

GROUPS_MAX = 1000
"""Different findings that are shown as text; what goes beyond is only counted."""
IDS_MAX = 5
"""Workflows that are named of those with equal findings."""
TOLD_EVERY = 100
"""Workflows between two signs of progress."""

WORDS = {
    Prospect.GOES_ON: "go on",
    Prospect.ENDS: "end at once",
    Prospect.STILL_STUCK: "are stuck, and would be again for the same reason",
    Prospect.DIFFERS: "take another path",
    Prospect.UNDO_LOST: "would be stuck: an undo is lost",
    Prospect.OUTCOME_UNREADABLE: "would be stuck: an outcome no longer decodes",
    Prospect.PAYLOAD_UNREADABLE: "would be stuck: the command no longer decodes",
    Prospect.COMMAND_GONE: "would be stuck: the command is gone",
    Prospect.STUCK: "would be stuck",
    Prospect.NO_STEP: "come to no step and no end",
}
assert WORDS.keys() == set(Prospect)


class Summary(msgspec.Struct, kw_only=True, tag="summary", tag_field="event"):
    """What ``check --json`` prints at the end."""

    open: int
    """Unfinished workflows that were judged."""
    prospects: dict[str, int]
    """How many of them, by `Finding.prospect`."""
    without_undo: list[tuple[str, str, int]]
    """Command, step, in how many open workflows it is done and has no undo."""


class _Tally:
    """What is kept of the findings: bounded, however many there are."""

    def __init__(self) -> None:
        self.prospects: Counter[Prospect] = Counter()
        self.without_undo: Counter[tuple[str, str]] = Counter()
        self.groups: dict[tuple[str, Prospect, str], list[str]] = {}
        self.sizes: Counter[tuple[str, Prospect, str]] = Counter()
        self.beyond = 0
        """Findings that are not fine and in no group."""

    def add(self, finding: Finding) -> None:
        prospect = finding.prospect
        self.prospects[prospect] += 1
        for step in {recorded.step for recorded in finding.without_undo}:
            self.without_undo[finding.type, step] += 1
        if prospect.is_fine:
            return
        group = (finding.type, prospect, finding.said)
        ids = self.groups.get(group)
        if ids is None:
            if len(self.groups) == GROUPS_MAX:
                self.beyond += 1
                return
            ids = self.groups[group] = []
        self.sizes[group] += 1
        if len(ids) < IDS_MAX:
            ids.append(finding.id)


def check(against: str, *, journal: str | None, as_json: bool) -> ExitCode:
    """Judge the unfinished workflows of a journal by the code of *against*.

    Args:
        against: ``module:object``, a `Coordinator` with the new code.
        journal: Of the workflows; None for that of the coordinator.
        as_json: Print every finding, as it is found.

    Returns:
        OK if all go on, FAILED if one would not.

    Raises:
        CliError: There is no such coordinator, or no such journal, or it is damaged.
    """
    coordinator = load_target(against)
    # As `serve` does: commands of cmd-stream clients are stored as they came.
    coordinator.read_payloads(CODEC, read_json_payload)
    path = folder_of(journal or _journal_of(coordinator))
    tally = _Tally()
    reading = "reading the journal …"
    with opened(path) as folder, progress(reading, lines=True) as tell:
        for finding in _findings(folder, coordinator.preview()):
            tally.add(finding)
            if as_json:
                emit_json(finding)
            if (count := tally.prospects.total()) % TOLD_EVERY == 0:
                tell(f"{count} workflows judged …")
    if as_json:
        _emit_json(tally)
    else:
        _emit_text(tally, path, against)
    fine = all(prospect.is_fine for prospect in tally.prospects)
    return ExitCode.OK if fine else ExitCode.FAILED


def _journal_of(coordinator: Coordinator[Any]) -> str | None:
    journal = coordinator.journal
    if journal is not None and not isinstance(journal, str):
        raise CliError(
            f"the coordinator has a {type(journal).__name__} and no URL; say --journal",
            ExitCode.USAGE,
        )
    return journal


def _findings(folder: Folder, preview: Preview) -> Iterator[Finding]:
    for partition in partitions(folder):
        for position in list(partition.workflows):
            # Taken out: what a run leaves in a state is not kept either.
            yield preview.judge(partition.workflows.pop(position))


def _emit_json(tally: _Tally) -> None:
    emit_json(
        Summary(
            open=tally.prospects.total(),
            prospects={p.value: tally.prospects[p] for p in Prospect},
            without_undo=[(*key, n) for key, n in sorted(tally.without_undo.items())],
        )
    )


def _emit_text(tally: _Tally, path: str, against: str) -> None:
    total = show_count(tally.prospects.total(), "unfinished workflow")
    lines: list[Line] = [[(f"{total} in {path}, under {against}", "bold")]]
    for prospect, words in WORDS.items():
        if count := tally.prospects[prospect]:
            style = "green" if prospect.is_fine else "bold red"
            lines.append([(f"{count:>8}  ", style), (words, "")])
    for (type_, prospect, said), ids in tally.groups.items():
        count = tally.sizes[type_, prospect, said]
        more = f" and {count - len(ids)} more" if count > len(ids) else ""
        lines += [[], [(f"{type_}: {count} {WORDS[prospect]}", "bold red")]]
        lines += [[(f"  {line}", "")] for line in said.splitlines()]
        lines.append([(f"  {', '.join(ids)}{more}", "dim")])
    if tally.beyond:
        lines += [[], [(f"and {tally.beyond} more; --json has all", "bold red")]]
    if tally.without_undo:
        lines += [[], [("done, and without an undo in this code: would stay", "bold")]]
        lines += [
            [(f"  {type_}: {step}, in {show_count(count, 'workflow')}", "")]
            for (type_, step), count in sorted(tally.without_undo.items())
        ]
    emit_lines(lines)
