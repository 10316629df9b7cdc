"""The admin socket, asked by its own client, of a coordinator in this process."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import pytest

from cmdstream import Client, ClientOptions
from coordinator import Coordinator, Options, Refused, Retry, Workflow
from coordinator.api import admin_messages as messages
from coordinator.api.admin import AdminServer
from coordinator.api.admin_socket import journal_folder, within

T = TypeVar("T")
TIMEOUT_S = 120.0


class Desk:
    """A service whose answers the test decides."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def stamp(self, name: str) -> str:
        self.asked.set()
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return f"stamped {name}"

    async def unstamp(self, stamp: str) -> None:
        pass


@dataclass
class Stamp:
    name: str
    copies: int = 1

    def key(self) -> str:
        return self.name

    async def exec(self, workflow: Workflow, desk: Desk) -> dict[str, str]:
        return {"said": await workflow.step(desk.stamp, self.name).undo(desk.unstamp)}


def test_a_command_is_accepted_and_its_end_told(tmp_path: Path) -> None:
    async def scenario(desk: Desk, client: Client) -> None:
        accepted = await client.send(_submit('{"name": "a"}'))
        assert isinstance(accepted, messages.Accepted)
        ended = await _last(client, _submit('{"name": "a"}', wait=True))
        assert ended == messages.Ended(
            id=accepted.id,  # of the same key
            type="Stamp",
            status="completed",
            result='{"said":"stamped a"}',
            reason="",
        )

    _run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("type_", "payload", "message"),
    [
        ("Stump", "{}", "no command 'Stump' is served here; there are: Stamp"),
        ("Stamp", "{", "Stamp: not JSON: Input data was truncated"),
        ("Stamp", "{}", "Stamp needs the field 'name'"),
        ("Stamp", '{"name": "a", "nam": 1}', "Stamp has no field 'nam'"),
        ("Stamp", '{"name": 1}', "Expected `str`, got `int` - at `$.name`"),
        ("Stamp", "[]", "Expected `object`, got `array`"),
    ],
)
def test_what_cannot_be_submitted_says_why(
    tmp_path: Path, type_: str, payload: str, message: str
) -> None:
    async def scenario(desk: Desk, client: Client) -> None:
        failed = await client.send(
            messages.Submit(type=type_, payload=payload, wait=False)
        )
        assert isinstance(failed, messages.Failed)
        assert failed.kind == "usage"
        assert message in failed.message

    _run(tmp_path, scenario)


def test_a_refusal_is_an_end_too(tmp_path: Path) -> None:
    async def scenario(desk: Desk, client: Client) -> None:
        desk.error = Refused("no ink")
        ended = await _last(client, _submit('{"name": "a"}', wait=True))
        assert isinstance(ended, messages.Ended)
        assert (ended.status, ended.reason) == ("compensated", "no ink")

    _run(tmp_path, scenario)


class Choosy(Refused):
    """Can't be made again from what is stored of it."""

    def __new__(cls, reason: str, code: int) -> Self:
        return super().__new__(cls, reason, code)

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


def test_a_refusal_that_can_not_be_made_again_is_told_all_the_same(
    tmp_path: Path,
) -> None:
    async def scenario(desk: Desk, client: Client) -> None:
        desk.error = Choosy("no ink", 7)
        ended = await _last(client, _submit('{"name": "a"}', wait=True))
        assert isinstance(ended, messages.Ended)
        assert (ended.status, ended.reason) == ("compensated", "no ink")

    _run(tmp_path, scenario)


def test_a_stuck_workflow_is_listed_retried_and_waited_for(tmp_path: Path) -> None:
    async def scenario(desk: Desk, client: Client) -> None:
        desk.error = ValueError("jammed")
        stuck = await _last(client, _submit('{"name": "a"}', wait=True))
        assert isinstance(stuck, messages.Ended)
        assert stuck.status == "stuck"
        assert "jammed" in stuck.reason
        listed = await client.send(messages.List(statuses=["stuck"]))
        assert isinstance(listed, messages.Workflows)
        assert [(i.id, i.status) for i in listed.items] == [(stuck.id, "stuck")]
        desk.error = None
        retried = messages.Retry(id=stuck.id, by="ann", wait=True)
        ended = await _last(client, retried)
        assert isinstance(ended, messages.Ended)
        assert ended.status == "completed"

    _run(tmp_path, scenario)


