"""``coordinator journal``, on a journal at rest, in use, and damaged."""

import asyncio
import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from tests.cli.modules import SHOP
from tests.cli.runner import ask, invoke
from tests.processes import eventually, run_cli, running_cli, serving

from coordinator import Coordinator, Refused, Workflow
from coordinator.batch import encode_batch
from coordinator.cli.locks import lock_holder
from coordinator.errors import JournalError
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.store import StoreOptions
from coordinator.journals.urls import open_journal
from coordinator.log import Log, LogOptions
from coordinator.model import EndStatus, Position
from coordinator.records import (
    Accepted,
    Claimed,
    Finished,
    Held,
    Outcome,
    Record,
    Released,
    encode_record,
)


class Desk:
    async def stamp(self, name: str) -> str:
        if name == "refused":
            raise Refused("no ink")
        return f"stamped {name}"


@dataclass
class Stamp:
    name: str

    async def exec(self, workflow: Workflow, desk: Desk) -> str:
        return await workflow.step(desk.stamp, self.name)


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a journal of two ended workflows. Not to be changed."""
    folder = tmp_path_factory.mktemp("journals")

    async def main() -> None:
        url = f"file:{folder / 'journal'}?partitions=2"
        async with Coordinator(Desk(), commands=[Stamp], journal=url) as coordinator:
            await coordinator.execute(Stamp("a"))
            with pytest.raises(Refused):
                await coordinator.execute(Stamp("refused"))

    asyncio.run(main())
    return folder


def test_info_names_partitions_segments_and_checkpoints(folder: Path) -> None:
    with _unchanged(folder):
        ended = invoke(folder, "journal", "info")
    assert ended.code == 0
    assert "partition 0  not in use" in ended.stdout
    assert "partition 1  not in use" in ended.stdout
    assert "00000000000000000000.seg" in ended.stdout
    described = invoke(folder, "journal", "info", "--json").json()
    assert described["holders"] == [None, None]
    assert len(described["journal"]["partitions"]) == 2


def test_dump_prints_every_record_with_its_values(folder: Path) -> None:
    with _unchanged(folder):
        ended = invoke(folder, "journal", "dump", "--json")
    records = [msgspec.json.decode(line) for line in ended.stdout.splitlines()]
    kinds = [(r["partition"], r["record"]["record"]) for r in records]
    assert kinds == [
        (0, "Claimed"),
        (0, "Accepted"),
        (0, "Outcome"),
        (0, "Aborting"),
        (0, "Finished"),
        (1, "Claimed"),
        (1, "Accepted"),
        (1, "Outcome"),
        (1, "Finished"),
    ]
    assert records[6]["record"]["payload"] == {"name": "a"}
    assert records[7]["record"]["value"] == "stamped a"
    assert records[7]["record"]["status"] == "done"
    readable = invoke(folder, "journal", "dump").stdout
    assert 'payload={"name":"a"}' in readable
    assert "workflow=1-1 step=Desk.stamp value=stamped a" in readable


def test_dump_prints_what_owners_say_of_themselves(tmp_path: Path) -> None:
    records: list[Record] = [
        Claimed(1, "shop-1", 10**6, 20_000),
        Held(2 * 10**6),
        Released(3),
    ]

    async def main() -> None:
        journal = await open_journal(f"file:{tmp_path / 'journal'}")
        partition = await journal.open(0, owner="us", at=1)
        await partition.write(
            encode_batch(
                [encode_record(record) for record in records],
                epoch=partition.epoch,
                first=partition.end,
                previous_crc=partition.crc,
            )
        )
        await partition.aclose()
        await journal.aclose()

    asyncio.run(main())
    lines = invoke(tmp_path, "journal", "dump", "--json").stdout.splitlines()
    assert [msgspec.json.decode(line)["record"] for line in lines] == [
        {"record": "Claimed", "epoch": 1, "owner": "us", "at": 1, "lease_ms": 0},
        {
            "record": "Claimed",
            "epoch": 1,
            "owner": "shop-1",
            "at": 10**6,
            "lease_ms": 20_000,
        },
        {"record": "Held", "at": 2 * 10**6},
        {"record": "Released", "at": 3},
    ]
    first, claimed, held, released = (
        line.split() for line in invoke(tmp_path, "journal", "dump").stdout.splitlines()
    )
    assert first[-3:] == ["Claimed", "epoch=1", "owner=us"]
    assert claimed[-4:] == ["Claimed", "epoch=1", "owner=shop-1", "lease_ms=20000"]
    assert (held[-1], released[-1]) == ("Held", "Released")
    assert invoke(tmp_path, "journal", "verify").code == 0
    assert "Released" in invoke(tmp_path, "journal", "tail").stdout


def test_dump_can_be_limited(folder: Path) -> None:
    one = invoke(folder, "journal", "dump", "--workflow", "1-1")
    assert len(one.stdout.splitlines()) == 3
    since = invoke(folder, "journal", "dump", "--partition", "0", "--since", "3")
    assert [line.split()[0] for line in since.stdout.splitlines()] == ["0-3", "0-4"]
    assert invoke(folder, "journal", "dump", "--workflow", "x").code == 2
    missing = invoke(folder, "journal", "dump", "--partition", "2")
    assert missing.code == 2
    assert "the journal has 2" in missing.stderr
    missing = invoke(folder, "journal", "dump", "--workflow", "2-1")
    assert missing.code == 2
    assert "the journal has 2" in missing.stderr


def test_a_workflow_of_a_partition_that_is_not_there_is_not_found(folder: Path) -> None:
    for id_ in ("0-999", "2-1", "99-1"):
        shown = invoke(folder, "show", id_)
        assert shown.code == 3
        assert f"no workflow {id_} is in" in shown.stderr


def test_tail_prints_the_last_records(folder: Path) -> None:
    with _unchanged(folder):
        ended = invoke(folder, "journal", "tail", "-n", "2", "--partition", "1")
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["1-2", "1-3"]
    assert invoke(folder, "journal", "tail", "-n", "0").stdout == ""


def test_verify_says_that_all_is_well(folder: Path) -> None:
    with _unchanged(folder):
        ended = invoke(folder, "journal", "verify")
    assert ended.code == 0
    assert "partition 0: ok, 5 records in" in ended.stdout
    assert invoke(folder, "journal", "verify", "--json").json()["ok"] is True


def test_damage_is_found_with_its_file_and_offset(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"file:{tmp_path / 'journal'}"
        async with Coordinator(Desk(), commands=[Stamp], journal=url) as coordinator:
            await coordinator.execute(Stamp("a"))

    asyncio.run(main())
    (segment,) = (tmp_path / "journal" / "p0").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[data.index(b"Stamp")] ^= 0xFF  # in a batch with valid ones behind it
    segment.write_bytes(data)
    verified = invoke(tmp_path, "journal", "verify")
    assert verified.code == 6
    assert f"{segment} at byte" in verified.stdout
    as_json = invoke(tmp_path, "journal", "verify", "--json")
    assert as_json.code == 6
    (problem,) = as_json.json()["partitions"][0]["problems"]
    assert problem["path"] == str(segment)
    assert 0 < problem["offset"] < len(data)
    dumped = invoke(tmp_path, "journal", "dump")
    assert dumped.code == 6
    assert "Claimed" in dumped.stdout  # what lies before it
    assert str(problem["offset"]) in dumped.stderr
    assert invoke(tmp_path, "list").code == 6
    assert invoke(tmp_path, "show", "0-1").code == 6
    checked = invoke(tmp_path, "doctor")
    assert checked.code == 6


async def _damaged_checkpoint(tmp_path: Path) -> Path:
    """Make a journal whose oldest segments are gone and whose checkpoint is damaged."""
    folder = PosixFolder.make(str(tmp_path / "journal"))
    journal = await SegmentJournal.open_folder(
        folder, options=StoreOptions(segment_size=8192, retention_s=0)
    )

    def failed(error: JournalError) -> None:
        raise AssertionError(error)

    log = await Log.open(
        journal, 0, owner="x", clock=lambda: 1, options=LogOptions(), on_failure=failed
    )
    before: Position | None = None
    for _ in range(100):
        workflow, durable = log.accept(
            Accepted(type="Stamp", codec="json", payload=b'{"name": "a"}', at=1)
        )
        await durable
        # One ends when the next has begun: what is kept speaks of what is not.
        if before is not None:
            await log.append(
                Outcome(workflow=before, step="a.b", occurrence=0, value=b"", at=1)
            )
            await log.append(
                Finished(workflow=before, status=EndStatus.COMPLETED, value=b"", at=1)
            )
        before = workflow.position
    await log.checkpoint()
    await log.partition.aclose()  # as if killed: without the checkpoint of a stop
    await journal.aclose()
    segments = sorted(path.name for path in (tmp_path / "journal/p0").glob("*.seg"))
    assert segments[0] != "00000000000000000000.seg"
    checkpoint = tmp_path / "journal/p0/checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1] + b"?")
    return checkpoint


def test_a_damaged_checkpoint_can_be_forgotten_and_what_runs_goes_on(
    tmp_path: Path,
) -> None:
    checkpoint = asyncio.run(_damaged_checkpoint(tmp_path))
    damaged = checkpoint.read_bytes()
    listed = invoke(tmp_path, "list")
    assert listed.code == 6
    command = "journal forget-checkpoint --partition 0"
    assert f"`coordinator {command}`" in " ".join(listed.stderr.split())
    refused = invoke(tmp_path, *command.split())
    assert refused.code == 1  # nobody answered
    assert checkpoint.read_bytes() == damaged
    done = invoke(tmp_path, *command.split(), "--yes")
    assert done.code == 0
    assert "partition 0: is read from position" in done.stdout
    assert (checkpoint.parent / "checkpoint.damaged").read_bytes() == damaged
    (unfinished,) = invoke(tmp_path, "list", "--json").json()["workflows"]

    async def main() -> None:
        url = f"file:{tmp_path / 'journal'}"
        async with Coordinator(Desk(), commands=[Stamp], journal=url):
            pass

    asyncio.run(main())
    assert invoke(tmp_path, "show", unfinished["id"], "--json").code == 0
    again = invoke(tmp_path, *command.split(), "--yes")
    assert (again.code, "nothing to forget" in again.stdout) == (0, True)


def test_a_lost_checkpoint_is_replaced_and_a_no_changes_nothing(tmp_path: Path) -> None:
    checkpoint = asyncio.run(_damaged_checkpoint(tmp_path))
    checkpoint.unlink()
    command = ("journal", "forget-checkpoint")
    no = invoke(tmp_path, *command, answer="n")
    assert (no.code, "nothing was changed" in no.stderr) == (1, True)
    assert invoke(tmp_path, *command, "--partition", "1").code == 2
    assert invoke(tmp_path, *command, answer="y").code == 0
    assert invoke(tmp_path, "journal", "verify").code == 0
    assert invoke(tmp_path, "list").code == 0


def test_what_is_no_journal_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    for command in ("info", "verify", "dump", "tail", "forget-checkpoint"):
        ended = invoke(tmp_path, "journal", command)
        assert ended.code == 5
        assert "is not a journal" in ended.stderr
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_journal_that_is_written_can_be_read_and_followed(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, SHOP) as server:
            await ask(tmp_path, "submit", "Count", '{"number": 1}', "--wait")
            described = (await ask(tmp_path, "journal", "info", "--json")).json()
            assert described["holders"] == [server.pid]
            assert (
                f"pid {server.pid}" in described["journal"]["partitions"][0]["holder"]
            )
            text = await ask(tmp_path, "journal", "info")
            assert f"held by process {server.pid}" in text.stdout
            assert (await ask(tmp_path, "journal", "verify")).code == 0
            arguments = ("journal", "tail", "./journal", "--follow")
            async with running_cli(tmp_path, *arguments) as line:
                assert "Claimed" in await line()
                assert "Accepted" in await line()
                assert "Finished" in await line()
                await ask(tmp_path, "submit", "Count", '{"number": 41}', "--wait")
                assert '"number":41' in await line()
            assert await server.stop() == 0

    asyncio.run(main())


def test_the_lock_of_a_killed_process_is_seen_to_be_free(tmp_path: Path) -> None:
    async def main() -> None:
        lock = str(tmp_path / "journal" / "p0" / "LOCK")
        async with serving(tmp_path, SHOP) as server:
            assert lock_holder(lock) == server.pid
            server.kill()
            assert await server.exited() == -signal.SIGKILL
        await eventually(lambda: lock_holder(lock) is None)

    asyncio.run(main())


def test_what_the_kernel_says_of_locks_is_read_with_care(tmp_path: Path) -> None:
    file = tmp_path / "LOCK"
    file.touch()
    inode = file.stat().st_ino
    locks = tmp_path / "locks"
    locks.write_text(
        f"1: POSIX  ADVISORY  WRITE 1 00:00:{inode} 0 EOF\n"
        f"2: FLOCK  ADVISORY  READ 2 00:00:{inode} 0 EOF\n"
        f"3: FLOCK  ADVISORY  WRITE 3 00:00:{inode + 1} 0 EOF\n"
        f"4: -> FLOCK  ADVISORY  WRITE 4 00:00:{inode} 0 EOF\n"
        "nonsense\n"
    )
    assert lock_holder(str(file), locks) is None
    with locks.open("a") as more:
        more.write(f"5: FLOCK  ADVISORY  WRITE 5 00:00:{inode} 0 EOF\n")
    assert lock_holder(str(file), locks) == 5  # as on overlay: another device
    assert lock_holder(str(tmp_path / "missing"), locks) is None
    assert lock_holder(str(file), tmp_path / "missing") is None


def test_commands_work_as_processes_too(folder: Path) -> None:
    ended = asyncio.run(run_cli(folder, "journal", "verify", "file:./journal"))
    assert ended.code == 0


@contextmanager
def _unchanged(folder: Path) -> Generator[None]:
    """Check that no file was made, changed or touched."""

    def look() -> list[tuple[str, int, int]]:
        return [
            (str(path), path.stat().st_mtime_ns, path.stat().st_size)
            for path in sorted(folder.rglob("*"))
        ]

    before = look()
    yield
    assert look() == before
