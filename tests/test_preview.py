"""New code over what old code recorded: old code writes a real journal, new code reads.

Each test runs `exec` of an old version until its services keep it, and judges what is
on the disk then by the `exec` of a new version. No service may be called for that.
"""

import asyncio
import dataclasses
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator import CommandDelayed, Coordinator, Options, Refused, Retry, Workflow
from coordinator.app import Handle
from coordinator.cli.offline import opened, partitions
from coordinator.errors import WorkflowStuckError
from coordinator.preview import TURNS_MAX, Asked, Finding, Prospect, Recorded

Exec = Callable[[Any, Workflow, "Shop"], Awaitable[Any]]


class Shop:
    """Does what it is asked for; keeps callers waiting, or refuses, where told."""

    def __init__(
        self, *, keeps: str = "", refuses: str = "", waits: int = 1, last: str = ""
    ) -> None:
        self.called: list[str] = []
        self._keeps, self._refuses, self._last = keeps, refuses, last
        self._waits = waits
        self.kept = asyncio.Event()

    async def _do(self, name: str) -> str:
        self.called.append(name)
        if name in self._keeps.split():
            self._waits -= 1
            if not self._waits:
                self.kept.set()
            await asyncio.get_running_loop().create_future()
        if name in self._refuses.split():
            raise Refused(f"no {name}")
        if name == self._last:
            self.kept.set()  # its outcome is recorded before anybody wakes by this
        return name

    async def reserve(self) -> str:
        return await self._do("reserve")

    async def release(self, _: str) -> str:
        return await self._do("release")

    async def charge(self) -> str:
        return await self._do("charge")

    async def refund(self, _: str) -> str:
        return await self._do("refund")

    async def book(self) -> str:
        return await self._do("book")

    async def count(self) -> int:
        self.called.append("count")
        return 1


def order(exec_: Exec, *fields: str, name: str = "Order") -> type[Any]:
    made: type[Any] = dataclasses.make_dataclass(
        name, [(field, str) for field in ("sku", *fields)], namespace={"exec": exec_}
    )
    return made


def write(
    folder: Path, exec_: Exec, shop: Shop, *, cancel: bool = False, stuck: bool = False
) -> None:
    """Run *exec_* until *shop* keeps it, or it is stuck; then end the process."""
    class_ = order(exec_)

    async def main() -> None:
        coordinator = Coordinator(
            shop,
            commands=[class_],
            journal=f"file:{folder / 'journal'}",
            options=Options(retry=Retry(attempts_max=1)),
        )
        async with coordinator:
            handle: Handle[Any] = await coordinator.submit(class_("sku-1"))
            if stuck:
                with pytest.raises(WorkflowStuckError):
                    await handle.result()
            else:
                await shop.kept.wait()
            if cancel:
                await coordinator.cancel(handle.id, by="ann")

    asyncio.run(main())


def judge(folder: Path, class_: Exec | type[Any]) -> Finding:
    """Return the one finding about what `write` left."""
    shop = Shop(keeps="reserve release charge refund book")
    new = class_ if isinstance(class_, type) else order(class_)
    preview = Coordinator(shop, commands=[new]).preview()
    before = files(folder)
    with opened(str(folder / "journal")) as journal:
        findings = [
            preview.judge(state)
            for partition in partitions(journal)
            for state in partition.workflows.values()
        ]
    assert shop.called == []
    assert files(folder) == before
    assert len(findings) == 1
    return findings[0]


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def old(_: Any, workflow: Workflow, shop: Shop) -> str:
    await workflow.step(shop.reserve).undo(shop.release)
    await workflow.step(shop.charge).undo(shop.refund)
    return await workflow.step(shop.book)


# -- forward ---------------------------------------------------------------------------


def test_the_same_code_goes_on_where_it_was(tmp_path: Path) -> None:
    write(tmp_path, old, Shop(keeps="book"))
    finding = judge(tmp_path, old)
    assert finding.prospect is Prospect.GOES_ON
    assert finding.said == "goes on at Shop.book"
    assert finding.asked == (Asked("Shop.book", 0, "do"),)
    assert (finding.id, finding.type, finding.status) == ("0-1", "Order", "running")


