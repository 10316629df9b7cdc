"""The cmd-stream intake, with a real client on a real socket."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec
import pydantic
import pytest
import uvloop
from tests.processes import eventually

from cmdstream import Client, CmdStreamError
from coordinator import (
    CommandBlocked,
    Coordinator,
    Options,
    Refused,
    Workflow,
    values,
)
from coordinator.api.cmdstream import (
    CmdStreamIntake,
    json_codec,
    read_json_payload,
)
from coordinator.batch import Batch
from coordinator.errors import CommandTypeError, DecodeError
from coordinator.journals.memory import MemoryJournal, MemoryPartition
from coordinator.pace import FIRST


class Money(pydantic.BaseModel):
    """A Pydantic result."""

    cents: int


class Pay(pydantic.BaseModel):
    """A Pydantic command."""

    order: str
    price: Money

    async def exec(self, workflow: Workflow, receiver: None) -> Money:
        if self.price.cents < 0:
            raise Refused("less than nothing")
        return Money(cents=self.price.cents + 1)


@dataclass
class Failed:
    """What did not complete."""

    workflow: str
    status: str
    reason: str


def test_pydantic_models_are_commands_and_results_like_any_others() -> None:
    async def main() -> None:
        coordinator = Coordinator(
            None, commands=[Pay], failure=Failed, journal=MemoryJournal()
        )
        intake = CmdStreamIntake(coordinator)
        async with coordinator, intake.server:
            host, port = await intake.listen("127.0.0.1", 0)
            codec = json_codec(coordinator)
            async with await Client.connect(host, port, codec) as client:
                assert await client.send(Pay(order="o", price=Money(cents=1))) == Money(
                    cents=2
                )
                answer = await client.send(Pay(order="o", price=Money(cents=-1)))
                assert answer == Failed("0-3", "compensated", "less than nothing")

    asyncio.run(main())


def test_a_saga_runs_on_uvloop(tmp_path: Path) -> None:
    async def main() -> None:
        journal = f"file:{tmp_path}/journal"
        coordinator = Coordinator(None, commands=[Pay], journal=journal)
        intake = CmdStreamIntake(coordinator)
        async with coordinator, intake.server:
            host, port = await intake.listen("127.0.0.1", 0)
            codec = json_codec(coordinator)
            async with await Client.connect(host, port, codec) as client:
                assert await client.send(Pay(order="o", price=Money(cents=1))) == Money(
                    cents=2
                )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_failure_without_a_failure_class_closes_the_connection() -> None:
    async def main() -> None:
        coordinator = Coordinator(None, commands=[Pay], journal=MemoryJournal())
        intake = CmdStreamIntake(coordinator)
        async with coordinator, intake.server:
            host, port = await intake.listen("127.0.0.1", 0)
            codec = json_codec(coordinator)
            async with await Client.connect(host, port, codec) as client:
                with pytest.raises(CmdStreamError):
                    await client.send(Pay(order="o", price=Money(cents=-1)))

    asyncio.run(main())


@dataclass
class Take:
    """Refuses."""

    def key(self) -> str:
        return "k"

    async def exec(self, workflow: Workflow, receiver: None) -> Money:
        raise Refused("no")


def test_what_no_class_can_be_made_of_is_told_and_keeps_no_other_client_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(_data: bytes) -> Refused:
        raise TypeError("not again")

    monkeypatch.setattr(values, "load_refusal", load)

    async def main() -> None:
        coordinator = Coordinator(
            None, commands=[Take], failure=Failed, journal=MemoryJournal()
        )
        intake = CmdStreamIntake(coordinator)
        async with coordinator, intake.server:
            host, port = await intake.listen("127.0.0.1", 0)
            codec = json_codec(coordinator)
            for _ in range(2):
                async with await Client.connect(host, port, codec) as client:
                    answer = await client.send(Take())
                    assert answer == Failed(
                        "0-1",
                        "compensated",
                        "the refusal can't be made again: TypeError('not again')",
                    )

    asyncio.run(main())


@dataclass
class Charge:
    """Needs payments, which are down."""

    services: ClassVar = {"payments"}
    order: str

    def key(self) -> str:
        return self.order

    async def exec(self, workflow: Workflow, receiver: None) -> Money:
        await workflow.step(charge)
        return Money(cents=1)


async def charge() -> None:
    raise CommandBlocked("payments")


@dataclass
class Look:
    """Needs nothing."""

    services: ClassVar = frozenset[str]()

    async def exec(self, workflow: Workflow, receiver: None) -> Money:
        return Money(cents=0)


def test_clients_that_hang_up_leave_the_door_and_others_come_through() -> None:
    async def main() -> None:
        coordinator = Coordinator(
            None,
            commands=[Charge, Look],
            journal=MemoryJournal(),
            options=Options(commands_max=4),
        )
        intake = CmdStreamIntake(coordinator)
        async with coordinator, intake.server:
            host, port = await intake.listen("127.0.0.1", 0)
            codec = json_codec(coordinator)
            await coordinator.submit(Charge("first"))
            async with await Client.connect(host, port, codec) as other:
                for number in range(8):
                    async with (
                        asyncio.TaskGroup() as group,
                        await Client.connect(host, port, codec) as client,
                    ):
                        for key in (f"mine-{number}", "everybody's"):
                            group.create_task(_in_vain(client, Charge(key)))
                        await eventually(lambda: intake.server.in_flight == 2)
                    assert await other.send(Look()) == Money(cents=0)
                    assert intake.server.in_flight == 0
                assert coordinator.engine.entrance.closed == ""

    async def _in_vain(client: Client, command: Charge) -> None:
        with pytest.raises(CmdStreamError):
            await client.send(command)

    asyncio.run(main())


@dataclass
class Poison:
    """Its key can't always be had."""

    id: str

    def key(self) -> str:
        return self.id.split(":")[1]

    async def exec(self, workflow: Workflow, receiver: None) -> Money:
        return Money(cents=1)


