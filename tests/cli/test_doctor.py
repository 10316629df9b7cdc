"""``coordinator doctor``: what it finds, beside a running server and without one."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cli.modules import SHOP
from tests.cli.runner import ask, invoke
from tests.journals.nats.support import new_url
from tests.processes import Ended, run_cli, serving
from tests.servers import kafka
from tests.servers.nats import shared_server

from coordinator import Coordinator, Workflow
from coordinator.cli import checks
from coordinator.cli.measuring import file_system, measure_flushes
from coordinator.journals.kafka import client


def test_a_running_server_is_seen_and_not_disturbed(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "payments.mode").write_text("break")
        async with serving(tmp_path, SHOP) as server:
            order = '{"order_id": "o-1", "sku": "sku", "cents": 5}'
            stuck = await ask(tmp_path, "submit", "PlaceOrder", order, "--wait")
            assert stuck.code == 1
            before = sorted(os.listdir(tmp_path / "journal"))  # noqa: PTH208
            ended = await ask(tmp_path, "doctor", "--json")
            assert sorted(os.listdir(tmp_path / "journal")) == before  # noqa: PTH208
            found = _by_name(ended)
            assert f"process {server.pid} runs it" in found["server"]["found"]
            assert found["stuck"]["level"] == "warning"
            assert "--status stuck" in found["stuck"]["advice"]
            assert found["journal"]["level"] == "ok"
            assert "1 partition, 1 segment" in found["journal"]["found"]
            assert "old" in found["times"]["found"]
            assert await server.stop() == 0

    asyncio.run(main())


def test_without_a_server_it_says_that_none_runs(tmp_path: Path) -> None:
    _make_journal(tmp_path)
    ended = invoke(tmp_path, "doctor")
    assert ended.code in {0, 1}  # the disk of the test may be in memory
    assert "none is running" in ended.stdout
    assert "a flush takes" in ended.stdout
    assert "coordinator 0." in ended.stdout


def test_a_record_of_the_future_is_a_warning(tmp_path: Path) -> None:
    _make_journal(tmp_path, ahead_us=3_600_000_000)
    found = _by_name(invoke(tmp_path, "doctor", "--json"))
    assert found["times"]["level"] == "warning"
    assert "in the future" in found["times"]["found"]
    assert "clock was set back" in found["times"]["advice"]


def test_a_folder_that_cannot_be_looked_into_is_a_problem(tmp_path: Path) -> None:
    # Root may look into all folders, but not into a link to itself.
    loop = tmp_path / "journal"
    loop.symlink_to(loop)
    found = _by_name(invoke(tmp_path, "doctor", "--json"))
    assert found["journal"]["level"] == "problem"
    assert f"can't look into {loop}" in found["journal"]["found"]
    listed = invoke(tmp_path, "list")
    assert listed.code == 5
    loop.unlink()
    loop.touch()
    found = _by_name(invoke(tmp_path, "doctor", "--json"))
    assert found["journal"]["found"] == f"{loop} is not a folder"


def test_a_folder_that_does_not_exist_is_a_warning(tmp_path: Path) -> None:
    found = _by_name(invoke(tmp_path, "doctor", "--json"))
    assert found["journal"]["level"] == "warning"
    assert "does not exist" in found["journal"]["found"]
    assert not (tmp_path / "journal").exists()


def test_what_is_no_journal_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "photo.jpg").touch()
    ended = invoke(tmp_path, "doctor", "--json")
    assert ended.code == 1
    assert _by_name(ended)["journal"]["level"] == "problem"


def test_a_coordinator_without_an_admin_socket_is_told_apart(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"file:{tmp_path / 'journal'}"
        async with Coordinator(Desk(), commands=[Stamp], journal=url):
            found = _by_name(await ask(tmp_path, "doctor", "--json"))
        assert found["server"]["level"] == "warning"
        assert f"process {os.getpid()} holds the journal" in found["server"]["found"]

    asyncio.run(main())


def test_other_journals_are_passed_over() -> None:
    ended = invoke(Path("/nowhere"), "doctor", "--journal", "memory:")
    assert "server" not in ended.stdout


def test_a_journal_in_kafka_is_looked_at_by_its_topic() -> None:
    broker = kafka.shared_server()
    url = broker.url("doctor-looks")
    found = _by_name(invoke(Path("/nowhere"), "doctor", "--json", "--journal", url))
    assert "does not exist" in found["topic"]["found"]
    assert "disk" not in found
    assert "kafka" in found["version"]["found"]
    kafka.create_topic(broker.admin(), "doctor-looks")
    ended = invoke(Path("/nowhere"), "doctor", "--json", "--journal", url)
    assert ended.code == 1
    found = _by_name(ended)
    assert found["copies"]["level"] == "warning"
    assert found["retention"]["level"] == found["size"]["level"] == "problem"
    assert "--add-config max.message.bytes=" in found["size"]["advice"]


def test_a_journal_in_kafka_that_can_not_be_looked_at_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "ASK_TIMEOUT_S", 1.0)
    url = "kafka://ann:s3cret@127.0.0.1:1/orders"
    ended = invoke(Path("/nowhere"), "doctor", "--journal", url)
    assert ended.code == 1
    assert "can't reach kafka://127.0.0.1:1/orders" in ended.stdout
    assert "s3cret" not in ended.stdout + ended.stderr
    ended = invoke(Path("/nowhere"), "doctor", "--journal", "kafka://host/a?x=1")
    assert ended.code == 2
    assert "unknown option 'x'" in ended.stderr


def test_a_journal_in_nats_is_looked_at_with_its_servers() -> None:
    url = new_url(shared_server())
    found = _by_name(invoke(Path("/nowhere"), "doctor", "--json", "--journal", url))
    assert found["server"]["found"] == "nats-server 2.14.9, alone"
    assert "does not exist" in found["journal"]["found"]
    assert "sync_interval: always" in found["flush"]["advice"]
    assert "disk" not in found
    assert "nats" in found["version"]["found"]


def test_a_journal_in_nats_that_can_not_be_looked_at_is_a_problem() -> None:
    url = "nats://ann:s3cret@127.0.0.1:1/orders"
    ended = invoke(Path("/nowhere"), "doctor", "--journal", url)
    assert ended.code == 1
    assert "nats://127.0.0.1:1/orders can't be opened" in ended.stdout
    assert "s3cret" not in ended.stdout + ended.stderr
    ended = invoke(Path("/nowhere"), "doctor", "--journal", "nats://host/a_b")
    assert ended.code == 2
    assert "letters, digits and hyphens" in ended.stderr


def test_no_journal_at_all_is_fine_and_it_runs_as_a_process(tmp_path: Path) -> None:
    ended = asyncio.run(run_cli(tmp_path, "doctor", "--json"))
    assert {"version", "disk", "flush", "clock", "space"} <= _by_name(ended).keys()


@pytest.mark.parametrize(
    ("constant", "value", "name", "level"),
    [
        ("FLUSH_HONEST_US", 10**9, "flush", "warning"),
        ("FLUSH_SLOW_US", -1, "flush", "warning"),
        ("FREE_SEGMENTS_MIN", 10**12, "space", "warning"),
        ("FILES_MIN", 10**12, "files", "warning"),
        ("CLOCK_DRIFT_US_MAX", -1, "clock", "warning"),
    ],
)
def test_each_limit_has_its_finding_and_its_advice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    constant: str,
    value: int,
    name: str,
    level: str,
) -> None:
    monkeypatch.setattr(checks, "FLUSH_HONEST_US", 0)
    monkeypatch.setattr(checks, constant, value)
    found = _by_name(invoke(tmp_path, "doctor", "--json", "--journal", str(tmp_path)))
    assert found[name]["level"] == level
    assert found[name]["advice"]


@pytest.mark.parametrize(
    ("url", "size"),
    [
        ("{}", "64 MiB"),
        ("file:{}", "64 MiB"),
        ("file:{}?segment_mib=1&retention=2h", "1 MiB"),
    ],
)
def test_space_is_measured_by_the_segments_that_the_url_asks_for(
    tmp_path: Path, url: str, size: str
) -> None:
    journal = url.format(tmp_path)
    found = _by_name(invoke(tmp_path, "doctor", "--json", "--journal", journal))
    assert found["space"]["found"].endswith(f"are free, a segment is {size}")


def test_segments_that_do_not_fit_are_a_problem(tmp_path: Path) -> None:
    url = f"file:{tmp_path}?segment_mib={2**20}"  # of a TiB
    found = _by_name(invoke(tmp_path, "doctor", "--json", "--journal", url))
    assert found["space"]["level"] == "problem"
    assert found["space"]["advice"]


def test_a_url_that_serve_would_refuse_is_refused(tmp_path: Path) -> None:
    ended = invoke(tmp_path, "doctor", "--journal", f"file:{tmp_path}?segment_mb=1")
    assert ended.code == 2
    assert "unknown option 'segment_mb'" in ended.stderr


def test_a_flush_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    flushes = measure_flushes(str(tmp_path), count=5)
    assert flushes.count == 5
    assert 0 <= flushes.p50_us <= flushes.p99_us
    assert list(tmp_path.iterdir()) == []


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    real = os.path.realpath(tmp_path)
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        f"2 1 0:5 / {real} rw shared:1 - tmpfs tmpfs rw\n"
        f"3 1 0:6 / {real}-other rw - nfs4 host:/ rw\n"
        "nonsense\n"
    )
    assert file_system(str(tmp_path), mounts) == "tmpfs"
    assert file_system("/", mounts) == "ext4"
    assert file_system("/", tmp_path / "missing") == ""


class Desk:
    pass


@dataclass
class Stamp:
    async def exec(self, workflow: Workflow, desk: Desk) -> None:
        pass


def _make_journal(folder: Path, ahead_us: int = 0) -> None:
    async def main() -> None:
        url = f"file:{folder / 'journal'}"
        coordinator = Coordinator(
            Desk(), commands=[], journal=url, clock=lambda: checks.now_us() + ahead_us
        )
        async with coordinator:
            pass

    asyncio.run(main())


def _by_name(ended: Ended) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in ended.json()["checks"]}
