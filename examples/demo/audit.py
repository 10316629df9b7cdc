"""The audit: compares journal, ledgers and answers, and says what it found.

    python -m examples.demo.audit demo-data

Nothing is taken on trust: what happened in the world is counted in a table that has no
unique keys, so a charge that happened twice is two rows. Each check is a function from
the evidence to one line of the verdict; a check that counts what must not be has to
find none.
"""

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from examples.demo.client import Completed, Failed
from examples.demo.evidence import Change, Evidence, Story, read_evidence
from examples.shop.orders import Receipt
from rich import box
from rich.console import Console
from rich.table import Table

from coordinator import values
from coordinator.model import (
    Direction,
    EndStatus,
    OutcomeStatus,
    StepId,
    idempotency_key,
)

OPERATIONS = {
    "inventory": ("reserve", "release"),
    "payments": ("charge", "refund"),
    "shipping": ("book", "cancel"),
}


@dataclass(frozen=True)
class Row:
    """One line of the verdict."""

    what: str
    found: str
    must_be: str = ""
    """Empty: nothing to pass, only to know."""
    examples: tuple[str, ...] = ()
    """Some of what must not be."""

    @property
    def passed(self) -> bool | None:
        """Whether it is as it must be; None if it may be anything."""
        return self.found == self.must_be if self.must_be else None


def must_be_none(what: str, found: list[str]) -> Row:
    """Make a line of what must not be."""
    return Row(what, str(len(found)), "0", tuple(found[:3]))