def test_a_command_without_a_key_to_be_had_is_refused_and_no_other() -> None:
    async def main() -> None:
        coordinator = Coordinator(
            None, commands=[Poison], failure=Failed, journal=MemoryJournal()
        )
        intake = CmdStreamIntake(coordinator)
        async with coordinator, intake.server:
            host, port = await intake.listen("127.0.0.1", 0)
            codec = json_codec(coordinator)
            async with await Client.connect(host, port, codec) as client:
                answer = await client.send(Poison("poison"))
                assert isinstance(answer, Failed)
                assert answer.status == "refused"
                assert answer.reason.startswith("Poison.key() failed: IndexError(")
                assert await client.send(Poison("a:1")) == Money(cents=1)

    asyncio.run(main())


class Cash(msgspec.Struct, tag=True):
    """One of two results."""

    cents: int


class Voucher(msgspec.Struct, tag=True):
    """The other one."""

    code: str


@dataclass
class Refund:
    """Gives either."""

    async def exec(self, workflow: Workflow, receiver: None) -> Cash | Voucher:
        return Voucher("v")


@dataclass
class Find:
    """May find nothing."""

    async def exec(self, workflow: Workflow, receiver: None) -> Cash | None:
        return None


@dataclass
class Count:
    """Returns what is no class."""

    async def exec(self, workflow: Workflow, receiver: None) -> list[int]:
        return []


@dataclass
class Forget:
    """Returns nothing."""

    async def exec(self, workflow: Workflow, receiver: None) -> None: ...


def test_what_a_client_can_not_be_told_is_refused_before_anything_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        coordinator = Coordinator(None, commands=[Refund], journal=MemoryJournal())
        intake = CmdStreamIntake(coordinator)
        async with coordinator, intake.server:
            host, port = await intake.listen("127.0.0.1", 0)
            codec = json_codec(coordinator)
            async with await Client.connect(host, port, codec) as client:
                assert await client.send(Refund()) == Voucher("v")

    asyncio.run(main())
    for command, member in ((Find, "NoneType"), (Count, r"list\[int\]")):
        with pytest.raises(CommandTypeError, match=f"cmd-stream can't send .*{member}"):
            CmdStreamIntake(Coordinator(None, commands=[command]))
    CmdStreamIntake(Coordinator(None, commands=[Forget]))
    assert "Forget returns nothing" in caplog.text


def test_a_stored_payload_that_does_not_fit_its_class_any_more_says_so() -> None:
    assert read_json_payload(b'{"order":"o","price":{"cents":1}}', Pay) == Pay(
        order="o", price=Money(cents=1)
    )
    with pytest.raises(DecodeError, match="Pay: "):
        read_json_payload(b'{"order":"o"}', Pay)
    with pytest.raises(DecodeError, match="Failed: "):
        read_json_payload(b'{"workflow":1}', Failed)


@dataclass
class Tally:
    """Does nothing."""

    number: int

    async def exec(self, workflow: Workflow, receiver: None) -> Money:
        return Money(cents=self.number)


OFFERED = 2 * int(FIRST)


class Slow(MemoryJournal):
    """A journal whose writes wait until they may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = asyncio.Event()

    async def open(self, partition: int, *, owner: str, at: int) -> MemoryPartition:
        opened = await super().open(partition, owner=owner, at=at)
        write = opened.write

        async def write_later(batch: Batch) -> None:
            await self.may_write.wait()
            await write(batch)

        setattr(opened, "write", write_later)  # noqa: B010 -- one instance's method
        return opened


def test_while_many_are_coming_in_clients_are_not_read_from_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        journal = Slow()
        coordinator = Coordinator(None, commands=[Tally], journal=journal)
        intake = CmdStreamIntake(coordinator)
        async with coordinator, intake.server:
            host, port = await intake.listen("127.0.0.1", 0)
            codec = json_codec(coordinator)
            async with (
                await Client.connect(host, port, codec) as client,
                asyncio.TaskGroup() as group,
            ):
                tasks = [
                    group.create_task(client.send(Tally(n))) for n in range(OFFERED)
                ]
                await eventually(lambda: intake.server.in_flight == int(FIRST))
                await asyncio.sleep(0)
                assert intake.server.in_flight == int(FIRST)
                assert coordinator.engine.entrance.waiting == 0
                journal.may_write.set()
            assert [task.result() for task in tasks] == [
                Money(cents=n) for n in range(OFFERED)
            ]

    asyncio.run(main())
    assert caplog.messages == []
