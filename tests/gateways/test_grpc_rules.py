import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateways.rpc_status import error_info, field, retry_info, status

from coordinator.gateways.base import REASON_LENGTH_MAX, Answer
from coordinator.gateways.grpc_rules import (
    DETAILS_SIZE_MAX,
    RETRY_AFTER_S_MAX,
    Problem,
    answer_to,
    is_answer_too_big,
    lacks_descriptors,
    metadata_of,
    problem_of,
    target_of,
)

NOTHING = Problem("", {})

TABLE = {
    Answer.DID: {"OK"},
    Answer.REFUSED: {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
    },
    Answer.UNKNOWN: {
        "CANCELLED",
        "UNKNOWN",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "ABORTED",
        "INTERNAL",
        "UNAVAILABLE",
    },
    Answer.MISCONFIGURED: {
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
        "DATA_LOSS",
    },
}

NOT_CONNECTED = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:5: "
)
BAD_CERTIFICATE = (
    "Ssl handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL "
    "routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED"
)


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_code_has_the_meaning_of_the_table(code: grpc.StatusCode) -> None:
    meanings = [answer for answer, codes in TABLE.items() if code.name in codes]
    assert [answer_to(code.name, NOTHING, {})] == meanings


def test_a_code_that_grpc_does_not_know_is_for_a_person() -> None:
    assert answer_to("17", NOTHING, {}) is Answer.MISCONFIGURED


def test_what_the_gateway_says_goes_before_the_table() -> None:
    about_the_key = Problem("Idempotency-Key", {}, names_the_key=True)
    for problem in (NOTHING, about_the_key):
        overrides = {"NOT_FOUND": Answer.DID}
        assert answer_to("NOT_FOUND", problem, overrides) is Answer.DID


@pytest.mark.parametrize("code", sorted(TABLE[Answer.REFUSED]))
@pytest.mark.parametrize(
    ("text", "details"),
    [
        ("Idempotency-Key was used for another request", b""),
        ("", status(error_info(reason="IDEMPOTENCY_KEY_IN_USE"))),
    ],
)
def test_what_names_the_key_is_no_refusal(code: str, text: str, details: bytes) -> None:
    problem = problem_of(text, details)
    assert answer_to(code, problem, {}) is Answer.MISCONFIGURED


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("CLIENT: Received message larger than max (2000 vs. 1000)", True),
        ("Stream removed (CLIENT: Received message larger than max (3 vs. 2))", True),
        ("SERVER: Received message larger than max (2000 vs. 1000)", False),
        ("grpc: received message larger than max (5 vs. 4)", False),
        ("trying to send message larger than max (5 vs. 4)", False),
        ("gRPC message exceeds maximum size 4194304: 5000000", False),
        ("Received message exceeds the maximum configured message size.", False),
        ("received metadata size exceeds hard limit (value length 9 vs. 8)", False),
        ("Stream removed (received metadata size exceeds soft limit (9 vs. 8)", False),
    ],
)
def test_a_message_that_is_too_big_stays_so(text: str, ours: bool) -> None:
    problem = problem_of(text, b"")
    assert answer_to("RESOURCE_EXHAUSTED", problem, {}) is Answer.MISCONFIGURED
    assert is_answer_too_big("RESOURCE_EXHAUSTED", problem) is ours
    assert not is_answer_too_big("INTERNAL", problem)
    quota = problem_of("1000 requests in an hour", b"")
    assert answer_to("RESOURCE_EXHAUSTED", quota, {}) is Answer.UNKNOWN


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (NOT_CONNECTED + BAD_CERTIFICATE, Answer.MISCONFIGURED),
        (NOT_CONNECTED + "connect: Connection refused (111)", Answer.UNKNOWN),
        # What the service says of its own certificates is another matter.
        (BAD_CERTIFICATE, Answer.UNKNOWN),
    ],
)
def test_tls_that_fails_is_for_a_person(text: str, answer: Answer) -> None:
    assert answer_to("UNAVAILABLE", problem_of(text, b""), {}) is answer


def test_our_own_lack_of_descriptors_is_told_from_the_services() -> None:
    ours = problem_of(NOT_CONNECTED + "socket: Too many open files (24)", b"")
    theirs = problem_of("accept: too many open files", b"")
    assert lacks_descriptors("UNAVAILABLE", ours)
    assert not lacks_descriptors("UNAVAILABLE", theirs)
    assert not lacks_descriptors("INTERNAL", ours)


