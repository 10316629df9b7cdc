"""``coordinator serve``, as a real process."""

import asyncio
import resource
import shutil
import signal
import ssl
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from tests.certificates import Authority, Pair, needs_openssl
from tests.cli.modules import SHOP
from tests.processes import Ended, eventually, run_cli, serving
from tests.servers.nats import NatsOptions, nats_server
from tests.small_disk import mounted

from cmdstream import Client, ClientOptions, JsonCodec, Registry, client_tls
from cmdstream.errors import ServerInfoMismatchError
from coordinator import Coordinator, Workflow
from coordinator.cli.exits import CliError
from coordinator.cli.serving import parse_address
from coordinator.serve import Address, ServeOptions, _server_options, serve


class PlaceOrder(msgspec.Struct):
    order_id: str
    sku: str
    cents: int


class Count(msgspec.Struct):
    number: int


class Receipt(msgspec.Struct):
    order_id: str
    parcel: str


class OrderFailed(msgspec.Struct):
    workflow: str
    status: str
    reason: str


class Nothing(msgspec.Struct):
    async def exec(self, workflow: Workflow, receiver: None) -> None:
        """Do nothing."""


ORDER = PlaceOrder("o-1", "sku", 5)
CODEC = JsonCodec(Registry([PlaceOrder, Count], [Receipt, int, OrderFailed]))


def test_a_client_is_served_and_sigterm_ends_with_0(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, SHOP) as server:
            async with await Client.connect(*server.address, CODEC) as client:
                result = await client.send(PlaceOrder("o-1", "sku", 5))
                assert result == Receipt("o-1", "book-o-1")
                assert await client.send(Count(1)) == 2
            assert server.ready["pid"] == server.pid
            assert server.ready["journal"] == "file:./journal"
            assert await server.stop() == 0

    asyncio.run(main())


def test_what_was_accepted_survives_kill_9(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "payments.mode").write_text("hang")
        async with serving(tmp_path, SHOP) as server:
            async with await Client.connect(*server.address, CODEC) as client:
                async with asyncio.TaskGroup() as group:
                    sending = group.create_task(_lost(client))
                    await eventually((tmp_path / "payments.hangs").exists)
                    server.kill()
                assert sending.result()
            assert await server.exited() == -signal.SIGKILL
        (tmp_path / "payments.mode").unlink()
        async with serving(tmp_path, SHOP) as server:
            assert (server.ready["unfinished"], server.ready["stuck"]) == (1, 0)
            async with await Client.connect(*server.address, CODEC) as client:
                result = await client.send(PlaceOrder("o-1", "sku", 5))
                assert result == Receipt("o-1", "book-o-1")
            assert await server.stop() == 0

    asyncio.run(main())


async def _lost(client: Client) -> bool:
    try:
        await client.send(PlaceOrder("o-1", "sku", 5))
    except Exception:  # noqa: BLE001 -- whichever way the connection breaks
        return True
    return False


# A plain `def` step: its thread can't be stopped, and must not be waited for.
IN_A_THREAD = SHOP.replace("    async def book(self", "    def book(self").replace(
    'return await self._do("book", order)',
    'Path("shipping.hangs").touch(); import threading; threading.Event().wait()',
)


@pytest.mark.parametrize("module", [SHOP, IN_A_THREAD], ids=["awaits", "blocks"])
def test_a_second_sigterm_ends_it_at_once(tmp_path: Path, module: str) -> None:
    async def main() -> None:
        (tmp_path / "shipping.mode").write_text("hang")
        async with serving(tmp_path, module, "--drain", "600") as server:
            client = await Client.connect(*server.address, CODEC)
            async with client, asyncio.TaskGroup() as group:
                sending = group.create_task(_lost_or_failed(client))
                await eventually((tmp_path / "shipping.hangs").exists)
                server.signal(signal.SIGTERM)
                await eventually(lambda: "stopping" in server.log)
                server.signal(signal.SIGTERM)
                assert await server.exited() == 0
                await sending

    asyncio.run(main())


STUBBORN = SHOP.replace(
    'return await self._do("book", order)',
    """Path("shipping.hangs").touch()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass""",
)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_step_that_swallows_its_cancellation_is_cut_off(
    tmp_path: Path, signals: int
) -> None:
    async def main() -> None:
        options = ("--drain", "0" if signals == 1 else "600", "--cut-off", "0.1")
        async with serving(tmp_path, STUBBORN, *options) as server:
            client = await Client.connect(*server.address, CODEC)
            async with client, asyncio.TaskGroup() as group:
                sending = group.create_task(_lost_or_failed(client))
                await eventually((tmp_path / "shipping.hangs").exists)
                server.signal(signal.SIGTERM)
                await eventually(lambda: "stopping" in server.log)
                if signals == 2:
                    server.signal(signal.SIGTERM)
                assert await server.exited() == 1
                await sending
            assert "ignore their cancellation" in server.log

    asyncio.run(main())


