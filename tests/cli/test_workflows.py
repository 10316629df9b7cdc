"""``submit``, ``list``, ``show``, ``retry`` and ``cancel``, against real servers."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import msgspec
from tests.cli.modules import SHOP, WITHOUT_ORDERS
from tests.cli.runner import ask
from tests.processes import Ended, eventually, run_cli, serving

ORDER = '{"order_id": "o-1", "sku": "sku", "cents": 5}'


def test_an_order_is_submitted_waited_for_and_shown(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, SHOP) as server:
            done = await _process(tmp_path, "submit", "PlaceOrder", ORDER, "--wait")
            assert done.code == 0, done.stderr
            assert "completed" in done.stdout
            again = await _process(tmp_path, "submit", "PlaceOrder", ORDER, "--json")
            id_ = again.json()["id"]
            assert done.stdout.startswith(f"{id_} ")  # the same key, the same workflow
            assert done.stderr == f"{id_} accepted\n"  # no progress without a terminal
            shown = await _process(tmp_path, "show", id_)
            assert "✓ payments.charge" in shown.stdout
            listed = await _process(tmp_path, "list")
            assert (listed.code, listed.stdout) == (0, "")
            assert listed.stderr == "nothing is unfinished\n"
            assert await server.stop() == 0

    asyncio.run(main())


def test_an_order_that_is_undone_exits_with_1(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "shipping.mode").write_text("refuse")
        async with serving(tmp_path, SHOP):
            done = await ask(
                tmp_path, "submit", "PlaceOrder", ORDER, "--wait", "--json"
            )
            assert done.code == 1
            ended = done.json()
            assert ended["status"] == "compensated"
            assert ended["reason"] == "shipping says no"
            assert ended["result"] is None
            shown = await _show(tmp_path, ended["id"])
            assert shown["live"] is None
            assert [u["step"] for u in shown["timeline"]["undos"]] == [
                "payments.charge",
                "inventory.reserve",
            ]
            text = await ask(tmp_path, "show", ended["id"])
            assert "turned back" in text.stdout
            assert text.stdout.count("undone") == 2

    asyncio.run(main())


def test_the_wrong_state_and_unknown_ids_have_their_codes(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "payments.mode").write_text("delay")
        async with serving(tmp_path, SHOP):
            submitted = await ask(tmp_path, "submit", "PlaceOrder", ORDER)
            id_ = submitted.stdout.strip()
            conflict = await ask(tmp_path, "retry", id_)
            assert conflict.code == 4
            assert "not stuck" in conflict.stderr
            unknown = await ask(tmp_path, "retry", "0-9999")
            assert unknown.code == 3
            nonsense = await ask(tmp_path, "show", "nonsense")
            assert nonsense.code == 2
            wrong = await ask(tmp_path, "submit", "Nothing", "{}")
            assert wrong.code == 2
            assert "there are: Count, PlaceOrder" in wrong.stderr
            missing = await ask(tmp_path, "submit", "PlaceOrder", '{"sku": "a"}')
            assert missing.code == 2
            assert "'order_id'" in missing.stderr

    asyncio.run(main())


def test_a_delayed_order_is_seen_cancelled_and_undone(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "shipping.mode").write_text("delay")
        async with serving(tmp_path, SHOP):
            submitted = await ask(tmp_path, "submit", "PlaceOrder", ORDER)
            id_ = submitted.stdout.strip()

            async def is_delayed() -> bool:
                live = (await _show(tmp_path, id_))["live"]
                return bool(live["attempts"] >= 2)

            await eventually(is_delayed)
            live = (await _show(tmp_path, id_))["live"]
            assert "shipping timed out" in live["reason"]
            cancelled = await ask(
                tmp_path, "cancel", id_, "--by", "ann", "--reason", "late"
            )
            assert cancelled.code == 0, cancelled.stderr
            twice = await ask(tmp_path, "cancel", id_)
            assert twice.code == 4
            # Of the parcel nobody knows: it is asked again before anything is undone.
            assert (await _show(tmp_path, id_))["timeline"]["status"] == "cancelling"
            (tmp_path / "shipping.mode").unlink()

            async def is_cancelled() -> bool:
                shown = await _show(tmp_path, id_)
                return bool(shown["timeline"]["status"] == "cancelled")

            await eventually(is_cancelled)
            timeline = (await _show(tmp_path, id_))["timeline"]
            assert timeline["reason"] == "cancelled by ann: late"
            assert timeline["standing"] == ["shipping.book"]
            text = await ask(tmp_path, "show", id_)
            assert "still done in the world\n  ● shipping.book" in text.stdout

    asyncio.run(main())


def test_a_killed_coordinator_is_read_from_its_journal(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "payments.mode").write_text("hang")
        async with serving(tmp_path, SHOP) as server:
            submitted = await ask(tmp_path, "submit", "PlaceOrder", ORDER)
            id_ = submitted.stdout.strip()
            await eventually((tmp_path / "payments.hangs").exists)
            running = await ask(tmp_path, "show", id_)
            assert "running now" in running.stdout
            server.kill()
            assert await server.exited() == -signal.SIGKILL
        listed = await ask(tmp_path, "list", "--json")
        assert listed.json()["running"] is False
        assert [info["id"] for info in listed.json()["workflows"]] == [id_]
        shown = await _show(tmp_path, id_)
        assert shown["running"] is False
        assert [s["step"] for s in shown["timeline"]["steps"]] == ["inventory.reserve"]
        refused = await ask(tmp_path, "cancel", id_)
        assert refused.code == 5
        assert "no coordinator is running" in refused.stderr
        (tmp_path / "payments.mode").unlink()
        async with serving(tmp_path, SHOP):
            done = await ask(tmp_path, "submit", "PlaceOrder", ORDER, "--wait")
            assert done.stdout.startswith(f"{id_} completed")

    asyncio.run(main())


def test_a_command_type_that_disappeared_is_stuck_until_it_is_back(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        (tmp_path / "payments.mode").write_text("delay")
        async with serving(tmp_path, SHOP) as server:
            submitted = await ask(tmp_path, "submit", "PlaceOrder", ORDER)
            id_ = submitted.stdout.strip()
            assert await server.stop() == 0
        async with serving(tmp_path, WITHOUT_ORDERS) as server:
            await eventually(lambda: "is stuck" in server.log)
            listed = await ask(tmp_path, "list", "--status", "stuck")
            assert id_ in listed.stdout
            assert "the code has no command PlaceOrder any more" in listed.stdout
            shown = await ask(tmp_path, "show", id_)
            assert "■ stuck: the code has no command PlaceOrder" in shown.stdout
            # Still without its type it only gets stuck again.
            again = await ask(tmp_path, "retry", id_, "--wait")
            assert again.code == 1
            assert "stuck: the code has no command" in again.stdout
            assert await server.stop() == 0
        offline = await ask(tmp_path, "list", "--json", "--type", "PlaceOrder")
        assert offline.json()["workflows"][0]["status"] == "stuck"
        (tmp_path / "payments.mode").unlink()
        async with serving(tmp_path, SHOP):
            done = await ask(tmp_path, "retry", id_, "--by", "ann", "--wait")
            assert done.code == 0, done.stderr
            timeline = (await _show(tmp_path, id_))["timeline"]
            assert timeline["status"] == "completed"
            told = [(d["what"], d["by"]) for d in timeline["decisions"]]
            assert ("resumed", "ann") in told

    asyncio.run(main())


# Its disk is full while there is a file of that name.
FULL = f"""
{SHOP}
from coordinator.journals.segments.posix import PosixFolder

