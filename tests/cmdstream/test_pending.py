"""The table of commands that await results."""

import pytest

from cmdstream import ConnectionClosedError, RemoteProtocolError
from cmdstream.pending import PendingCommands, closed_error

REASON = RemoteProtocolError("gibberish")


def table() -> PendingCommands[str]:
    pending: PendingCommands[str] = PendingCommands()
    pending.add(1, "one")
    pending.add(2, "two")
    return pending


def test_an_entry_stays_until_its_last_result() -> None:
    pending = table()
    assert pending.get(1) == "one"
    assert pending.get(3) is None
    assert pending.take(1, is_last=False) == "one"
    assert pending.take(1, is_last=True) == "one"
    assert pending.take(1, is_last=True) is None
    assert len(pending) == 1
    assert 1 not in pending
    assert 2 in pending


def test_a_forgotten_entry_gets_no_results() -> None:
    pending = table()
    assert pending.forget(1)
    assert not pending.forget(1)
    assert pending.take(1, is_last=False) is None


def test_a_closed_table_hands_back_every_entry_once_and_takes_no_more() -> None:
    pending = table()
    pending.check_open()
    assert not pending.reason
    assert pending.close(REASON) == ["one", "two"]
    assert pending.close(ConnectionClosedError("later")) == []
    assert pending.reason is REASON
    with pytest.raises(ConnectionClosedError, match="gibberish") as caught:
        pending.check_open()
    assert caught.value.__cause__ is REASON


def test_each_waiter_gets_an_error_of_its_own() -> None:
    first = closed_error(REASON, may_have_run=True)
    second = closed_error(REASON, may_have_run=True)
    assert first is not second
    assert str(first) == str(second) == "gibberish; the command may have run"
    assert first.may_have_run


def test_an_error_says_if_nothing_was_sent() -> None:
    error = closed_error(REASON, may_have_run=False)
    assert str(error) == "gibberish; the command was not sent"
    assert not error.may_have_run
    assert error.__cause__ is REASON
