"""The sagas that are measured: steps that do nothing, so that only the engine costs."""

from dataclasses import dataclass

from coordinator import Coordinator, Refused, Workflow
from coordinator.serve import ServeOptions, serve


@dataclass
class Done:
    """What a saga returns."""

    number: int


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


class Services:
    """The receiver."""

    def __init__(self) -> None:
        self.inventory = Service()
        self.payments = Service()
        self.shipping = Service()


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


def make(journal: str) -> Coordinator[Services]:
    """Return the coordinator that is measured, with its defaults."""
    return Coordinator(
        Services(), commands=[ThreeSteps, TurnsBack], failure=Failed, journal=journal
    )


async def run_server(journal: str) -> None:
    """Serve on any port, which is printed, until SIGTERM."""
    await serve(
        make(journal),
        ServeOptions(listen=(("127.0.0.1", 0),)),
        ready=lambda addresses: print(addresses[0][1], flush=True),
    )
