"""The coordinator for scripts."""

import asyncio
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import assert_type

import pytest

from coordinator import Options, Refused, Retry, Workflow
from coordinator.errors import (
    JournalClosedError,
    JournalLockedError,
    UnknownWorkflowError,
    WorkflowStateError,
    WorkflowStuckError,
)
from coordinator.sync import Coordinator, Handle

TIMEOUT_S = 120.0


class Desk:
    """A service whose answers the test decides, from another thread."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.closed = False

    def stamp(self, name: str) -> str:
        self.asked.set()
        assert self.may_answer.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error
        return f"stamped {name}"

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Stamp:
    name: str

    def key(self) -> str:
        return self.name

    async def exec(self, workflow: Workflow, desk: Desk) -> str:
        return await workflow.step(desk.stamp, self.name)


def test_a_script_executes_and_submits() -> None:
    desk = Desk()
    with _coordinator(desk) as coordinator:
        said = coordinator.execute(Stamp("a"))
        assert_type(said, str)
        assert said == "stamped a"
        handle = coordinator.submit(Stamp("b"))
        assert_type(handle, Handle[str])
        assert handle.result(timeout=TIMEOUT_S) == "stamped b"
        assert handle.result() == "stamped b"
        assert handle.id in repr(handle)
        assert coordinator.receiver is desk
    assert desk.closed


def test_a_result_that_takes_too_long_is_left_and_asked_for_again() -> None:
    desk = Desk()
    desk.may_answer.clear()
    with _coordinator(desk) as coordinator:
        handle = coordinator.submit(Stamp("a"))
        assert desk.asked.wait(TIMEOUT_S)
        with pytest.raises(TimeoutError, match="workflow 0-1 has not ended within"):
            handle.result(timeout=0.001)
        desk.may_answer.set()
        assert handle.result(timeout=TIMEOUT_S) == "stamped a"


def test_refusals_are_raised_in_the_script() -> None:
    desk = Desk()
    desk.error = Refused("no ink")
    with _coordinator(desk) as coordinator, pytest.raises(Refused, match="no ink"):
        coordinator.execute(Stamp("a"))


def test_operators_have_the_same_names() -> None:
    desk = Desk()
    desk.error = ValueError("jammed")
    with _coordinator(desk) as coordinator:
        handle = coordinator.submit(Stamp("a"))
        with pytest.raises(WorkflowStuckError, match="jammed"):
            handle.result(timeout=TIMEOUT_S)
        assert [info.status for info in coordinator.workflows()] == ["stuck"]
        assert coordinator.workflow(handle.id).status == "stuck"
        desk.error = None
        coordinator.retry(handle.id, by="ann")
        assert handle.result(timeout=TIMEOUT_S) == "stamped a"
        with pytest.raises(UnknownWorkflowError):
            coordinator.cancel(handle.id, by="ann")


def test_a_workflow_that_is_being_undone_cannot_be_cancelled_again() -> None:
    desk = Desk()
    desk.may_answer.clear()
    with _coordinator(desk) as coordinator:
        handle = coordinator.submit(Stamp("a"))
        assert desk.asked.wait(TIMEOUT_S)
        coordinator.cancel(handle.id, by="ann", reason="late")
        with pytest.raises(WorkflowStateError):
            coordinator.cancel(handle.id, by="ann")
        desk.may_answer.set()


def test_what_is_unfinished_goes_on_at_the_next_start(tmp_path: Path) -> None:
    desk = Desk()
    desk.error = ValueError("jammed")
    url = f"file:{tmp_path / 'j'}"
    with _coordinator(desk, url) as coordinator:
        handle = coordinator.submit(Stamp("a"))
        with pytest.raises(WorkflowStuckError):
            handle.result(timeout=TIMEOUT_S)
        with pytest.raises(JournalLockedError):
            _coordinator(Desk(), url).start()
        assert coordinator.drain(TIMEOUT_S)
    desk.error = None
    with _coordinator(desk, url) as coordinator:
        coordinator.retry(handle.id, by="ann")
        assert coordinator.execute(Stamp("a")) == "stamped a"  # the same key


def test_before_the_start_and_after_the_end_it_says_so() -> None:
    coordinator = _coordinator(Desk())
    with pytest.raises(RuntimeError, match="not running"):
        coordinator.execute(Stamp("a"))
    with coordinator:
        handle = coordinator.submit(Stamp("a"))
        with pytest.raises(RuntimeError, match="started already"):
            coordinator.start()
    coordinator.close()
    for call in (
        lambda: coordinator.submit(Stamp("b")),
        coordinator.workflows,
        coordinator.drain,
    ):
        with pytest.raises(RuntimeError, match="it was closed"):
            call()
    with pytest.raises(JournalClosedError):
        handle.result()


def test_a_journal_that_cannot_be_opened_leaves_nothing_running() -> None:
    # As a set: a thread of an earlier test may end meanwhile.
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="no journal of kind"):
        _coordinator(Desk(), "ftp:").start()
    assert set(threading.enumerate()) <= before


def test_who_waits_in_another_thread_is_told_of_the_end() -> None:
    desk = Desk()
    desk.may_answer.clear()
    raised: list[BaseException] = []
    coordinator = _coordinator(desk)
    coordinator.start()
    handle = coordinator.submit(Stamp("a"))
    assert desk.asked.wait(TIMEOUT_S)

    def wait() -> None:
        try:
            handle.result()
        except JournalClosedError as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    coordinator.close()
    waiting.join(TIMEOUT_S)
    assert len(raised) == 1
    desk.may_answer.set()


def test_a_step_in_the_loop_that_would_wait_for_itself_is_told() -> None:
    class Nested:
        coordinator: "Coordinator[Nested]"

        async def ask(self) -> str:
            with pytest.raises(RuntimeError, match="wait for itself"):
                self.coordinator.workflows()
            return "told"

    @dataclass
    class Ask:
        async def exec(self, workflow: Workflow, nested: Nested) -> str:
            return await workflow.step(nested.ask)

    nested = Nested()
    nested.coordinator = Coordinator(nested, commands=[Ask], journal="memory:")
    with nested.coordinator:
        assert nested.coordinator.execute(Ask()) == "told"


def test_ctrl_c_ends_the_waiting_and_the_block_closes() -> None:
    desk = Desk()
    desk.may_answer.clear()

    def interrupt() -> None:
        assert desk.asked.wait(TIMEOUT_S)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    coordinator = _coordinator(desk)
    with pytest.raises(KeyboardInterrupt), coordinator:
        coordinator.execute(Stamp("a"))
    interrupting.join(TIMEOUT_S)
    assert desk.closed
    desk.may_answer.set()


def test_it_works_beside_a_loop_of_the_scripts_own() -> None:
    async def main() -> str:
        with _coordinator(Desk()) as coordinator:
            return await asyncio.to_thread(coordinator.execute, Stamp("a"))

    assert asyncio.run(main()) == "stamped a"


def test_a_clock_may_be_given() -> None:
    coordinator = Coordinator(
        Desk(), commands=[Stamp], journal="memory:", clock=lambda: 5
    )
    with coordinator:
        coordinator.receiver.error = ValueError()
        handle = coordinator.submit(Stamp("a"))
        assert coordinator.workflow(handle.id).accepted_at == 5


def _coordinator(desk: Desk, journal: str = "memory:") -> Coordinator[Desk]:
    return Coordinator(
        desk,
        commands=[Stamp],
        journal=journal,
        options=Options(retry=Retry(first_s=0.01, attempts_max=1)),
    )
