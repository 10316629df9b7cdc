"""The rules alone; `test_cmdstream` has them at work."""

import ssl
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from tests.gateways.messages import make

from cmdstream import ConnectionClosedError
from coordinator.context import StepContext
from coordinator.gateways.base import REASON_LENGTH_MAX, Answer
from coordinator.gateways.cmdstream_rules import (
    DETAILS_SIZE_MAX,
    address_of,
    answers_of,
    check_classes,
    details_of,
    fails_in_tls,
    fields_to_fill,
    filled,
    reason_of,
)
from coordinator.model import Direction, StepId

STEP = StepContext("k-1", 7, "0-1", StepId("payments.charge", 0), Direction.DO, 0)


@dataclass(frozen=True)
class Charge:
    cents: int
    idempotency_key: str = ""
    traceparent: str = "stale"


class Refund(msgspec.Struct, frozen=True):
    id: str
    idempotency_key: str = ""


Note = make("Note", text=str, coordinator_epoch=int)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Charge, ("idempotency_key", "traceparent")),
        (Refund, ("idempotency_key",)),
        (Note, ("coordinator_epoch",)),
        (str, ()),
    ],
)
def test_the_gateways_fields_are_known_by_name(kind: Any, names: Any) -> None:
    assert fields_to_fill(kind) == names


@pytest.mark.parametrize(
    ("command", "after"),
    [
        # Without a trace the field is emptied: what it had is no trace of this call.
        (Charge(5), Charge(5, "k-1", "")),
        (Refund("p"), Refund("p", "k-1")),
        (Note(text="a"), Note(text="a", coordinator_epoch=7)),
        ("bare", "bare"),
    ],
)
def test_a_copy_is_filled_in(command: Any, after: Any) -> None:
    names = fields_to_fill(command.__class__)
    assert filled(command, names, STEP) == after
    assert getattr(command, "idempotency_key", "") == ""


@pytest.mark.parametrize("into", [list[int], "Paid", None, (int, list[int])])
def test_what_no_result_can_be_told_by_is_refused(into: Any) -> None:
    with pytest.raises(TypeError, match="into= takes a class"):
        check_classes(into)
    check_classes((int, Charge))


def test_what_means_done_is_said_by_into() -> None:
    with pytest.raises(ValueError, match="into=Charge"):
        answers_of({Charge: Answer.DID})
    given = {Charge: Answer.REFUSED}
    assert answers_of(given) == given
    assert answers_of(None) == {}


@pytest.mark.parametrize(
    ("result", "details", "reason"),
    [
        (Refund("p", "k"), {"id": "p", "idempotency_key": "k"}, ""),
        (Note(text="a"), {"text": "a"}, ""),
        ({"Message": "no", "n": 1}, {"Message": "no", "n": 1}, "no"),
        ({"detail": "", "title": "t"}, {"detail": "", "title": "t"}, "t"),
        ({"reason": 5}, {"reason": 5}, ""),
        ("x" * 600, {}, "x" * REASON_LENGTH_MAX),
        ({"reason": "x" * DETAILS_SIZE_MAX}, {}, ""),
        ({"reason": object()}, {}, ""),
        ([1], {}, ""),
    ],
)
def test_a_result_has_fields_and_words(result: Any, details: Any, reason: str) -> None:
    assert details_of(result) == details
    assert reason_of(result, details) == reason


@pytest.mark.parametrize(
    ("address", "split"),
    [
        ("payments:9000", ("payments", 9000)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:9000", ("::1", 9000)),
        ("unix:/run/p.sock", ("/run/p.sock", None)),
    ],
)
def test_an_address_is_a_host_and_a_port_or_a_socket(
    address: str, split: tuple[str, int | None]
) -> None:
    assert address_of(address) == split


@pytest.mark.parametrize(
    "address",
    [
        "",
        "payments",
        "payments:",
        ":9000",
        "payments:0",
        "payments:65536",
        "payments:x",
        "u:secret@payments:9000",
        "tcp://payments:9000",
        "::1:9000",
        "unix:",
        "a b:1",
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(ValueError, match="address must be host:port") as refused:
        address_of(address)
    assert "secret" not in str(refused.value)


def lost(message: str, cause: Exception | None = None) -> ConnectionClosedError:
    error = ConnectionClosedError(message)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_tls"),
    [
        (lost("refused", ConnectionRefusedError()), False),
        (lost("cannot connect", ssl.SSLCertVerificationError("bad")), True),
        (lost("cannot connect", ssl.SSLError("wrong version")), True),
        (lost("cannot connect", ssl.SSLEOFError("gone")), False),
        (lost("cannot connect", ssl.SSLZeroReturnError("gone")), False),
        (lost("lost: [SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert"), True),
        (lost("lost: [SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred"), False),
    ],
)
def test_the_faults_of_tls_are_told_from_lost_connections(
    error: ConnectionClosedError, is_tls: bool
) -> None:
    assert fails_in_tls(error) is is_tls