def test_code_that_renames_a_step_calls_it_again_and_loses_the_old_one(
    tmp_path: Path,
) -> None:
    async def renamed(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.reserve).undo(shop.release)
        await workflow.step(shop.charge).named("cards.charge").undo(shop.refund)
        await workflow.step(shop.book)

    write(tmp_path, old, Shop(keeps="book"))
    finding = judge(tmp_path, renamed)
    assert finding.prospect is Prospect.DIFFERS
    assert finding.asked == (Asked("cards.charge", 0, "do"),)
    assert finding.recorded == (Recorded("Shop.charge", 0, "done"),)
    assert finding.said == (
        "calls cards.charge, and has not asked for Shop.charge (done)"
    )


def test_a_refusal_that_is_not_asked_for_is_another_path_too(tmp_path: Path) -> None:
    async def catching(_: Any, workflow: Workflow, shop: Shop) -> None:
        try:
            await workflow.step(shop.charge)
        except Refused:
            await workflow.step(shop.book)

    async def booking(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.reserve)

    write(tmp_path, catching, Shop(keeps="book", refuses="charge"))
    assert judge(tmp_path, catching).prospect is Prospect.GOES_ON
    finding = judge(tmp_path, booking)
    assert finding.prospect is Prospect.DIFFERS
    assert finding.recorded == (Recorded("Shop.charge", 0, "refused"),)


def test_code_that_completes_without_asking_for_what_was_done_differs(
    tmp_path: Path,
) -> None:
    async def short(_: Any, workflow: Workflow, shop: Shop) -> str:
        return await workflow.step(shop.reserve)

    async def enough(_: Any, workflow: Workflow, shop: Shop) -> str:
        await workflow.step(shop.reserve)
        return await workflow.step(shop.charge)

    write(tmp_path, old, Shop(keeps="book"))
    finding = judge(tmp_path, short)
    assert finding.prospect is Prospect.DIFFERS
    assert finding.said == (
        "ends at once, completed, and has not asked for Shop.charge (done)"
    )
    finding = judge(tmp_path, enough)
    assert finding.prospect is Prospect.ENDS
    assert finding.said == "ends at once, completed"


def test_what_is_done_and_has_no_undo_is_listed(tmp_path: Path) -> None:
    async def careless(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.reserve).undo(shop.release)
        await workflow.step(shop.charge)
        await workflow.step(shop.book)

    write(tmp_path, old, Shop(keeps="book"))
    assert judge(tmp_path, old).without_undo == ()
    finding = judge(tmp_path, careless)
    assert finding.prospect is Prospect.GOES_ON
    assert finding.without_undo == (Recorded("Shop.charge", 0, "done"),)


def test_a_bug_in_the_new_code_is_told_as_the_engine_would(tmp_path: Path) -> None:
    async def broken(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.reserve)
        raise KeyError("price")

    write(tmp_path, old, Shop(keeps="book"))
    finding = judge(tmp_path, broken)
    assert finding.prospect is Prospect.STUCK
    assert finding.said.startswith("exec raised KeyError: 'price'\n")


# -- decoding --------------------------------------------------------------------------


def test_an_outcome_that_does_not_decode_is_told_with_its_step(tmp_path: Path) -> None:
    async def counting(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.count).named("Shop.reserve")

    write(tmp_path, old, Shop(keeps="book"))
    finding = judge(tmp_path, counting)
    assert finding.prospect is Prospect.OUTCOME_UNREADABLE
    assert finding.recorded == (Recorded("Shop.reserve", 0, "done"),)
    assert finding.said.startswith("Shop.reserve: ")


def test_a_command_that_got_a_field_does_not_decode(tmp_path: Path) -> None:
    write(tmp_path, old, Shop(keeps="book"))
    finding = judge(tmp_path, order(old, "color"))
    assert finding.prospect is Prospect.PAYLOAD_UNREADABLE
    assert "color" in finding.said


def test_a_command_that_is_gone_is_named(tmp_path: Path) -> None:
    write(tmp_path, old, Shop(keeps="book"))
    finding = judge(tmp_path, order(old, name="Purchase"))
    assert finding.prospect is Prospect.COMMAND_GONE
    assert "no command Order any more" in finding.said


# -- turning back ----------------------------------------------------------------------


