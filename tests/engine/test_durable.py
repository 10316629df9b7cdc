"""Nobody acts on what is not written yet, and what is written is not done again.

The journal takes a second for each batch, in virtual time. So whoever did not wait for
it would be seen, by the witness who notes at every call what is durable.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import pytest
from tests.engine.support import KeepingJournal, run, until

from coordinator import CommandDelayed, Coordinator, Refused, Workflow, current_step
from coordinator.batch import Batch
from coordinator.journals.memory import MemoryPartition
from coordinator.records import Aborting, Accepted, Finished, Outcome


class SlowJournal(KeepingJournal):
    """Takes a second until a batch is durable."""

    async def open(self, partition: int, *, owner: str, at: int) -> MemoryPartition:
        """Open, and make writing slow."""
        opened = await super().open(partition, owner=owner, at=at)
        write = opened.write

        async def write_slowly(batch: Batch) -> None:
            await asyncio.sleep(1)
            await write(batch)

        setattr(opened, "write", write_slowly)  # noqa: B010 -- one instance's method
        return opened


class Witness:
    """A service that notes what is durable when it is called, and by whom."""

    def __init__(self, journal: KeepingJournal) -> None:
        self.journal = journal
        self.saw: dict[str, list[type[Any]]] = {}
        self.keys: list[str] = []
        self.epochs: list[int] = []
        self.values: list[object] = []
        self.unknown = 0
        """How many calls of `third` nobody knows the outcome of."""

    async def first(self) -> list[Any]:
        """Give what is another type once it was stored."""
        self._note("first")
        return [(1, 2)]

    async def unfirst(self, _: list[Any]) -> None:
        """Undo it."""
        self._note("unfirst")

    async def second(self) -> None:
        """Do nothing."""
        self._note("second")

    async def third(self) -> None:
        """Be refused, in the end."""
        self._note("third")
        if self.unknown:
            self.unknown -= 1
            raise CommandDelayed("busy")
        raise Refused("no")

    def _note(self, name: str) -> None:
        step = current_step()
        self.saw[name] = [type(record) for record in self.journal.records]
        self.keys.append(step.idempotency_key)
        self.epochs.append(step.epoch)


@dataclass
class Two:
    """Ends well."""

    async def exec(self, workflow: Workflow, witness: Witness) -> str:
        await workflow.step(witness.first)
        await workflow.step(witness.second)
        return "done"


@dataclass
class Three:
    """Is refused at its third step."""

    async def exec(self, workflow: Workflow, witness: Witness) -> None:
        first = await workflow.step(witness.first).undo(witness.unfirst)
        witness.values.append(first)
        await workflow.step(witness.second)
        await workflow.step(witness.third)


def _made(witness: Witness) -> Coordinator[Witness]:
    return Coordinator(
        witness,
        commands=[Two, Three],
        journal=witness.journal,
        clock=lambda: 1_700_000_000_000_000,
        random=random.Random(0),
    )


def test_a_command_is_durable_when_submit_returns_and_before_it_runs() -> None:
    journal = SlowJournal()
    witness = Witness(journal)

    async def main() -> None:
        async with _made(witness) as coordinator:
            handle = await coordinator.submit(Two())
            assert [type(record) for record in journal.records] == [Accepted]
            await handle.result()

    run(main())
    assert witness.saw["first"] == [Accepted]


def test_an_outcome_is_durable_before_the_next_step_starts() -> None:
    journal = SlowJournal()
    witness = Witness(journal)

    async def main() -> None:
        async with _made(witness) as coordinator:
            await coordinator.execute(Two())

    run(main())
    assert witness.saw["second"] == [Accepted, Outcome]


def test_a_result_is_durable_when_the_client_gets_it() -> None:
    journal = SlowJournal()

    async def main() -> None:
        async with _made(Witness(journal)) as coordinator:
            await coordinator.execute(Two())
            assert isinstance(journal.records[-1], Finished)

    run(main())


def test_the_decision_to_undo_is_durable_before_the_first_undo() -> None:
    journal = SlowJournal()
    witness = Witness(journal)

    async def main() -> None:
        async with _made(witness) as coordinator:
            with pytest.raises(Refused, match="no"):
                await coordinator.execute(Three())
            assert isinstance(journal.records[-1], Finished)

    run(main())
    assert witness.saw["unfirst"][-1] is Aborting


def test_a_restart_calls_no_step_again_that_has_an_outcome() -> None:
    journal = KeepingJournal()
    witness = Witness(journal)

    async def first() -> None:
        witness.unknown = 10**6
        async with _made(witness) as coordinator:
            await coordinator.submit(Three())
            await until(lambda: "third" in witness.saw)

    async def second() -> None:
        witness.unknown = 0
        async with _made(witness) as coordinator:
            await until(lambda: not coordinator.workflows())

    run(first())
    run(second())
    names = [key.split("/", 2)[2] for key in witness.keys]
    assert names.count("Witness.first/0") == names.count("Witness.second/0") == 1
    assert names[-1] == "Witness.first/0/undo"
    assert witness.epochs == sorted(witness.epochs)
    assert set(witness.epochs) == {1, 2}  # each owner's calls bear its own


def test_a_step_gives_every_run_what_its_stored_bytes_decode_to() -> None:
    witness = Witness(KeepingJournal())
    witness.unknown = 2

    async def main() -> None:
        async with _made(witness) as coordinator:
            with pytest.raises(Refused):
                await coordinator.execute(Three())

    run(main())
    assert witness.values == [[[1, 2]]] * len(witness.values)
    assert len(witness.values) >= 3