def test_details_are_read_as_a_refusals_details() -> None:
    details = status(
        retry_info(7, 500_000_000),
        error_info("DECLINED", "bank.example", {"code": "do_not_honor"}),
    )
    assert problem_of("no", details) == Problem(
        "no",
        {"code": "do_not_honor", "reason": "DECLINED", "domain": "bank.example"},
        7.5,
    )


@pytest.mark.parametrize(
    ("seconds", "wait_s"), [(0, 0.0), (10**9, RETRY_AFTER_S_MAX), (2**64 - 1, 0.0)]
)
def test_a_time_to_wait_is_bounded(seconds: int, wait_s: float) -> None:
    assert problem_of("", status(retry_info(seconds, 0))).retry_after_s == wait_s


def test_details_of_other_kinds_and_other_fields_are_skipped() -> None:
    strange = b"\x0d1234" + b"\x0912345678" + b"\x10\x01"
    other = field(1, b"type.googleapis.com/google.rpc.Help") + field(2, b"\xff")
    details = strange + field(3, other) + field(3, retry_info(1, 0))
    assert problem_of("", details).retry_after_s == 1


@pytest.mark.parametrize(
    "broken",
    [
        b"\x1a\x05ab",  # a length that leads out of the message
        b"\x1a",
        b"\x80" * 11,  # a number without end
        b"\x0b",  # a wire type of proto1
        field(3, field(1, b"a/google.rpc.RetryInfo") + b"\x10\x05"),  # not bytes
        status(b""),
        field(
            3,
            field(1, b"a/google.rpc.RetryInfo")
            + field(2, field(1, field(1, b"not a number"))),
        ),
    ],
)
def test_details_that_can_not_be_read_are_left_out(broken: bytes) -> None:
    assert problem_of("declined", broken) == Problem("declined", {})
    info = status(error_info("DECLINED"))
    assert problem_of("", info + broken).details["reason"] == "DECLINED"


@given(st.text(), st.binary())
def test_whatever_comes_is_read_or_left_out(text: str, details: bytes) -> None:
    problem = problem_of(text, details)
    assert problem.retry_after_s is None or 0 <= problem.retry_after_s <= 3600
    assert len(problem.reason) <= REASON_LENGTH_MAX


@given(st.integers(0, 200), st.integers(0, 255))
def test_details_with_a_wrong_byte_are_read_or_left_out(place: int, byte: int) -> None:
    details = bytearray(status(error_info("A", "b", {"c": "d"}), retry_info(1, 2)))
    details[place % len(details)] = byte
    assert problem_of("declined", bytes(details)).reason == "declined"


def test_only_so_much_of_the_details_is_kept() -> None:
    big = status(error_info("A", metadata={"x": "y" * DETAILS_SIZE_MAX}))
    assert problem_of("declined", big) == Problem("declined", {})


@pytest.mark.parametrize(
    "target",
    [
        "payments:50051",
        "dns:///payments:50051",
        "dns://8.8.8.8/payments:50051",
        "unix:/run/payments.sock",
        "ipv6:[::1]:50051",
        "[::1]:50051",
        "ipv4:10.0.0.1:1,10.0.0.2:65535",
        "unix:payments.sock",
        "unix-abstract:payments",
        "xds:///payments",
    ],
)
def test_a_target_is_what_grpc_takes(target: str) -> None:
    assert target_of(target) == target


@pytest.mark.parametrize(
    "target",
    [
        "",
        "http://payments",
        "https://payments:1",
        "grpc://payments:1",
        "u:secret@h:1",
        "a b:1",
        "a\n:1",
        # gRPC would take them for port 443, or say so for ever, at each call.
        "payments",
        "127.0.0.1",
        "[::1]",
        "payments:",
        "payments:x",
        "payments:0",
        "payments:65536",
        ":50051",
    ],
)
def test_a_target_that_is_none_is_refused_without_repeating_it(target: str) -> None:
    with pytest.raises(ValueError, match="target must be host:port") as refused:
        target_of(target)
    assert "secret" not in str(refused.value)


def test_metadata_has_names_in_lower_case() -> None:
    assert metadata_of({"Authorization": "Bearer t"}) == {"authorization": "Bearer t"}
    assert metadata_of(None) == {}


@pytest.mark.parametrize(
    "metadata",
    [
        {"x y": "a"},
        {"": "a"},
        {"grpc-timeout": "1S"},
        {"x": "a\nb"},
        {"x": "ä"},
        {"token-bin": "a"},
        {"Idempotency-Key": "a"},
        {"coordinator-epoch": "1"},
        {"traceparent": "00"},
    ],
)
def test_metadata_that_can_not_be_sent_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"metadata|itself") as refused:
        metadata_of(metadata)
    assert "a\nb" not in str(refused.value)
