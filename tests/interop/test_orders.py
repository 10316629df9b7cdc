"""The Go client of docs/interop.md against a real coordinator, killed and all."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.certificates import Authority, needs_openssl
from tests.interop.placing import ledger, place
from tests.processes import Server, eventually, serving

from coordinator.cli.serving import parse_address

SOURCE = Path(__file__).with_name("orders_app.py").read_text()
INFO = ("--info", "orders-v1")
KILLS = 3


@asynccontextmanager
async def coordinator(folder: Path, port: int = 0) -> AsyncGenerator[Server]:
    """Serve the page's coordinator in *folder*, on *port*, too, if it is not 0."""
    again = ("--listen", f"tcp://127.0.0.1:{port}") if port else ()
    target = "orders_app:coordinator"
    async with serving(folder, SOURCE, *INFO, *again, target=target) as server:
        yield server


def test_an_order_is_paid_for_and_one_that_is_refused_is_paid_back(
    orders: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as server:
            _, port = server.address
            assert await place(orders, port, "o-1", "far-1") == {
                "o-1": "paid: 1999 cents",
                "far-1": "compensated: no courier goes there",
            }
            assert await server.stop() == 0

    asyncio.run(main())
    assert set(ledger(tmp_path, "charge")) == {"o-1", "far-1"}
    assert set(ledger(tmp_path, "refund")) == {"far-1"}


def test_an_order_that_is_delayed_is_answered_in_the_end(
    orders: str, tmp_path: Path
) -> None:
    async def main() -> None:
        (tmp_path / "no-courier").touch()
        async with coordinator(tmp_path) as server, asyncio.TaskGroup() as group:
            placing = group.create_task(place(orders, server.address[1], "o-1"))
            await eventually(lambda: "o-1" in ledger(tmp_path, "charge"))
            assert not placing.done()
            (tmp_path / "no-courier").unlink()
            assert await placing == {"o-1": "paid: 1999 cents"}
            assert await server.stop() == 0

    asyncio.run(main())


def test_orders_are_recovered_after_kill_9_and_asked_for_again_by_their_key(
    orders: str, tmp_path: Path
) -> None:
    """Nothing is lost or done under two keys, and asking again changes nothing."""
    ids = [f"o-{number}" for number in range(30)] + ["far-1", "far-2"]

    async def main() -> None:
        (tmp_path / "no-courier").touch()
        async with asyncio.TaskGroup() as group:
            async with coordinator(tmp_path) as server:
                _, port = server.address
                placing = group.create_task(place(orders, port, *ids))
                await eventually(lambda: len(ledger(tmp_path, "charge")) == len(ids))
                server.kill()
                await server.exited()
            for _ in range(KILLS):
                async with coordinator(tmp_path, port) as server:
                    server.kill()
                    await server.exited()
            assert not placing.done()
            async with coordinator(tmp_path, port) as server:
                (tmp_path / "no-courier").unlink()
                answers = await placing
                assert await place(orders, port, *ids) == answers
                assert await server.stop() == 0
        for order in ids:
            is_far = order.startswith("far-")
            answer = (
                "compensated: no courier goes there" if is_far else "paid: 1999 cents"
            )
            assert answers[order] == answer

    asyncio.run(main())
    charged = ledger(tmp_path, "charge")
    assert set(charged) == set(ids)
    assert all(len(keys) == 1 for keys in charged.values())
    assert set(ledger(tmp_path, "refund")) == {"far-1", "far-2"}


@needs_openssl
def test_an_order_comes_over_mtls(orders: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    ours, theirs = authority.issue("coordinator"), authority.issue("client")
    listen = ("--listen", "tls://127.0.0.1:0")
    pair = ("--tls-cert", str(ours.certificate), "--tls-key", str(ours.key))
    known = ("--tls-client-ca", str(authority.certificate))
    trusted = ("-ca", str(authority.certificate))
    shown = ("-cert", str(theirs.certificate), "-key", str(theirs.key))

    async def main() -> None:
        async with serving(
            *(tmp_path, SOURCE, *INFO, *listen, *pair, *known),
            target="orders_app:coordinator",
        ) as server:
            secret = parse_address(server.ready["listen"][1])
            placed = await place(orders, secret.port, "o-1", flags=(*trusted, *shown))
            assert placed == {"o-1": "paid: 1999 cents"}
            assert await server.stop() == 0

    asyncio.run(main())


def test_another_coordinator_than_expected_is_not_asked_again(
    orders: str, tmp_path: Path
) -> None:
    async def main() -> None:
        target = "orders_app:coordinator"
        async with serving(tmp_path, SOURCE, target=target) as server:
            told = await place(orders, server.address[1], "o-1")
            assert told == {"o-1": "unknown: cmdstream: server info mismatch"}
            assert await server.stop() == 0

    asyncio.run(main())
