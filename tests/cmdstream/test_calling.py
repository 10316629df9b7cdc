"""Who waits for what on one connection; the rest is in test_client.py."""

from cmdstream import RemoteProtocolError
from cmdstream.calling import closed_error

REASON = RemoteProtocolError("gibberish")


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