def test_a_running_workflow_is_cancelled_and_waited_for(tmp_path: Path) -> None:
    async def scenario(desk: Desk, client: Client) -> None:
        desk.may_answer.clear()
        accepted = await client.send(_submit('{"name": "a"}'))
        assert isinstance(accepted, messages.Accepted)
        await desk.asked.wait()
        cancel = messages.Cancel(id=accepted.id, by="bob", reason="late", wait=True)
        async with client.stream(cancel) as results:
            assert isinstance(await anext(results), messages.Accepted)
            desk.may_answer.set()
            ended = await anext(results)
        assert isinstance(ended, messages.Ended)
        assert (ended.status, ended.reason) == ("cancelled", "cancelled by bob: late")

    _run(tmp_path, scenario)


def test_what_does_not_fit_the_state_is_a_conflict(tmp_path: Path) -> None:
    async def scenario(desk: Desk, client: Client) -> None:
        desk.may_answer.clear()
        accepted = await client.send(_submit('{"name": "a"}'))
        assert isinstance(accepted, messages.Accepted)
        failed = await client.send(messages.Retry(id=accepted.id, by="ann"))
        assert isinstance(failed, messages.Failed)
        assert failed.kind == "conflict"
        assert "not stuck" in failed.message
        desk.may_answer.set()

    _run(tmp_path, scenario)


@pytest.mark.parametrize(
    "command",
    [
        messages.Show(id="0-99"),
        messages.Wait(id="0-99"),
        messages.Retry(id="0-99", by="ann"),
        messages.Retry(id="nonsense", by="ann", wait=True),
        messages.Cancel(id="0-99", by="ann", reason=""),
    ],
)
def test_an_unknown_workflow_is_not_found(tmp_path: Path, command: object) -> None:
    async def scenario(desk: Desk, client: Client) -> None:
        failed = await client.send(command)
        assert isinstance(failed, messages.Failed)
        assert failed.kind == "not found"

    _run(tmp_path, scenario)


def test_lists_are_filtered_limited_and_counted(tmp_path: Path) -> None:
    async def scenario(desk: Desk, client: Client) -> None:
        desk.may_answer.clear()
        for name in "abc":
            await client.send(_submit(f'{{"name": "{name}"}}'))
        some = await client.send(messages.List(type="Stamp", limit=2))
        assert isinstance(some, messages.Workflows)
        assert [info.key for info in some.items] == ["a", "b"]
        assert some.total == 3
        none = await client.send(messages.List(type="Other"))
        assert none == messages.Workflows(items=[], total=0)
        shown = await client.send(messages.Show(id=some.items[0].id))
        assert isinstance(shown, messages.Workflows)
        assert shown.items[0].status == "running"
        desk.may_answer.set()

    _run(tmp_path, scenario)


def test_the_server_says_how_it_is(tmp_path: Path) -> None:
    async def scenario(desk: Desk, client: Client) -> None:
        status = await client.send(messages.Status())
        assert isinstance(status, messages.Server)
        assert status.pid == os.getpid()
        assert status.commands == ["Stamp"]
        assert (status.unfinished, status.stuck, status.closed) == (0, 0, "")

    _run(tmp_path, scenario)


def test_who_waits_is_told_when_the_coordinator_stops(tmp_path: Path) -> None:
    async def main() -> None:
        async with _served(tmp_path / "j") as (coordinator, desk, admin):
            desk.may_answer.clear()
            client = await _connect(tmp_path / "j")
            async with client, client.stream(_submit('{"name":"a"}', True)) as results:
                accepted = await anext(results)
                assert isinstance(accepted, messages.Accepted)
                await desk.asked.wait()
                await coordinator.aclose()
                failed = await anext(results)
            assert isinstance(failed, messages.Failed)
            assert failed.kind == "unavailable"
            assert "goes on at the next start" in failed.message
            admin.stop_accepting()

    asyncio.run(_bounded(main()))


