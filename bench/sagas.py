"""The sagas that are measured: steps that do nothing, so that only the engine costs."""

import asyncio
from dataclasses import dataclass
from typing import Any

from cmdstream import JsonCodec, Registry
from coordinator import (
    CommandDelayed,
    Coordinator,
    Options,
    Refused,
    Retry,
    Workflow,
)
from coordinator.serve import Address, ServeOptions, serve


@dataclass
class Done:
    """What a saga returns."""

    number: int


@dataclass
class Seen:
    """What `Looks` returns."""

    asked: int
    """Sagas that have asked the gate so far, each counted once."""
    tasks: int
    """Asyncio's, in the server."""


@dataclass
class Failed:
    """What a compensated saga returns."""

    workflow: str
    status: str
    reason: str


class Service:
    """Does nothing, at once."""

    async def do(self, number: int) -> int:
        """Return the argument."""
        return number

    async def undo(self, number: int) -> None:
        """Undo nothing."""

    async def refuse(self, number: int) -> int:
        """Refuse."""
        raise Refused("no")


class Gate:
    """A service that is down, or hangs, until it is opened."""

    def __init__(self, *, is_open: bool) -> None:
        self.asked = 0
        self._opened = asyncio.Event()
        self._by = bytearray()
        if is_open:
            self._opened.set()

    async def do(self, number: int) -> int:
        """Return the argument, or be down."""
        self._note(number)
        if not self._opened.is_set():
            raise CommandDelayed("the service is down")
        return number

    async def hang(self, number: int) -> int:
        """Return the argument once it is open."""
        self._note(number)
        await self._opened.wait()
        return number

    async def open(self, number: int) -> int:
        """Answer from now on."""
        self._opened.set()
        return number

    def _note(self, number: int) -> None:
        # A byte for each, as what is measured is the memory of this process.
        if number >= len(self._by):
            self._by.extend(bytes(number + 1 - len(self._by)))
        self.asked += not self._by[number]
        self._by[number] = 1


class Services:
    """The receiver."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.inventory = Service()
        self.payments = Service()
        self.shipping = Service()
        self.gate = Gate(is_open=is_open)


@dataclass
class ThreeSteps:
    """Three steps in a row."""

    number: int

    async def exec(self, workflow: Workflow, services: Services) -> Done:
        held = await workflow.step(services.inventory.do, self.number)
        paid = await workflow.step(services.payments.do, held)
        sent = await workflow.step(services.shipping.do, paid)
        return Done(sent)


@dataclass
class TurnsBack:
    """Two steps, a refusal, two undos."""

    number: int

    async def exec(self, workflow: Workflow, services: Services) -> Done:
        inventory, payments = services.inventory, services.payments
        held = await workflow.step(inventory.do, self.number).undo(inventory.undo)
        paid = await workflow.step(payments.do, held).undo(payments.undo)
        sent = await workflow.step(services.shipping.refuse, paid)
        return Done(sent)


@dataclass
class Parks:
    """Three steps, delayed at the second while the gate is shut."""

    number: int

    async def exec(self, workflow: Workflow, services: Services) -> Done:
        held = await workflow.step(services.inventory.do, self.number)
        paid = await workflow.step(services.gate.do, held)
        sent = await workflow.step(services.shipping.do, paid)
        return Done(sent)


@dataclass
class Hangs:
    """Three steps; the second is under way while the gate is shut."""

    number: int

    async def exec(self, workflow: Workflow, services: Services) -> Done:
        held = await workflow.step(services.inventory.do, self.number)
        paid = await workflow.step(services.gate.hang, held)
        sent = await workflow.step(services.shipping.do, paid)
        return Done(sent)


@dataclass
class Opens:
    """Opens the gate."""

    number: int

    async def exec(self, workflow: Workflow, services: Services) -> Done:
        return Done(await workflow.step(services.gate.open, self.number))


@dataclass
class Looks:
    """Looks into the server."""

    number: int

    async def exec(self, workflow: Workflow, services: Services) -> Seen:
        return Seen(services.gate.asked, len(asyncio.all_tasks()))


COMMANDS: list[type[Any]] = [ThreeSteps, TurnsBack, Parks, Hangs, Opens, Looks]
CODEC = JsonCodec(Registry(COMMANDS, [Done, Seen, Failed]))


def make(
    journal: str, *, is_open: bool = True, commands_max: int | None = None
) -> Coordinator[Services]:
    """Return the coordinator that is measured: with its defaults, or for outages.

    Where *commands_max* is given, so many are meant to be delayed by one service that
    has no breaker. By default each would be tried every 30 s, and more often at first.
    """
    options = Options()
    if commands_max is not None:
        patient = Retry(first_s=60, longest_s=60)
        options = Options(commands_max=commands_max, retry=patient)
    return Coordinator(
        Services(is_open=is_open),
        commands=COMMANDS,
        results=[Done, Seen, Failed],
        failure=Failed,
        journal=journal,
        options=options,
    )


async def run_server(
    journal: str, *, is_open: bool = True, commands_max: int | None = None
) -> None:
    """Serve on any port, which is printed, until SIGTERM."""
    await serve(
        make(journal, is_open=is_open, commands_max=commands_max),
        ServeOptions(listen=(Address("127.0.0.1", 0),)),
        ready=lambda addresses: print(addresses[0].port, flush=True),
    )
