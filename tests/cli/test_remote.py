"""What is said of a server that stops, hangs or refuses; and of what can't be sent."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from tests.cli.modules import SHOP
from tests.cli.runner import ask, invoke
from tests.processes import TIMEOUT_S, Server, eventually, serving

from coordinator.api.admin_messages import Status
from coordinator.cli import remote
from coordinator.cli.exits import CliError
from coordinator.cli.offline import unfinished
from coordinator.journals.segments import inspect
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.store import StoreOptions
from coordinator.log import Log, LogOptions
from coordinator.model import EndStatus, Position
from coordinator.records import Accepted, Finished

ORDER = '{"order_id": "o-1", "sku": "sku", "cents": 5}'
SUBMIT = ("submit", "PlaceOrder", ORDER)


@pytest.mark.parametrize(
    "command",
    [
        ("list",),
        ("show", "0-1"),
        ("retry", "0-1"),
        ("cancel", "0-1"),
        SUBMIT,
        (*SUBMIT, "--wait"),
    ],
)
def test_a_server_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(remote, "ANSWER_S", 0.1)

    async def main() -> None:
        async with serving(tmp_path, SHOP) as server:
            server.signal(signal.SIGSTOP)
            ended = await ask(tmp_path, *command)
            assert ended.code == 5
            assert "does not answer: it is stopped, or hangs" in ended.stderr
            diagnosis = await ask(tmp_path, "doctor", "--json")
            checks = {check["name"]: check for check in diagnosis.json()["checks"]}
            assert "does not answer" in checks["server"]["found"]
            assert "SIGCONT" in checks["server"]["advice"]

    asyncio.run(main())


def test_a_server_that_falls_silent_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ANSWER_S", 0.3)
    (tmp_path / "payments.mode").write_text("hang")

    async def main() -> None:
        async with serving(tmp_path, SHOP) as server:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(ask(tmp_path, *SUBMIT, "--wait"))
                await eventually((tmp_path / "payments.hangs").exists)
                # Longer than a pong may take: as long as it is alive, it is waited for.
                await asyncio.sleep(1)
                assert not waiting.done()
                server.signal(signal.SIGSTOP)
            ended = waiting.result()
            assert ended.code == 5
            assert ended.stderr.startswith("0-1 accepted\n")
            assert "does not answer" in ended.stderr
            assert "`coordinator show 0-1` says how it stands" in ended.stderr

    asyncio.run(main())


@pytest.mark.parametrize("end", ["stopped", "killed"])
@pytest.mark.parametrize("json", [(), ("--json",)])
def test_who_waits_is_told_the_id_and_the_servers_end(
    tmp_path: Path, end: str, json: tuple[str, ...]
) -> None:
    (tmp_path / "payments.mode").write_text("hang")

    async def main() -> None:
        async with serving(tmp_path, SHOP, "--drain", "0") as server:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(ask(tmp_path, *SUBMIT, "--wait", *json))
                await eventually((tmp_path / "payments.hangs").exists)
                await _end(server, end)
            ended = waiting.result()
            assert (ended.code, ended.stdout) == (5, "")
            assert ended.stderr.startswith("0-1 accepted\nerror: ")
            assert "`coordinator show 0-1` says how it stands" in ended.stderr
            said = "0-1 goes on at the" if end == "stopped" else "hung up"
            assert said in ended.stderr

    asyncio.run(main())


async def _end(server: Server, how: str) -> None:
    if how == "stopped":
        assert await server.stop() == 0
    else:
        server.kill()
        await server.exited()


def test_ctrl_c_leaves_the_id_behind(tmp_path: Path) -> None:
    (tmp_path / "payments.mode").write_text("delay")

    async def main() -> None:
        async with serving(tmp_path, SHOP):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "coordinator", *SUBMIT, "--wait"),
                *("--journal", "journal"),
                cwd=tmp_path,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                assert process.stderr is not None
                async with asyncio.timeout(TIMEOUT_S):
                    assert await process.stderr.readline() == b"0-1 accepted\n"
                    process.send_signal(signal.SIGINT)
                    assert await process.wait() == 130
            finally:
                with suppress(ProcessLookupError):
                    process.kill()

    asyncio.run(main())


def test_what_cannot_be_sent_is_the_persons_fault(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, SHOP):
            for payload, said in (
                (b'{"order_id": "\xff"}', "the JSON is not UTF-8"),
                (b'{"order_id": "' + b"x" * 17_000_000 + b'"}', "the limit is"),
                (b"[" * 100_000, "not JSON"),
            ):
                ended = await asyncio.to_thread(
                    invoke, tmp_path, "submit", "PlaceOrder", "-", answer=payload
                )
                assert ended.code == 2
                assert said in ended.stderr
            surrogate = await ask(tmp_path, "submit", "PlaceOrder", '{"a": "\udcff"}')
            assert surrogate.code == 2
            type_ = await ask(tmp_path, "list", "--type", "\udcff")
            assert type_.code == 2

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_closed_folder_is_not_taken_for_a_server(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(CliError, match=r"can't look into .*: Permission denied"):
            remote.ask(str(folder), Status(), object)
    finally:
        os.seteuid(0)


def test_a_journal_that_is_trimmed_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = asyncio.run(_trimmed(tmp_path))
    expected = [info.id for info in unfinished(PosixFolder(path))]
    assert expected
    info = inspect.info

    def before_the_trimming(folder: Folder) -> inspect.JournalInfo:
        """Say once what stood there before the last checkpoint."""
        monkeypatch.setattr(inspect, "info", info)
        found = info(folder)
        old = msgspec.structs.replace(found.partitions[0], checkpoint=None)
        return msgspec.structs.replace(found, partitions=(old,))

    monkeypatch.setattr(inspect, "info", before_the_trimming)
    assert [info.id for info in unfinished(PosixFolder(path))] == expected


async def _trimmed(folder: Path) -> str:
    """Make a journal whose oldest segments are gone, with one unfinished workflow."""
    path = str(folder / "journal")
    journal = await SegmentJournal.open_folder(
        PosixFolder.make(path), options=StoreOptions(segment_size=8192, retention_s=0)
    )
    log = await Log.open(
        journal, 0, owner="x", clock=lambda: 1, options=LogOptions(), on_failure=print
    )
    before: Position | None = None
    for _ in range(100):
        accepted = Accepted(type="Order", codec="json", payload=b"{}", at=1)
        workflow, durable = log.accept(accepted)
        await durable
        if before is not None:
            end = Finished(workflow=before, status=EndStatus.COMPLETED, value=b"", at=1)
            await log.append(end)
        before = workflow.position
    await log.checkpoint()
    await log.partition.aclose()
    await journal.aclose()
    segments = inspect.info(PosixFolder(path)).partitions[0].segments
    assert segments[0].base > 0
    return path


def test_without_a_server_what_is_delayed_is_among_the_unfinished(
    tmp_path: Path,
) -> None:
    (tmp_path / "payments.mode").write_text("delay")

    async def main() -> None:
        async with serving(tmp_path, SHOP) as server:
            assert (await ask(tmp_path, *SUBMIT)).code == 0
            await server.stop()
        listed = await ask(tmp_path, "list", "--status", "delayed", "--json")
        assert [info["id"] for info in listed.json()["workflows"]] == ["0-1"]
        assert "only a server knows" in listed.stderr
        aborting = await ask(tmp_path, "list", "--status", "aborting", "--json")
        assert aborting.json()["workflows"] == []

    asyncio.run(main())