async def _lost_or_failed(client: Client, order: PlaceOrder = ORDER) -> None:
    try:
        result = await client.send(order)
    except Exception:  # noqa: BLE001 -- whichever way the connection breaks
        return
    assert isinstance(result, OrderFailed | Receipt)


def test_it_listens_on_every_address_and_prints_one_line_each(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, SHOP, "--listen", "tcp://localhost:0") as server:
            assert len(server.ready["listen"]) == 2
            for address in server.ready["listen"]:
                where = parse_address(address)
                async with await Client.connect(
                    where.host, where.port, CODEC
                ) as client:
                    assert await client.send(Count(1)) == 2

    asyncio.run(main())


def test_server_info_is_what_clients_must_expect(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, SHOP, "--info", "shop 2") as server:
            with pytest.raises(ServerInfoMismatchError):
                await Client.connect(*server.address, CODEC)
            options = ClientOptions(server_info=b"shop 2")
            client = await Client.connect(*server.address, CODEC, options=options)
            await client.aclose()

    asyncio.run(main())


def test_a_journal_in_use_is_refused_and_names_the_process(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, SHOP) as server:
            second = await _serve(tmp_path, "target_app:coordinator")
            assert second.code == 5
            assert f"pid {server.pid}" in second.stderr
            assert len(second.stderr.splitlines()) == 1
            assert await server.stop() == 0

    asyncio.run(main())


def test_a_journal_that_fails_ends_it_with_1(tmp_path: Path) -> None:
    async def main() -> None:
        url = "file:./journal?segment_mib=1"
        async with serving(tmp_path, SHOP, journal=url) as server:
            async with await Client.connect(*server.address, CODEC) as client:
                assert await client.send(Count(1)) == 2
                # The next segment can't be made in a folder that is gone.
                shutil.rmtree(tmp_path / "journal" / "p0")
                for number in range(3):
                    order = PlaceOrder(f"o-{number}", "s" * 500_000, 5)
                    await _lost_or_failed(client, order)
            assert await server.exited() == 1
            assert "the journal failed" in server.log

    asyncio.run(main())


@pytest.mark.parametrize("what_runs", ["nothing", "an order"])
def test_a_server_that_was_stopped_starts_on_a_full_disk_and_finishes_what_runs(
    tmp_path: Path, what_runs: str
) -> None:
    async def main() -> None:
        url = "file:./disk/j?segment_mib=1"
        async with serving(tmp_path, SHOP, journal=url) as server:
            async with await Client.connect(*server.address, CODEC) as client:
                assert await client.send(Count(1)) == 2
            if what_runs == "an order":
                (tmp_path / "payments.mode").write_text("delay")
                order = msgspec.json.encode(ORDER).decode()
                journal = ("--journal", "disk/j")
                await run_cli(tmp_path, "submit", "PlaceOrder", order, *journal)
            assert await server.stop() == 0
        fill = tmp_path / "disk" / "fill"
        with suppress(OSError), fill.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        (tmp_path / "payments.mode").unlink(missing_ok=True)
        async with serving(tmp_path, SHOP, journal=url) as server:
            await eventually(lambda: "takes no new command" in server.log)

            async def nothing_runs() -> bool:
                listed = await run_cli(
                    tmp_path, "list", "--journal", "disk/j", "--json"
                )
                workflows: list[object] = listed.json()["workflows"]
                return not workflows

            async with asyncio.timeout(60):
                while not await nothing_runs():
                    pass
            assert await server.stop() == 0

    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "6m"):
        asyncio.run(main())


