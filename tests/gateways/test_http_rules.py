import re
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.gateways.base import REASON_LENGTH_MAX, Answer
from coordinator.gateways.http_rules import (
    DETAILS_SIZE_MAX,
    RETRY_AFTER_S_MAX,
    Problem,
    answer_to,
    base_of,
    read_problem,
    retry_after_s,
    target_of,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PLAIN = Problem("", {})
ABOUT_THE_KEY = Problem("", {}, names_the_key=True)


@given(st.integers(100, 999))
def test_every_status_has_one_answer_and_only_2xx_is_done(status: int) -> None:
    answer = answer_to(status, PLAIN, {})
    assert (answer is Answer.DID) == (200 <= status < 300)
    assert answer is not Answer.REFUSED or 400 <= status < 500


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (409, Answer.UNKNOWN),
        (400, Answer.MISCONFIGURED),
        (422, Answer.MISCONFIGURED),
        (503, Answer.UNKNOWN),
        (200, Answer.DID),
    ],
)
def test_a_problem_of_the_key_is_not_one_of_the_business(
    status: int, answer: Answer
) -> None:
    assert answer_to(status, ABOUT_THE_KEY, {}) is answer


def test_an_override_goes_before_everything() -> None:
    overrides = {409: Answer.REFUSED, 200: Answer.UNKNOWN}
    assert answer_to(409, ABOUT_THE_KEY, overrides) is Answer.REFUSED
    assert answer_to(200, PLAIN, overrides) is Answer.UNKNOWN


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", ""),
        (b'{"reason": "no stock", "detail": "x"}', "no stock"),
        (b'{"title": "Declined", "detail": "card expired"}', "card expired"),
        (b'{"error": "no stock"}', "no stock"),
        (b'{"error": {"message": "no stock", "code": 1}}', "no stock"),
        (b'{"detail": [{"loc": "x"}], "title": "bad"}', "bad"),
        (b"no stock\n", "no stock"),
        (b"<html>no</html>", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"reason": ""}', ""),
        (b"{}", ""),
    ],
)
def test_the_reason_is_found_where_services_put_it(body: bytes, reason: str) -> None:
    assert read_problem(body).reason == reason


@pytest.mark.parametrize(
    ("body", "names_the_key"),
    [
        (b'{"type": "https://example.com/probs/idempotency-key-in-use"}', True),
        (b'{"title": "A request is outstanding for this Idempotency-Key"}', True),
        (b'{"error": {"type": "idempotency_error"}}', True),
        (b'{"error": "idempotency_key_in_use"}', True),
        (b'{"message": "A request with this Idempotency-Key is running"}', True),
        (b'{"detail": "the idempotency key is being processed"}', True),
        (b'{"errors": [{"code": "IDEMPOTENCY_KEY_IN_USE"}]}', True),
        (b'{"error": "idempotent request in progress"}', True),
        (b"Idempotency-Key in use", True),
        (b"\xff idempotencyKey in use", True),
        (b"[" * 900 + b"idempotency", True),
        (b'{"a": "' + b"x" * 2000 + b'", "code": "idempotency_key_in_use"}', True),
        # An echo of the key may be all that such a service says.
        (b'{"detail": "sold out", "idempotency_key": "k-1"}', True),
        (b'{"detail": "sold out", "at": "' + b"x" * 2000 + b'Idempotency"}', False),
        (b'{"code": 7}', False),
        (b"sold out", False),
        (b"", False),
    ],
)
def test_a_problem_names_the_key_in_any_words(body: bytes, names_the_key: bool) -> None:
    assert read_problem(body).names_the_key is names_the_key


def test_a_409_that_nobody_read_is_no_refusal() -> None:
    unread = read_problem(None)
    assert answer_to(409, unread, {}) is Answer.UNKNOWN
    assert answer_to(422, unread, {}) is Answer.REFUSED


