"""Opening on servers of all kinds: unfit, away, guarded; and making a journal."""

import asyncio
import logging
from collections.abc import Coroutine
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.certificates import Authority, needs_openssl
from tests.journals.nats.support import (
    claim,
    names_of,
    new_url,
    open_url,
    read,
    texts,
    write,
)
from tests.servers.nats import (
    Nats,
    NatsOptions,
    NatsTls,
    delete_streams,
    nats_client,
    nats_server,
    shared_cluster,
    shared_server,
)

from coordinator.errors import (
    JournalDamagedError,
    JournalFormatError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.journals.nats import opening
from coordinator.journals.nats.address import parse_address
from coordinator.journals.nats.checks import Finding
from coordinator.journals.nats.layout import Kind
from coordinator.journals.nats.opening import examine
from coordinator.journals.nats.stream import Stream
from coordinator.ports import Partition

T = TypeVar("T")

GUARDED = """
authorization {
  users: [
    { user: all, password: s3cret }
    { user: some, password: s3cret, permissions: {
      publish: { allow: ["coordinator.orders.>", "$JS.API.>"], deny: $DENIED }
      subscribe: { allow: ["_INBOX.>"] } } }
  ]
}
"""


@pytest.fixture
def server() -> Nats:
    return shared_server()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PATIENCE_S", 0.0)


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)


async def use(url: str, **environment: str) -> None:
    """Open, write, and read what was written."""
    from coordinator.journals.nats.journal import NatsJournal

    journal = await NatsJournal.open_address(parse_address(url, environment))
    try:
        partition = await claim(journal)
        await write(partition, "x")
        await partition.aclose()
        assert texts(await read(await claim(journal)))[-1] == "x"
    finally:
        await journal.aclose()


def refusal(url: str, **environment: str) -> str:
    """Return why the journal can't be opened."""
    with pytest.raises(JournalUnavailableError) as caught:
        run(use(url, **environment))
    return str(caught.value)


def test_a_journal_is_made_once_however_many_open_it_at_once(server: Nats) -> None:
    url = new_url(server, partitions=3)

    async def open_one() -> tuple[str, int]:
        async with open_url(url) as journal:
            return journal.id, journal.partitions

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(open_one()) for _ in range(5)]
        assert len({task.result() for task in tasks}) == 1

    run(main())


