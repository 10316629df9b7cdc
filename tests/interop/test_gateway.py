"""From Go to Go through a coordinator: a client of it, and a service behind it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.interop.placing import ledger, place
from tests.processes import TIMEOUT_S, Server, eventually, serving

SOURCE = Path(__file__).with_name("gateway_app.py").read_text()
KILLS = 3


class Service:
    """A running Go service, that writes into the ledger what it does."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.address = address
        self._process = process

    async def kill(self) -> None:
        """End it as a crash does."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def serving_payments(
    payments: str, folder: Path, address: str = "127.0.0.1:0"
) -> AsyncGenerator[Service]:
    with (folder / "ledger.txt").open("ab") as written:
        process = await asyncio.create_subprocess_exec(
            *(payments, "-listen", address),
            stdout=written,
            stderr=asyncio.subprocess.PIPE,
        )
    assert process.stderr is not None
    async with asyncio.timeout(TIMEOUT_S):
        said = (await process.stderr.readline()).decode()
    assert "listening on" in said
    service = Service(process, said.split()[-1])
    try:
        yield service
    finally:
        await service.kill()


@asynccontextmanager
async def coordinator(
    folder: Path, service: Service, port: int = 0
) -> AsyncGenerator[Server]:
    """Serve the page's coordinator in *folder*, on *port*, too, if it is not 0."""
    again = ("--listen", f"tcp://127.0.0.1:{port}") if port else ()
    async with serving(
        *(folder, SOURCE, "--info", "orders-v1", *again),
        target="gateway_app:coordinator",
        env={"PAYMENTS": service.address},
    ) as server:
        yield server


def test_a_go_service_charges_refunds_and_declines_for_a_coordinator(
    orders: str, payments: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with (
            serving_payments(payments, tmp_path) as service,
            coordinator(tmp_path, service) as server,
        ):
            placed = await place(orders, server.address[1], "o-1", "poor-1", "far-1")
            assert placed == {
                "o-1": "paid: 1999 cents",
                "poor-1": "compensated: insufficient funds",
                "far-1": "compensated: no courier goes there",
            }
            assert await server.stop() == 0

    asyncio.run(main())
    assert set(ledger(tmp_path, "charge")) == {"o-1", "far-1"}
    assert set(ledger(tmp_path, "refund")) == {"far-1"}


def test_both_sides_are_killed_and_every_charge_keeps_its_key(
    orders: str, payments: str, tmp_path: Path
) -> None:
    ids = [f"o-{number}" for number in range(30)] + ["far-1", "poor-1"]

    async def main() -> None:
        async with (
            asyncio.TaskGroup() as group,
            serving_payments(payments, tmp_path) as first,
        ):
            async with coordinator(tmp_path, first) as server:
                _, port = server.address
                placing = group.create_task(place(orders, port, *ids))
                await eventually(lambda: len(ledger(tmp_path, "charge")) > 0)
                await first.kill()
                server.kill()
                await server.exited()
            # The service is away: whatever is recovered has to wait for it.
            for _ in range(KILLS):
                async with coordinator(tmp_path, first, port) as server:
                    server.kill()
                    await server.exited()
            async with (
                coordinator(tmp_path, first, port) as server,
                serving_payments(payments, tmp_path, first.address),
            ):
                answers = await placing
                assert await place(orders, port, *ids) == answers
                assert await server.stop() == 0
        assert answers.pop("far-1") == "compensated: no courier goes there"
        assert answers.pop("poor-1") == "compensated: insufficient funds"
        assert set(answers.values()) == {"paid: 1999 cents"}

    asyncio.run(main())
    charged = ledger(tmp_path, "charge")
    assert set(charged) == set(ids) - {"poor-1"}
    assert all(len(keys) == 1 for keys in charged.values())
    assert set(ledger(tmp_path, "refund")) == {"far-1"}