def test_a_status_that_nobody_registered_is_no_refusal() -> None:
    for status in (418, 419, 420, 430, 440, 449, 460, 498, 499):
        assert answer_to(status, PLAIN, {}) is Answer.MISCONFIGURED


def test_the_documentation_says_what_each_status_means() -> None:
    said: dict[int, str] = {}
    others: dict[str, str] = {}
    for came_back, answer in _documented():
        # "409 that names ..." is another question than 409.
        statuses = "" if re.match(r"[\dx, ]+ that ", came_back) else came_back
        for status in re.findall(r"\b\d{3}\b", statuses):
            assert int(status) not in said
            said[int(status)] = answer
        for group in re.findall(r"\b\dxx\b", statuses):
            assert group not in others
            others[group] = answer
    for status in range(100, 600):
        expected = said.get(status, others[f"{status // 100}xx"])
        assert _WORDS[answer_to(status, PLAIN, {})] == expected, status


_WORDS = {
    Answer.DID: "did",
    Answer.REFUSED: "did not",
    Answer.UNKNOWN: "nobody knows",
    Answer.MISCONFIGURED: "a person",
}


def _documented() -> list[tuple[str, str]]:
    """Return the first two columns of the table in ``docs/gateways.md``."""
    page = Path(__file__).parents[2] / "docs" / "gateways.md"
    section = page.read_text().partition("## What HTTP says")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) > 8
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    return [(cell[1], cell[2]) for cell in cells]


@given(st.binary(max_size=200))
def test_any_body_is_read_without_an_error(body: bytes) -> None:
    assert len(read_problem(body).reason) <= REASON_LENGTH_MAX


def test_what_goes_into_the_journal_is_bounded() -> None:
    long = b'{"reason": "' + b"x" * DETAILS_SIZE_MAX + b'", "type": "idempotency"}'
    problem = read_problem(long)
    assert len(problem.reason) == REASON_LENGTH_MAX
    assert problem.details == {}
    assert problem.names_the_key
    assert read_problem(b"[" * 100_000).details == {}


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("soon", None),
        ("nan", None),
        ("inf", RETRY_AFTER_S_MAX),
        ("99999999", RETRY_AFTER_S_MAX),
        ("Fri, 02 Jan 2026 03:04:35 GMT", 30),
        ("Fri, 02 Jan 2026 03:04:35 -0000", 30),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0),
        ("Fri, 99 Jan 2026 03:04:35 GMT", None),
    ],
)
def test_a_service_may_ask_to_wait_within_reason(
    header: str | None, wait_s: float | None
) -> None:
    assert retry_after_s(header, NOW) == wait_s


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_segments_of_any_data_stay_below_the_base(segments: list[str]) -> None:
    try:
        target = target_of("http://h:1/api", tuple(segments), None)
    except ValueError:
        parts = "/".join(segments).replace("\\", "/").split("/")
        surrogate = any("\ud800" <= c <= "\udfff" for s in segments for c in s)
        assert "" in segments or "." in parts or ".." in parts or surrogate
        return
    url = urlsplit(target)
    assert (url.scheme, url.netloc) == ("http", "h:1")
    assert [unquote(part) for part in url.path.split("/")] == ["", "api", *segments]
    assert not url.query
    assert not url.fragment


@given(st.text(max_size=20))
def test_a_path_of_any_text_stays_below_the_base_or_is_refused(path: str) -> None:
    try:
        target = target_of("http://h:1/api", path, None)
    except ValueError:
        return
    assert target == "http://h:1/api" + path
    assert urlsplit(target).netloc == "h:1"


def test_the_last_slash_of_a_base_does_not_matter() -> None:
    base = base_of("https://h:1/api/")
    assert base == base_of("https://h:1/api") == "https://h:1/api"
    assert target_of(base, "/", None) == "https://h:1/api/"
    assert base_of("http://[::1]:80/") == "http://[::1]:80"