def test_a_making_that_was_cut_off_goes_on(
    server: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stream and message of it may be the last one that was made."""

    class KilledError(Exception):
        pass

    for survived in range(8):
        url = new_url(server, partitions=2)
        done = 0
        steps = opening._Streams.make, opening._Streams.put, Stream.put

        def cut(step: Any, survived: int = survived) -> Any:
            async def maybe(*arguments: Any) -> Any:
                nonlocal done
                if done == survived:
                    raise KilledError
                done += 1
                return await step(*arguments)

            return maybe

        async def main(url: str = url) -> str:
            async with open_url(url) as journal:
                return journal.id

        with monkeypatch.context() as context:
            context.setattr(opening._Streams, "make", cut(steps[0]))
            context.setattr(opening._Streams, "put", cut(steps[1]))
            context.setattr(Stream, "put", cut(steps[2]))
            try:
                first = run(main())
            except KilledError:
                first = ""
        assert bool(first) == (survived == 7)
        made = run(main())
        assert made == first or not first
        run(use(url))
        assert run(main()) == made


def test_the_number_of_partitions_is_fixed(server: Nats) -> None:
    url = new_url(server)
    run(use(f"{url}partitions=2"))
    run(use(url))
    with pytest.raises(JournalFormatError, match="has 2 partitions, not 3"):
        run(use(f"{url}partitions=3"))


def test_a_journal_of_another_id_in_its_place_is_not_taken_for_it(server: Nats) -> None:
    url = new_url(server)
    run(use(url))
    run(delete_streams([server.address], [names_of(url).stream]))

    async def main() -> None:
        async with open_url(url) as journal:
            await claim(journal)

    with pytest.raises(JournalDamagedError, match="none of this journal"):
        run(main())


def test_a_stream_of_that_name_with_another_purpose_is_left_alone(
    server: Nats,
) -> None:
    url = new_url(server)
    names = names_of(url)

    async def occupy(**config: Any) -> None:
        async with nats_client(server.address) as client:
            await client.jetstream().add_stream(**config)

    run(occupy(name=names.stream, subjects=[f"{names.journal}.>"]))
    assert "use another journal name" in refusal(url)
    other = new_url(server)
    taken = [names_of(other).partition_subjects(0)]
    run(occupy(name=names_of(other).journal, subjects=taken))
    assert "(10065); another stream takes these subjects" in refusal(other)


def test_a_stream_that_was_set_to_forget_is_refused_with_the_remedy(
    server: Nats,
) -> None:
    url = new_url(server)
    name = names_of(url).partition_stream(0)

    async def edit() -> None:
        async with nats_client(server.address) as client:
            stream = await client.jetstream().stream_info(name)
            stream.config.max_age = 3600
            await client.jetstream().update_stream(stream.config)

    run(use(url))
    run(edit())
    assert f"`nats stream edit {name} --max-age 0`" in refusal(url)
    assert [one.found for one in run(look(url)) if one.level == "problem"] == [
        f"stream {name} forgets messages after 3600 s"
    ]


async def look(url: str) -> list[Finding]:
    return await examine(parse_address(url, {}))


def test_looking_makes_nothing(server: Nats) -> None:
    url = new_url(server, partitions=2)
    found = run(look(url))
    assert "does not exist" in found[-1].found
    run(use(url))
    found = run(look(url))
    assert [one.name for one in found if one.level != "ok"] == ["flush"]
    assert sum(one.name == "stream" for one in found) == 3
    run(delete_streams([server.address], [names_of(url).partition_stream(1)]))
    with pytest.raises(JournalDamagedError, match="stream of partition 1 is gone"):
        run(look(url))


def test_a_cluster_gets_three_copies_and_fewer_are_seen() -> None:
    cluster = shared_cluster()
    url = new_url(cluster)
    run(use(url))
    assert any(one.found.endswith("on file, 3 replicas") for one in run(look(url)))
    url = new_url(cluster)
    run(use(f"{url}replicas=1"))
    assert "has 1 replica, 3 were asked for" in refusal(f"{url}replicas=3")
    assert any("in a cluster" in one.found for one in run(look(url)))


def test_copies_that_a_server_can_not_make_are_refused(server: Nats) -> None:
    assert "use a cluster, or replicas=1" in refusal(new_url(server, replicas=3))


def test_who_is_not_there_is_said(server: Nats) -> None:
    nowhere = "127.0.0.1:1"
    said = refusal(f"nats://{nowhere}/orders")
    assert "127.0.0.1:1: " in said
    assert "Connect call failed" in said
    # One of several is enough.
    run(use(new_url(server).replace("nats://", f"nats://{nowhere},")))


async def say_nothing(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.read()
    writer.close()


def test_a_server_that_hangs_is_given_up(
    server: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.journals.nats.connection.CONNECT_S", 0.05)

    async def main() -> str:
        silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(JournalUnavailableError) as caught:
            await use(f"nats://127.0.0.1:{port}/orders")
        silent.close()
        return str(caught.value)

    assert "it does not answer" in run(main())


@pytest.mark.usefixtures("impatient")
def test_a_server_without_jetstream_is_refused() -> None:
    with nats_server(
        NatsOptions(extra="accounts: { A: { users: [{ user: a, password: p }] } }")
    ) as server:
        said = refusal(f"nats://a:p@{server.address}/orders")
    assert "(10039); enable JetStream for this account" in said


def test_small_messages_make_parts_and_tiny_ones_do_not_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with nats_server(NatsOptions(max_payload=8192)) as server:
        url = new_url(server)

        async def main() -> None:
            async with open_url(url) as journal:
                partition = await claim(journal)
                await write(partition, "x" * 100_000)
                await partition.save_checkpoint(partition.end, bytes(100_000))
                await partition.aclose()
                partition = await claim(journal)
                assert [len(one) for one in texts(await read(partition))] == [100_000]
                assert await partition.load_checkpoint() == bytes(100_000)

        with caplog.at_level(logging.WARNING):
            run(main())
    assert "raise max_payload to 1048576 or more" in caplog.text
    with nats_server(NatsOptions(max_payload=4096)) as server:
        assert "raise max_payload to 4688 at least" in refusal(new_url(server))


def test_user_and_password() -> None:
    with nats_server(NatsOptions(user="ann", password="s3cret/@")) as server:
        run(use(f"nats://ann:s3cret%2F%40@{server.address}/orders"))
        place = f"nats://{server.address}/orders"
        run(use(place, NATS_USER="ann", NATS_PASSWORD="s3cret/@"))
        for said in (
            refusal(place),
            refusal(place, NATS_USER="ann", NATS_PASSWORD="s3cret"),
            refusal(f"nats://ann:s3cret@{server.address}/orders"),
        ):
            assert "authorization" in said.lower()
            assert "s3cret" not in said


def test_a_token() -> None:
    with nats_server(NatsOptions(token="s3cret")) as server:
        run(use(f"nats://s3cret@{server.address}/orders"))
        run(use(f"nats://{server.address}/orders", NATS_TOKEN="s3cret"))
        said = refusal(f"nats://s3cret2@{server.address}/orders")
        assert "authorization" in said.lower()
        assert "s3cret" not in said


def test_an_nkey_and_a_missing_file(tmp_path: Path) -> None:
    seed = tmp_path / "user.nk"
    nkeys: Any = import_module("nkeys")  # it has no annotations
    pair = nkeys.from_seed(nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER))
    seed.write_bytes(pair.seed)
    public = pair.public_key.decode()
    users = f"authorization {{ users: [{{ nkey: {public} }}] }}"
    with nats_server(NatsOptions(extra=users)) as server:
        place = f"nats://{server.address}/orders"
        run(use(f"{place}?nkey={seed}"))
        run(use(place, NATS_NKEY=str(seed)))
        assert "authorization" in refusal(place).lower()
        assert "No such file" in refusal(f"{place}?nkey={tmp_path}/none")
        assert "No such file" in refusal(f"{place}?creds={tmp_path}/none")
        seed.write_text("s3cret")
        said = refusal(f"{place}?nkey={seed}")
        assert "s3cret" not in said
        assert server.address in said


@needs_openssl
def test_tls_and_certificates_of_clients(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    ours, theirs = authority.issue("server"), authority.issue("client")
    stranger = Authority(tmp_path / "other")
    tls = NatsTls(server=ours, authority=authority.certificate, verify=True)
    with nats_server(NatsOptions(tls=tls)) as server:
        place = f"nats://{server.address}/orders"
        trust = f"{place}?ca={authority.certificate}"
        shown = f"cert={theirs.certificate}&key={theirs.key}"
        run(use(f"{trust}&{shown}"))
        run(
            use(
                place,
                NATS_CA=str(authority.certificate),
                NATS_CERT=str(theirs.certificate),
                NATS_KEY=str(theirs.key),
            )
        )
        assert refusal(trust)  # it shows no certificate
        assert "certificate verify failed" in refusal(
            f"{place}?ca={stranger.certificate}&{shown}"
        )
        assert "certificate verify failed" in refusal(f"{place}?tls=on")
        assert "can't use" in refusal(f"{place}?ca={tmp_path}/none")


@pytest.mark.parametrize(
    ("denied", "said"),
    [
        ('["$JS.API.STREAM.CREATE.>"]', "Permissions Violation"),
        ('["coordinator.orders.0.batch"]', "Permissions Violation"),
    ],
)
def test_a_right_that_is_missing_is_named(denied: str, said: str) -> None:
    with nats_server(NatsOptions(extra=GUARDED.replace("$DENIED", denied))) as server:
        found = refusal(f"nats://some:s3cret@{server.address}/orders")
    assert said.lower() in found.lower()
    assert denied.strip('["]').rstrip(">").lower() in found.lower()
    assert "s3cret" not in found


def test_a_trim_that_is_not_allowed_is_said_and_all_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = GUARDED.replace("$DENIED", '["$JS.API.STREAM.PURGE.>"]')
    with nats_server(NatsOptions(extra=config)) as server:

        async def main() -> None:
            async with open_url(f"nats://some:s3cret@{server.address}/orders") as one:
                partition = await claim(one)
                await partition.trim(partition.end)  # no checkpoint: nothing goes
                await write(partition, "x")
                await partition.save_checkpoint(partition.end, b"")
                await partition.trim(partition.end)
                await write(partition, "y")
                await partition.aclose()
                assert texts(await read(await claim(one))) == ["x", "y"]

        run(main())
    assert "coordinator_orders_0 was not trimmed: permissions" in caplog.text


def test_a_right_that_is_taken_away_ends_the_write_at_once() -> None:
    config = GUARDED.replace("$DENIED", "[]")
    with nats_server(NatsOptions(extra=config)) as server:
        url = f"nats://some:s3cret@{server.address}/orders"

        async def write_on(partition: Partition) -> None:
            while True:
                await write(partition, "y")

        async def main() -> None:
            async with open_url(url) as journal:
                partition = await claim(journal)
                await write(partition, "x")
                server.reload(config.replace("deny: []", 'deny: ["*.*.*.batch"]'))
                with pytest.raises(UncertainError) as caught:
                    await write_on(partition)  # until the server has read it
                assert "permissions violation" in str(caught.value).lower()
                assert Kind.BATCH.name.lower() in str(caught.value)

        run(main())