class Audit:
    """Looks at the evidence from all sides."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._stories: defaultdict[str, list[Story]] = defaultdict(list)
        for story in evidence.journal.stories:
            self._stories[story.order.order_id].append(story)
        self._world: defaultdict[str, list[Change]] = defaultdict(list)
        for ledger in evidence.ledgers.values():
            for change in ledger.world:
                self._world[change.order_id].append(change)
        ended = {EndStatus.COMPLETED: set[str](), EndStatus.COMPENSATED: set[str]()}
        for order_id, stories in self._stories.items():
            if (finished := stories[0].finished) is not None:
                ended.setdefault(finished.status, set()).add(order_id)
        self._completed = ended[EndStatus.COMPLETED]
        self._compensated = ended[EndStatus.COMPENSATED]

    def rows(self) -> list[Row]:
        """Return all lines, in the order in which they are read."""
        evidence = self._evidence
        journal = evidence.journal
        sent = len(evidence.orders)
        ended = len(self._completed) + len(self._compensated)
        changes = [c for ledger in evidence.ledgers.values() for c in ledger.world]
        calls = Counter[str]()
        for ledger in evidence.ledgers.values():
            calls.update(ledger.calls)
        faults = f"{calls['failed']} and {calls['lost']}"
        restarts = len(journal.in_flight_at_claims) - 1
        struck = sum(count > 0 for count in journal.in_flight_at_claims[1:])
        kills = evidence.options.kills
        return [
            Row("orders sent", str(sent)),
            Row("orders completed", str(len(self._completed))),
            Row("orders compensated", str(len(self._compensated))),
            Row("answered 503, replies lost", faults),
            Row("calls repeated, absorbed by their key", str(calls["repeated"])),
            Row("effects in the world, undos included", str(len(changes))),
            Row("longest pause of intake", f"{journal.longest_pause_s:.1f} s"),
            Row("restarts of the coordinator", str(restarts), str(kills)),
            Row("kills that struck running orders", str(struck), str(kills)),
            Row("orders that ended", str(ended), str(sent)),
            must_be_none("orders lost", list(self.lost())),
            must_be_none("orders taken twice, or changed", list(self.distorted())),
            must_be_none("effects applied twice", list(self.applied_twice())),
            must_be_none(
                "completed orders with an effect missing", list(self.incomplete())
            ),
            must_be_none(
                "refused orders with something left",
                list(self.left_over()),
            ),
            must_be_none(
                "undos out of order, or of nothing done", list(self.undone_wrongly())
            ),
            must_be_none(
                "effects without a record, or the reverse",
                list(self.disagreeing_effects()),
            ),
            must_be_none(
                "answers that contradict the journal", list(self.wrong_answers())
            ),
            Row("records in the journal", str(journal.records)),
            must_be_none(
                "faults that reading the whole journal found", journal.problems
            ),
        ]

    # -- what must not be ------------------------------------------------------------

    def lost(self) -> Iterator[str]:
        """Yield orders without a workflow, without an end, or without an answer."""
        answered = {answer.order_id for answer in self._evidence.answers}
        for order_id in self._evidence.orders:
            stories = self._stories.get(order_id, [])
            if not stories:
                yield f"{order_id} is not in the journal"
            elif stories[0].finished is None:
                yield f"{order_id} did not end, see workflow {stories[0].id}"
            elif order_id not in answered:
                yield f"{order_id} was not answered"

    def distorted(self) -> Iterator[str]:
        """Yield orders that are in the journal otherwise than they were sent, once."""
        for order_id, stories in self._stories.items():
            if len(stories) > 1:
                yield f"{order_id} has {len(stories)} workflows"
            if any(len(story.ends) > 1 for story in stories):
                yield f"{order_id} ended twice"
            if stories[0].order != self._evidence.orders.get(order_id):
                yield f"{order_id} was not sent like this: {stories[0].order}"

    def applied_twice(self) -> Iterator[str]:
        """Yield what happened more than once in the world, or was undone so."""
        for service, ledger in self._evidence.ledgers.items():
            done = Counter((c.order_id, c.operation) for c in ledger.world)
            for (order_id, operation), count in done.items():
                if count > 1:
                    yield f"{service}: {count} x {operation} of {order_id}"
            undone = Counter(c.undoes for c in ledger.world if c.undoes is not None)
            for number, count in undone.items():
                if count > 1:
                    yield f"{service}: change {number} was undone {count} times"

    def incomplete(self) -> Iterator[str]:
        """Yield completed orders of which not exactly all three things stand."""
        for order_id in sorted(self._completed):
            order = self._evidence.orders.get(order_id)
            if order is None:
                continue  # told by `distorted`
            amounts = {
                "inventory": order.pieces,
                "payments": order.cents,
                "shipping": 1,
            }
            for service, amount in amounts.items():
                stands = self._stands(service, order_id)
                if stands != amount:
                    yield f"{order_id}: {stands} instead of {amount} at {service}"

    def left_over(self) -> Iterator[str]:
        """Yield orders that did not complete, of which something stands."""
        for order_id in self._world:
            for service in OPERATIONS:
                stands = self._stands(service, order_id)
                if order_id not in self._completed and stands != 0:
                    yield f"{order_id}: {stands} left at {service}"

    def undone_wrongly(self) -> Iterator[str]:
        """Yield undos that are not the exact reverse of what was done."""
        for story in self._evidence.journal.stories:
            done, undone = story.steps(Direction.DO), story.steps(Direction.UNDO)
            compensated = story.order.order_id in self._compensated
            if undone != (done[::-1] if compensated else []):
                yield f"workflow {story.id}: did {done}, undid {undone}"
        for service, ledger in self._evidence.ledgers.items():
            for effect in ledger.effects:
                if effect.status == "nothing":
                    yield f"{service}: nothing to undo under {effect.key}"

    def disagreeing_effects(self) -> Iterator[str]:
        """Yield keys under which a service decided otherwise than the journal says."""
        journal = self._evidence.journal
        recorded: dict[str, str] = {}
        for story in journal.stories:
            for o in story.outcomes:
                step = StepId(o.step, o.occurrence)
                key = idempotency_key(journal.id, story.id, step, o.direction)
                refused = o.status is OutcomeStatus.REFUSED
                recorded[key] = "refused" if refused else "done"
        decided = {
            effect.key: effect.status
            for ledger in self._evidence.ledgers.values()
            for effect in ledger.effects
        }
        for key in sorted(recorded.keys() | decided.keys()):
            ours, theirs = recorded.get(key, "nothing"), decided.get(key, "nothing")
            if ours != theirs:
                yield f"{key}: journal {ours}, service {theirs}"
        done = sum(status == "done" for status in decided.values())
        changes = sum(len(ledger.world) for ledger in self._evidence.ledgers.values())
        if done != changes:
            yield f"{done} keys were applied, but {changes} things happened"

    def wrong_answers(self) -> Iterator[str]:
        """Yield answers that are not what the journal says of the order's end."""
        told = Counter(answer.order_id for answer in self._evidence.answers)
        for order_id, count in told.items():
            if count > 1:
                yield f"{order_id} has {count} answers"
        for answer in self._evidence.answers:
            stories = self._stories.get(answer.order_id, [])
            finished = stories[0].finished if stories else None
            if finished is None:
                yield f"{answer.order_id} was answered, but did not end"
                continue
            status, value = finished.status, finished.value
            match answer:
                case Completed(receipt=receipt):
                    right = status is EndStatus.COMPLETED and (
                        values.decode(value, Receipt) == receipt
                    )
                case Failed(failure=failure):
                    right = status is EndStatus.COMPENSATED and (
                        failure.workflow,
                        failure.status,
                        failure.reason,
                    ) == (
                        stories[0].id,
                        "compensated",
                        values.load_refusal(value).reason,
                    )
                case _:
                    right = False
            if not right:
                yield f"{answer.order_id}: {answer} is not how {stories[0].id} ended"

    def _stands(self, service: str, order_id: str) -> int:
        return sum(c.delta for c in self._world[order_id] if c.service == service)

    # -- for people ------------------------------------------------------------------

    def example(self) -> Story | None:
        """Return a compensated order worth a look: across a kill, with many undos."""
        return max(
            (s for s in self._evidence.journal.stories if s.steps(Direction.UNDO)),
            key=lambda story: (
                len({entry.epoch for entry in story.entries}),
                len(story.steps(Direction.UNDO)),
            ),
            default=None,
        )


def show(rows: list[Row], console: Console) -> bool:
    """Print the table, and return whether all lines passed."""
    verdicts = {None: "", True: "[green]PASS[/]", False: "[bold red]FAIL[/]"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("the audit found")
    table.add_column("", justify="right")
    table.add_column("must be", justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(row.what, row.found, row.must_be, verdicts[row.passed])
    console.print(table)
    for row in rows:
        for example in row.examples:
            console.print(f"{row.what}: {example}", style="red", markup=False)
    return all(row.passed is not False for row in rows)


def show_story(folder: Path, story: Story, console: Console) -> None:
    """Show one order's timeline, as an operator would."""
    restarts = len({entry.epoch for entry in story.entries}) - 1
    command = ["show", story.id, "--journal", str(folder / "journal")]
    across = f" and outlived {restarts} of the kills" if restarts else ""
    console.print(f"An order that was undone{across}:")
    console.print(f"$ coordinator {' '.join(command)}", style="bold", markup=False)
    console.file.flush()
    subprocess.run([sys.executable, "-m", "coordinator", *command], check=True)
    console.print()


def main() -> None:
    """Audit the folder that the command line names."""
    console = Console(highlight=False, soft_wrap=True)
    folder = Path(sys.argv[1])
    audit = Audit(read_evidence(folder))
    passed = show(audit.rows(), console)
    if (story := audit.example()) is not None:
        show_story(folder, story, console)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
