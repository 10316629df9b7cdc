"""What each answer of a server means."""

import msgspec
import pytest

from coordinator.journals.nats.answers import (
    ApiError,
    Doubtful,
    NoSpace,
    Overtaken,
    Stored,
    describe,
    is_passing,
    judge_ack,
)


def ack(**fields: object) -> bytes:
    return msgspec.json.encode({"stream": "s", "seq": 7, **fields})


def error(err_code: int, description: str = "") -> bytes:
    said = {"code": 400, "err_code": err_code, "description": description}
    return msgspec.json.encode({"error": said, "stream": "s", "seq": 0})


def judge(data: bytes, status: str = "") -> Stored | Overtaken | NoSpace | Doubtful:
    return judge_ack(status, data, stream="s", sequence=7)


def test_only_exactly_what_we_expect_is_stored() -> None:
    assert judge(ack()) == Stored()
    assert judge(ack(domain="hub", val="x")) == Stored()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (error(10071, "wrong last sequence: 9"), "does not end where we wrote last"),
        (error(10164), "does not end where we wrote last"),
        (ack(seq=8), "at sequence 8 of s, not at 7"),
        (ack(seq=6), "at sequence 6 of s, not at 7"),
        (ack(stream="t"), "stored in stream 't', not in s"),
        (ack(duplicate=True), "a duplicate of 7"),
        (msgspec.json.encode({}), "stored in stream '', not in s"),
    ],
)
def test_anything_else_that_is_stored_means_that_somebody_else_wrote(
    data: bytes, said: str
) -> None:
    verdict = judge(data)
    assert isinstance(verdict, Overtaken)
    assert said in verdict.reason


@pytest.mark.parametrize(
    "data",
    [
        error(10002),
        error(10023, "insufficient resources"),
        error(10028),
        error(10047, "insufficient storage resources available"),
        error(10077, "maximum bytes exceeded"),
        error(10077, "maximum messages exceeded"),
    ],
)
def test_what_was_refused_for_want_of_space_is_not_stored(data: bytes) -> None:
    assert isinstance(judge(data), NoSpace)


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"", "503", "has no leader now, or is gone"),
        (b"+OK", "", "an answer that is none"),
        (error(10077, "write failed"), "", "write failed (10077)"),
        (error(10054, "too large"), "", "raise max_msg_size of the stream"),
        (error(0, ""), "", "no reason given (400)"),
    ],
)
def test_of_anything_else_nobody_knows(data: bytes, status: str, said: str) -> None:
    verdict = judge(data, status)
    assert isinstance(verdict, Doubtful)
    assert said in verdict.reason


def test_an_error_says_what_to_do_if_that_is_known() -> None:
    assert describe(ApiError(503, 10076, "JetStream not enabled")) == (
        "JetStream not enabled (10076); start the server with JetStream: "
        "nats-server -js"
    )
    assert describe(ApiError(400, 12345, "odd")) == "odd (12345)"


def test_an_election_passes_and_a_missing_stream_does_not() -> None:
    assert is_passing(ApiError(503, 10008))
    assert not is_passing(ApiError(404, 10059))