def test_who_turns_back_goes_on_at_the_undo(tmp_path: Path) -> None:
    write(tmp_path, old, Shop(refuses="book", keeps="refund"))
    finding = judge(tmp_path, old)
    assert finding.status == "aborting"
    assert finding.prospect is Prospect.GOES_ON
    assert finding.asked == (Asked("Shop.charge", 0, "undo"),)
    assert finding.said == "goes on at undo of Shop.charge"


def test_an_undo_that_is_lost_is_told_with_what_stands(tmp_path: Path) -> None:
    async def renamed(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.reserve).named("stock.reserve").undo(shop.release)
        await workflow.step(shop.charge).undo(shop.refund)
        await workflow.step(shop.book)

    write(tmp_path, old, Shop(refuses="book", keeps="refund"))
    finding = judge(tmp_path, renamed)
    assert finding.prospect is Prospect.UNDO_LOST
    assert [one.step for one in finding.recorded] == ["Shop.reserve", "Shop.charge"]
    assert "can't undo Shop.reserve, Shop.charge" in finding.said


def test_what_is_undone_already_need_not_be_asked_for(tmp_path: Path) -> None:
    async def shorter(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.reserve).undo(shop.release)

    write(tmp_path, old, Shop(refuses="book", keeps="release"))
    finding = judge(tmp_path, shorter)
    assert finding.said == "goes on at undo of Shop.reserve"
    assert finding.prospect is Prospect.GOES_ON


def test_one_that_is_being_cancelled_asks_first_for_what_nobody_knows(
    tmp_path: Path,
) -> None:
    write(tmp_path, old, Shop(keeps="book"), cancel=True)
    finding = judge(tmp_path, old)
    assert finding.status == "cancelling"
    assert finding.said == "goes on at Shop.book"


