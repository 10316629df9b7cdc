"""How a handle lives and dies."""

import asyncio

import pytest

from coordinator.errors import (
    FencedError,
    JournalBrokenError,
    JournalClosedError,
    JournalError,
    JournalFullError,
    UncertainError,
)
from coordinator.journals.chain import Chain
from coordinator.journals.handle import Handle, encode_claim


@pytest.fixture
def handle() -> Handle:
    return Handle(encode_claim(Chain(), owner="x", at=1))


def test_a_new_handle_is_alive(handle: Handle) -> None:
    handle.check()
    assert handle.alive
    assert (handle.epoch, handle.end) == (1, 1)


@pytest.mark.parametrize("kind", [FencedError, UncertainError, JournalBrokenError])
def test_what_killed_it_is_raised_for_ever_and_first_come_first_served(
    handle: Handle, kind: type[JournalError]
) -> None:
    handle.failed(kind("why"))
    handle.failed(JournalBrokenError("later"))
    handle.closed()
    caught: list[JournalError] = []
    for _ in range(2):
        with pytest.raises(kind, match="why") as info:
            handle.check()
        caught.append(info.value)
    # A new one each time, or the tracebacks would grow.
    assert caught[0] is not caught[1]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), RuntimeError("a bug")])
def test_what_nobody_planned_for_leaves_it_uncertain(
    handle: Handle, error: BaseException
) -> None:
    handle.failed(error)
    with pytest.raises(UncertainError, match=type(error).__name__):
        handle.check()


def test_a_full_disk_does_not_kill_it(handle: Handle) -> None:
    handle.failed(JournalFullError("no space"))
    assert handle.alive


def test_a_closed_handle_says_closed(handle: Handle) -> None:
    handle.closed()
    with pytest.raises(JournalClosedError):
        handle.check()