PosixFolder.free = lambda self: 0 if Path("full").exists() else 1 << 40
"""


def test_a_full_disk_is_told_by_who_is_asked_about_workflows(tmp_path: Path) -> None:
    large = msgspec.json.encode(
        {"order_id": "o-1", "sku": "s" * 600_000, "cents": 5}
    ).decode()

    async def full() -> str:
        return str((await ask(tmp_path, "list", "--json")).json()["full"])

    async def is_full() -> bool:
        return await full() != ""

    async def has_space() -> bool:
        return await full() == ""

    async def main() -> None:
        (tmp_path / "payments.mode").write_text("delay")
        url = "file:./journal?segment_mib=1"
        async with serving(tmp_path, FULL, journal=url) as server:
            assert await has_space()
            (tmp_path / "full").touch()
            # It fills half of the segment: the next one would be allocated now.
            submitted = await ask(tmp_path, "submit", "PlaceOrder", large)
            id_ = submitted.stdout.strip()
            await eventually(is_full)
            assert "./journal/p0: 1048576 bytes are needed" in await full()
            for command in (["list"], ["show", id_]):
                told = await ask(tmp_path, *command)
                assert told.code == 0
                assert "the disk is full: new commands are refused" in told.stderr
                assert "./journal/p0" in told.stderr
            assert "./journal/p0" in (await _show(tmp_path, id_))["full"]
            doctor = await ask(tmp_path, "doctor", "--json")
            assert doctor.code == 1
            (check,) = (c for c in doctor.json()["checks"] if c["name"] == "full")
            assert check["level"] == "problem"
            (tmp_path / "full").unlink()
            await eventually(has_space)
            assert (await ask(tmp_path, "list")).stderr == ""
            assert await server.stop() == 0

    asyncio.run(main())


def test_without_a_journal_or_a_server_it_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        nothing = await ask(tmp_path, "list", "--journal", "")
        assert nothing.code == 2
        assert "COORDINATOR_JOURNAL" in nothing.stderr
        memory = await ask(tmp_path, "list", "--journal", "memory:")
        assert memory.code == 2
        missing = await ask(tmp_path, "list")
        assert missing.code == 5
        assert "is not a folder" in missing.stderr
        (tmp_path / "journal").mkdir()
        empty = await ask(tmp_path, "show", "0-1")
        assert empty.code == 5
        assert "is not a journal" in empty.stderr

    asyncio.run(main())


async def _process(folder: Path, *arguments: str) -> Ended:
    return await run_cli(
        folder, *arguments, env={"COORDINATOR_JOURNAL": "file:./journal"}
    )


async def _show(folder: Path, id_: str) -> dict[str, Any]:
    shown: dict[str, Any] = (await ask(folder, "show", id_, "--json")).json()
    return shown
