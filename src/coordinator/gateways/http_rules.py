"""What HTTP means to a gateway: statuses, problems, waiting times, paths. Pure.

    status                                      answer          why
    ------                                      ------          ---
    2xx                                         did
    400 402 409 410 412 413 422 451             did not         the business says no
    409, if it names the idempotency key        nobody knows    the first still runs
    400 422, if it names the idempotency key    misconfigured   used for two requests
    408 423 425 429, 5xx                        nobody knows    or "not now": ask again
    1xx, 3xx, every other 4xx                   misconfigured   a fault of address,
                                                                or credentials

A refusal is believed of the named statuses only: it undoes an order for good, while
what is not taken for one is at worst asked about again, or looked at by a person. The
inventions of frameworks (419, 440, 498: a session or a token expired) are none, then.

*401, 403, 404* are the statuses that both a business and a broken configuration use. We
take them for the latter: if we are wrong, one workflow gets stuck, with a message that
says which line mends it (``answers={404: Answer.REFUSED}``); wrong the other way round,
an expired token or a renamed path would undo every order of the day.

*409 about the key*: services answer so while the first request with that key still
runs (IETF draft idempotency-key-header, error scenarios; ``idempotency_key_in_use`` of
Stripe). That is what a retry after a time-out meets, just when the charge is about to
succeed: taken for a refusal, the order is undone and the customer pays for nothing.
Services say it in as many ways as there are (``error``, ``message``,
``errors[0].code``, plain text), so any word of it near the beginning of the body
counts, and so does a body that is too big to be read. A service that echoes the key in
all its refusals is thereby asked for ever; ``answers={409: Answer.REFUSED}`` is for it.

*3xx* is never followed, not even on the same host. A redirect says that the configured
address is outdated; following it would hide that, send credentials and the customer's
data to wherever the answer points, and turn a POST into a GET (301, 302, 303).
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import cast
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec

from coordinator.gateways.base import KEY_WORD, REASON_LENGTH_MAX, Answer

__all__ = [
    "Problem",
    "answer_to",
    "base_of",
    "read_problem",
    "retry_after_s",
    "target_of",
]

RETRY_AFTER_S_MAX = 3600.0
"""Seconds; what a service may ask for. One wrong header must not park an order for a
year."""

KEY_WORD_WITHIN = 1024
"""Bytes of a body within which any word of the idempotency key counts; behind them, one
in ``type``, ``code`` or ``title``. Stack traces have it in the names of classes."""

DETAILS_SIZE_MAX = 16 * 1024
"""Bytes of a body up to which its members are kept as details; for the same reason."""


_REFUSED = frozenset({400, 402, 409, 410, 412, 413, 422, 451})
_UNKNOWN = frozenset({408, 423, 425, 429})
assert not _REFUSED & _UNKNOWN

_MEMBERS = msgspec.json.Decoder(dict[str, object])
_REASON_MEMBERS = ("reason", "detail", "message", "title", "error")

# What RFC 3986 allows in a path as it stands. The rest must come as a segment.
_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*")


class Problem(msgspec.Struct, frozen=True):
    """What the body of an answer other than 2xx says."""

    reason: str
    """For people; empty if the body gives none."""
    details: dict[str, object]
    """The members of the body's JSON object; empty if it is none, or too big."""
    names_the_key: bool = False
    """Whether it is about the idempotency key, not about the business."""
    unread: bool = False
    """Whether the body is too big to say anything."""


def answer_to(status: int, problem: Problem, overrides: Mapping[int, Answer]) -> Answer:
    """Say what *status* with *problem* means; *overrides* go before everything."""
    if (answer := overrides.get(status)) is not None:
        return answer
    if 200 <= status < 300:
        return Answer.DID
    if status >= 500 or status in _UNKNOWN:
        return Answer.UNKNOWN
    if status not in _REFUSED:
        return Answer.MISCONFIGURED
    if status == 409 and (problem.names_the_key or problem.unread):
        return Answer.UNKNOWN
    return Answer.MISCONFIGURED if problem.names_the_key else Answer.REFUSED


def read_problem(body: bytes | None) -> Problem:
    """Read RFC 9457 problem details, JSON of a service's own, or a line of text.

    Args:
        body: None if it is too big to be read.
    """
    if body is None:
        return Problem("", {}, unread=True)
    names_the_key = KEY_WORD in body[:KEY_WORD_WITHIN].decode(errors="replace").lower()
    try:
        members = _MEMBERS.decode(body)
    # ValueError: also text that is not UTF-8, which is not a DecodeError. And brackets
    # may be nested deeper than the interpreter counts.
    except (ValueError, RecursionError):
        text = body[: 4 * REASON_LENGTH_MAX].decode("utf-8", "replace").strip()
        # A page of HTML is no reason; a framework made it, not the service.
        reason = "" if text.startswith("<") else text[:REASON_LENGTH_MAX]
        return Problem(reason, {}, names_the_key)
    nested = members.get("error")
    # The keys of a decoded JSON object are strings; isinstance can't say so.
    inner = cast("dict[str, object]", nested) if isinstance(nested, dict) else {}
    reasons = (
        found
        for source in (members, inner)
        for name in _REASON_MEMBERS
        if isinstance(found := source.get(name), str) and found
    )
    return Problem(
        next(reasons, "")[:REASON_LENGTH_MAX],
        members if len(body) <= DETAILS_SIZE_MAX else {},
        names_the_key
        or any(
            KEY_WORD in str(source.get(name, "")).lower()
            for source in (members, inner)
            for name in ("type", "code", "title")
        ),
    )


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Read a ``Retry-After`` header: seconds from *now*; None if absent or unreadable.

    Returns:
        0 to `RETRY_AFTER_S_MAX`.
    """
    if header is None:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            at = parsedate_to_datetime(header)
        except ValueError:
            return None
        # "-0000" gives a time without zone; HTTP dates are UTC.
        wait_s = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
    if math.isnan(wait_s):
        return None
    return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)


def base_of(base_url: str) -> str:
    """Check an address that comes from the configuration; without its last slash.

    Raises:
        ValueError: It is not ``http(s)://host[:port][/path]``. Credentials in it would
            show up in messages; they belong into a header.
    """
    parts = urlsplit(base_url)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.username is not None
        or parts.query
        or parts.fragment
        or "\\" in base_url
    ):
        # The address itself is not repeated: it may hold a password.
        raise ValueError(
            "base_url must be http(s)://host[:port][/path], without credentials, "
            "query and fragment"
        )
    return base_url.rstrip("/")


def target_of(
    base: str, path: str | tuple[str, ...], query: Mapping[str, str | int] | None
) -> str:
    """Join a checked base and the path of one operation; it can't leave the base.

    Args:
        base: What `base_of` returned.
        path: ``/charge`` as it stands; or its segments, each of which may be any data
            and is percent-encoded: ``("orders", order_id, "charge")``.
        query: Names and values, encoded here; None for none.

    Raises:
        ValueError: The path is not one, or would climb out of the base.
    """
    if isinstance(path, tuple):
        path = "".join("/" + quote(segment, safe="") for segment in path)
    elif not _PATH.fullmatch(path):
        raise ValueError(
            f"a path begins with / and holds only what a URL may, got {path!r}; "
            "give data as segments, ('orders', order_id), and a query as query="
        )
    # As a server or proxy would read it that decodes before it resolves.
    segments = re.split(r"[/\\]", unquote(path))[1:]
    if ".." in segments or "." in segments or "//" in path or path == "":
        raise ValueError(f"a path must not climb or have empty segments, got {path!r}")
    return f"{base}{path}?{urlencode(query, quote_via=quote)}" if query else base + path