FEW_FILES = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100))
{SHOP.replace("from __future__ import annotations", "")}
"""


def test_clients_leave_descriptors_to_the_journal(tmp_path: Path) -> None:
    async def main() -> None:
        url = "file:./journal?segment_mib=1"
        async with serving(tmp_path, FEW_FILES, journal=url) as server:
            assert "100 files may be open, so 50 clients may connect" in server.log
            assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (100, 100)
            async with await Client.connect(*server.address, CODEC) as client:
                idle: list[asyncio.StreamWriter] = []
                for _ in range(120):
                    _, writer = await asyncio.open_connection(*server.address)
                    idle.append(writer)
                # The next segment and a checkpoint are files of the server's, too.
                for number in range(8):
                    order = PlaceOrder(f"o-{number}", "s" * 500_000, 5)
                    assert isinstance(await client.send(order), Receipt)
                for writer in idle:
                    writer.close()
            assert await server.stop() == 0

    asyncio.run(main())


def test_as_many_clients_may_connect_as_ever_where_files_are_many() -> None:
    few, many = (_server_options(ServeOptions(), files) for files in (4607, 4608))
    assert (few.connections_max, many.connections_max) == (4095, 4096)
    given = _server_options(ServeOptions(server_info=b"v2"), 600)
    assert (given.server_info, given.connections_max) == (b"v2", 300)


def test_an_address_in_use_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, SHOP) as server:
            taken = server.ready["listen"][0]
            ended = await _serve(
                tmp_path, "target_app:coordinator", "--listen", taken, journal="memory:"
            )
            assert ended.code == 5
            assert "in use" in ended.stderr

    asyncio.run(main())


def test_a_damaged_journal_is_refused_with_the_place(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, SHOP) as server:
            await server.stop()
        (segment, *_) = sorted((tmp_path / "journal" / "p0").glob("*.seg"))
        data = bytearray(segment.read_bytes())
        data[20] ^= 0xFF
        segment.write_bytes(data)
        ended = await _serve(tmp_path, "target_app:coordinator")
        assert ended.code == 6
        assert segment.name in ended.stderr

    asyncio.run(main())


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target_app.py").write_text(SHOP)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "photo.jpg").touch()
    ended = asyncio.run(_serve(tmp_path, "target_app:coordinator"))
    assert ended.code == 5
    assert "photo.jpg" in ended.stderr


def test_a_place_where_no_journal_can_be_is_for_a_person_to_mend(
    tmp_path: Path,
) -> None:
    (tmp_path / "target_app.py").write_text(SHOP)
    place = "file:./target_app.py/journal"
    ended = asyncio.run(_serve(tmp_path, "target_app:coordinator", journal=place))
    assert ended.code == 5
    assert "can't be opened" in ended.stderr


def test_a_target_that_does_not_import_says_why(tmp_path: Path) -> None:
    (tmp_path / "target_app.py").write_text("\nraise RuntimeError('no setting')\n")
    ended = asyncio.run(_serve(tmp_path, "target_app:coordinator"))
    assert ended.code == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "error: importing target_app raised RuntimeError",
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/target_app.py", line 2, in <module>',
        "    raise RuntimeError('no setting')",
        "RuntimeError: no setting",
    ]


def test_a_result_that_cmd_stream_cannot_carry_is_refused(tmp_path: Path) -> None:
    unsent = SHOP.replace("-> int:", "-> __import__('datetime').timedelta:")
    (tmp_path / "target_app.py").write_text(unsent)
    ended = asyncio.run(_serve(tmp_path, "target_app:coordinator"))
    assert ended.code == 2
    assert "cmd-stream can't carry it" in ended.stderr
    assert "timedelta" in ended.stderr


def test_a_coordinator_without_a_journal_is_told_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "target_app.py").write_text(SHOP)
    ended = asyncio.run(_serve(tmp_path, "target_app:coordinator", journal=None))
    assert ended.code == 2
    assert "journal='file:./orders'" in ended.stderr


def test_a_journal_url_of_no_known_kind_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "target_app.py").write_text(SHOP)
    ended = asyncio.run(_serve(tmp_path, "target_app:coordinator", journal="ftp://x"))
    assert ended.code == 2
    assert "no journal of kind 'ftp'" in ended.stderr


@pytest.mark.parametrize(
    "text", ["9000", "localhost", "tcp://:1", "tcp://a", "tcp://a:x", "tcp://a:1/b"]
)
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(CliError) as raised:
        parse_address(text)
    assert raised.value.code == 2


def test_ipv6_addresses_are_in_brackets() -> None:
    assert parse_address("tcp://[::1]:9000") == Address("::1", 9000)


def test_an_address_with_tls_says_so() -> None:
    assert parse_address("tls://h:1") == Address("h", 1, tls=True)


@needs_openssl
def test_clients_with_a_certificate_are_served_over_tls_and_it_is_renewed_on_sighup(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path / "authority")
    files = Pair(tmp_path / "server.pem", tmp_path / "server.key")
    mine = authority.issue("client", usage="clientAuth")
    known = client_tls(
        server_ca=authority.certificate, certificate=mine.certificate, key=mine.key
    )
    stranger = client_tls(server_ca=authority.certificate)

    def put(pair: Pair) -> None:
        for old, new in zip(pair, files, strict=True):
            shutil.copy(old, new)

    async def main() -> None:
        put(authority.issue("first"))
        options = ("--tls-cert", "server.pem", "--tls-key", "server.key")
        clients = ("--tls-client-ca", str(authority.certificate))
        listen = ("--listen", "tls://127.0.0.1:0")
        async with serving(tmp_path, SHOP, *listen, *options, *clients) as server:
            plain, secret = map(parse_address, server.ready["listen"])
            assert (plain.tls, secret.tls) == (False, True)
            assert await _count_over_tls(secret, known) == "first"
            with pytest.raises((ssl.SSLError, OSError, EOFError)):
                await _count_over_tls(secret, stranger)
            # The client may know of it first.
            await eventually(lambda: "the peer has no certificate" in server.log)

            put(authority.issue("second"))
            server.signal(signal.SIGHUP)
            await eventually(lambda: "new certificate, valid until" in server.log)
            assert await _count_over_tls(secret, known) == "second"

            files.key.write_text("")
            server.signal(signal.SIGHUP)
            await eventually(lambda: "certificate in use stays in use" in server.log)
            assert await _count_over_tls(secret, known) == "second"

            async with await Client.connect(plain.host, plain.port, CODEC) as client:
                assert await client.send(Count(1)) == 2
            assert await server.stop() == 0

    asyncio.run(main())


async def _count_over_tls(address: Address, tls: ssl.SSLContext) -> str:
    """Send a command; return who the server says it is."""
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
    try:
        writer.write(b"\x01" + CODEC.encode_command(Count(1)))
        answer = b"\x07default\x01" + CODEC.encode_result(2)
        assert await reader.readexactly(len(answer)) == answer
        subject = writer.get_extra_info("peercert")["subject"]
        return str(subject[0][0][1])
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--listen", "tls://127.0.0.1:0"), "needs --tls-cert and --tls-key"),
        (("--tls-cert", "a.pem", "--tls-key", "a.key"), "nothing would be encrypted"),
        (("--tls-client-ca", "a.pem"), "nothing would be encrypted"),
        (
            ("--listen", "tls://127.0.0.1:0", "--tls-cert", "a.pem", "--tls-key", "k"),
            "certificate a.pem can't be read: No such file or directory",
        ),
    ],
)
def test_what_does_not_make_tls_is_a_usage_error(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "target_app.py").write_text(SHOP)
    ended = asyncio.run(_serve(tmp_path, "target_app:coordinator", *arguments))
    assert ended.code == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_an_address_with_tls_is_not_served_without_it() -> None:
    options = ServeOptions(listen=(Address("127.0.0.1", 0, tls=True),))
    coordinator = Coordinator(None, commands=[Nothing], journal="memory:")
    with pytest.raises(ValueError, match="needs a certificate"):
        asyncio.run(serve(coordinator, options))


async def _serve(
    folder: Path, target: str, *arguments: str, journal: str | None = "file:./journal"
) -> Ended:
    given = () if journal is None else ("--journal", journal)
    listen = () if "--listen" in arguments else ("--listen", "tcp://127.0.0.1:0")
    return await run_cli(folder, "serve", target, *given, *listen, *arguments)


def test_a_journal_in_nats_is_served_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    with nats_server(NatsOptions(user="ann", password="s3cret")) as nats:
        url = f"nats://ann:s3cret@{nats.address}/orders"

        async def main() -> None:
            (tmp_path / "payments.mode").write_text("hang")
            async with serving(tmp_path, SHOP, journal=url) as server:
                async with (
                    await Client.connect(*server.address, CODEC) as client,
                    asyncio.TaskGroup() as group,
                ):
                    group.create_task(_lost(client))
                    await eventually((tmp_path / "payments.hangs").exists)
                    server.kill()
                await server.exited()
                assert "s3cret" not in server.log + str(server.ready)
                assert server.ready["journal"] == f"nats://…@{nats.address}/orders"
            (tmp_path / "payments.mode").unlink()
            async with serving(tmp_path, SHOP, journal=url) as server:
                assert server.ready["unfinished"] == 1
                async with await Client.connect(*server.address, CODEC) as client:
                    assert await client.send(ORDER) == Receipt("o-1", "book-o-1")
                    nats.kill()
                    await eventually(lambda: "can't be opened, again in" in server.log)
                    later = msgspec.structs.replace(ORDER, order_id="o-2")
                    async with asyncio.TaskGroup() as group:
                        sent = group.create_task(client.send(later))
                        nats.start()
                    assert sent.result() == Receipt("o-2", "book-o-2")
                assert "partition 0 is opened again" in server.log
                assert "s3cret" not in server.log

        asyncio.run(main())