def test_a_step_that_was_started_and_is_not_asked_for_loses_its_undo(
    tmp_path: Path,
) -> None:
    async def both(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.gather(
            workflow.step(shop.reserve).undo(shop.release),
            workflow.step(shop.charge).undo(shop.refund),
        )

    async def refusing(_: Any, workflow: Workflow, shop: Shop) -> None:
        raise Refused("closed")

    write(tmp_path, both, Shop(keeps="reserve charge", waits=2))
    same = judge(tmp_path, both)
    assert same.said == "goes on at Shop.reserve, Shop.charge"
    # The engine runs it once more, patiently, before it says so.
    finding = judge(tmp_path, refusing)
    assert finding.prospect is Prospect.UNDO_LOST
    assert [one.outcome for one in finding.recorded] == ["unknown", "unknown"]


# -- stuck -----------------------------------------------------------------------------


def test_a_fix_is_seen_to_help_who_is_stuck(tmp_path: Path) -> None:
    async def buggy(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.reserve).undo(shop.release)
        raise KeyError("price")

    async def worse(_: Any, workflow: Workflow, shop: Shop) -> None:
        raise ValueError("price")

    write(tmp_path, buggy, Shop(), stuck=True)
    fixed = judge(tmp_path, old)
    assert fixed.status == "stuck"
    assert fixed.said == "goes on at Shop.charge, once it is retried"
    assert judge(tmp_path, buggy).prospect is Prospect.STILL_STUCK
    assert judge(tmp_path, worse).prospect is Prospect.STUCK


# -- what exec does besides -----------------------------------------------------------


def test_sleeps_take_no_time_and_time_outs_around_a_call_do_not_expire(
    tmp_path: Path,
) -> None:
    async def slow(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.reserve)
        await asyncio.sleep(1e6)
        async with asyncio.timeout(5):
            await workflow.step(shop.charge)

    write(tmp_path, old, Shop(keeps="charge"))
    assert judge(tmp_path, slow).said == "goes on at Shop.charge"


def test_a_sibling_that_sleeps_first_is_waited_for(tmp_path: Path) -> None:
    pauses = [0.0, 3600.0]

    async def twins(_: Any, workflow: Workflow, shop: Shop) -> None:
        async def charge() -> None:
            await asyncio.sleep(pauses.pop(0))
            await workflow.step(shop.charge)

        async with asyncio.TaskGroup() as group:
            group.create_task(charge())
            await workflow.step(shop.book)

    write(tmp_path, twins, Shop(keeps="book", waits=2, last="charge"))
    finding = judge(tmp_path, twins)
    assert finding.prospect is Prospect.GOES_ON
    assert finding.said == "goes on at Shop.book"


def test_a_call_that_a_time_out_cuts_off_is_where_it_goes_on(tmp_path: Path) -> None:
    async def hasty(_: Any, workflow: Workflow, shop: Shop) -> None:
        async with asyncio.timeout(5):
            await workflow.step(shop.book)

    write(tmp_path, old, Shop(keeps="charge"))
    finding = judge(tmp_path, hasty)  # time passes here: `reserve` was not asked for
    assert finding.prospect is Prospect.DIFFERS
    assert finding.asked == (Asked("Shop.book", 0, "do"),)


def test_code_that_comes_to_no_step_is_given_up(tmp_path: Path) -> None:
    async def turning(_: Any, workflow: Workflow, shop: Shop) -> None:
        for second in itertools.count():
            await asyncio.sleep(second)

    async def waiting(_: Any, workflow: Workflow, shop: Shop) -> None:
        await asyncio.get_running_loop().create_future()

    async def leaving(_: Any, workflow: Workflow, shop: Shop) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        finally:
            await asyncio.get_running_loop().create_future()

    write(tmp_path, old, Shop(keeps="reserve"))
    finding = judge(tmp_path, turning)
    assert finding.prospect is Prospect.NO_STEP
    assert finding.said == f"exec comes to no step and no end in {TURNS_MAX} turns"
    finding = judge(tmp_path, waiting)
    assert finding.prospect is Prospect.NO_STEP
    assert finding.said == "exec waits for what is no step, and nothing wakes it"
    assert judge(tmp_path, leaving).prospect is Prospect.NO_STEP


def test_what_ends_the_process_ends_only_the_run(tmp_path: Path) -> None:
    async def exiting(_: Any, workflow: Workflow, shop: Shop) -> None:
        async def leave() -> None:
            raise SystemExit(3)

        async with asyncio.TaskGroup() as group:
            group.create_task(leave())

    write(tmp_path, old, Shop(keeps="reserve"))
    finding = judge(tmp_path, exiting)
    assert finding.prospect is Prospect.NO_STEP
    assert "SystemExit: 3" in finding.said


def test_threads_are_run_in_place_and_failures_of_theirs_are_the_codes(
    tmp_path: Path,
) -> None:
    async def threading(_: Any, workflow: Workflow, shop: Shop) -> None:
        assert await asyncio.to_thread(int, "5") == 5
        with pytest.raises(ValueError, match="invalid literal"):
            await asyncio.to_thread(int, "five")
        await old(_, workflow, shop)

    write(tmp_path, old, Shop(keeps="book"))
    assert judge(tmp_path, threading).said == "goes on at Shop.book"


def test_what_exec_notes_stays_in_memory(tmp_path: Path) -> None:
    async def noting(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.append_outcome("notes", "x")
        assert [outcome.value for outcome in workflow.outcomes] == ["x"]
        await workflow.step(shop.reserve)

    write(tmp_path, old, Shop(keeps="reserve"))
    assert judge(tmp_path, noting).said == "goes on at Shop.reserve"


def test_code_that_delays_itself_goes_on(tmp_path: Path) -> None:
    async def later(_: Any, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.reserve)
        raise CommandDelayed("closed on Sundays")

    write(tmp_path, old, Shop(keeps="charge"))
    assert judge(tmp_path, later).said == "goes on: exec delays itself"


def test_what_exec_leaves_behind_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def leaving(_: Any, workflow: Workflow, shop: Shop) -> None:
        async def beat() -> None:
            try:
                for second in itertools.count():
                    await asyncio.sleep(second)
            finally:
                await asyncio.sleep(1)  # refuses to be closed, once

        tasks.append(asyncio.get_running_loop().create_task(beat()))
        await asyncio.sleep(0)
        await old(_, workflow, shop)

    write(tmp_path, old, Shop(keeps="book"))
    assert judge(tmp_path, leaving).said == "goes on at Shop.book"
    tasks.clear()
    assert caplog.records == []