def test_only_its_owner_may_connect(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "j").mkdir(mode=0o755)
        async with _served(tmp_path / "j") as (_, _, admin):
            path = tmp_path / "j" / "admin.sock"
            assert admin.path == str(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            names = {entry.name for entry in (tmp_path / "j").iterdir()}
            assert names == {"admin.sock", "journal.json", "LOCK", "p0"}
        assert not path.exists()

    asyncio.run(_bounded(main()))


def test_a_socket_that_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "j"
        (folder / ".admin").mkdir(parents=True)
        for left in (folder / "admin.sock", folder / ".admin" / "s"):
            with socket.socket(socket.AF_UNIX) as stale:
                stale.bind(str(left))
        # A journal is not made where strangers are: the killed server had made it.
        moved = tmp_path / "left"
        folder.rename(moved)
        async with _coordinator(folder):
            pass
        for left in (moved / "admin.sock", moved / ".admin"):
            left.rename(folder / left.name)
        async with _served(folder), await _connect(folder) as client:
            assert isinstance(await client.send(messages.Status()), messages.Server)

    asyncio.run(_bounded(main()))


def test_a_socket_of_the_next_server_is_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with _served(tmp_path / "j") as (_, _, admin):
            path = tmp_path / "j" / "admin.sock"
            path.unlink()
            path.touch()
            admin.stop_accepting()
            assert path.exists()

    asyncio.run(_bounded(main()))


def test_a_path_that_is_too_long_for_a_socket_is_reached_all_the_same(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        folder = tmp_path / ("a" * 100) / ("b" * 100)
        async with _served(folder), await _connect(folder) as client:
            assert isinstance(await client.send(messages.Status()), messages.Server)

    asyncio.run(_bounded(main()))


def test_a_journal_in_memory_has_no_socket() -> None:
    async def main() -> None:
        coordinator = Coordinator(Desk(), commands=[Stamp], journal="memory:")
        admin = AdminServer(coordinator)
        async with coordinator:
            assert await admin.listen() is None
            await admin.aclose()

    asyncio.run(_bounded(main()))


def test_only_file_urls_name_a_folder() -> None:
    assert journal_folder("file:./a%20b?partitions=2") == "./a b"
    assert journal_folder("file:///var/a") == "/var/a"
    assert journal_folder("memory:") is None
    assert journal_folder(None) is None


def test_json_that_is_nested_too_deep_is_the_persons_fault(tmp_path: Path) -> None:
    async def scenario(_desk: Desk, client: Client) -> None:
        for payload in ("[" * 100_000, '{"name": "\\ud800"}x'):
            failed = await client.send(_submit(payload))
            assert isinstance(failed, messages.Failed)
            assert failed.kind == "usage"
            assert "not JSON" in failed.message

    _run(tmp_path, scenario)


def test_who_waits_is_told_of_the_stop(tmp_path: Path) -> None:
    async def main() -> None:
        async with _served(tmp_path / "j") as (_, desk, admin):
            desk.may_answer.clear()
            async with await _connect(tmp_path / "j") as client:
                command = _submit('{"name": "a"}', wait=True)
                async with client.stream(command) as results:
                    assert isinstance(await anext(results), messages.Accepted)
                    await admin.aclose()
                    failed = await anext(results)
            assert isinstance(failed, messages.Failed)
            assert failed.kind == "unavailable"
            assert "goes on at the next start" in failed.message

    asyncio.run(_bounded(main()))


def test_the_socket_is_removed_wherever_the_process_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with _served(Path("j")) as (_, _, admin):
            assert admin.path == str(tmp_path / "j" / "admin.sock")
            monkeypatch.chdir("/")
            admin.stop_accepting()
            assert not (tmp_path / "j" / "admin.sock").exists()

    asyncio.run(_bounded(main()))


Scenario = Callable[[Desk, Client], Awaitable[None]]


def _run(tmp_path: Path, scenario: Scenario) -> None:
    async def main() -> None:
        async with (
            _served(tmp_path / "j") as (_, desk, _),
            await _connect(tmp_path / "j") as client,
        ):
            await scenario(desk, client)

    asyncio.run(_bounded(main()))


async def _bounded(work: Awaitable[T]) -> T:
    async with asyncio.timeout(TIMEOUT_S):
        return await work


@asynccontextmanager
async def _coordinator(folder: Path) -> AsyncGenerator[tuple[Coordinator[Desk], Desk]]:
    desk = Desk()
    coordinator = Coordinator(
        desk,
        commands=[Stamp],
        journal=f"file:{folder}",
        options=Options(retry=Retry(first_s=0.01, attempts_max=1)),
    )
    async with coordinator:
        yield coordinator, desk


@asynccontextmanager
async def _served(
    folder: Path,
) -> AsyncGenerator[tuple[Coordinator[Desk], Desk, AdminServer]]:
    async with _coordinator(folder) as (coordinator, desk):
        admin = AdminServer(coordinator)
        await admin.listen()
        try:
            yield coordinator, desk, admin
        finally:
            await admin.aclose()


async def _connect(folder: Path) -> Client:
    with within(str(folder)) as short:
        return await Client.connect_unix(
            f"{short}/admin.sock",
            messages.admin_codec(),
            options=ClientOptions(server_info=messages.SERVER_INFO),
        )


def _submit(payload: str, wait: bool = False) -> messages.Submit:
    return messages.Submit(type="Stamp", payload=payload, wait=wait)


async def _last(client: Client, command: object) -> object:
    async with client.stream(command) as results:
        accepted = await anext(results)
        assert isinstance(accepted, messages.Accepted)
        assert not accepted.last
        return await anext(results)
