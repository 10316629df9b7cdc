"""What a server answers, and what that means: for a write, and for people.

    acknowledged at the sequence we expect      Stored: the message is durable there
    10071, 10164: wrong last sequence           Overtaken: somebody else wrote
    acknowledged elsewhere, or as a duplicate   Overtaken
    10002 10023 10028 10047, 10077 of a limit   NoSpace: refused before it was stored
    503: nobody answers for the stream          Doubtful: not stored, but open again
    any other error; no answer at all           Doubtful: it may have been stored

Every answer but the first and NoSpace ends the handle. A refusal that could be tried
again safely (503) ends it all the same: nobody tells how long it would go on, and the
one who opens again is told why by `coordinator.journals.nats.journal`.
"""

from dataclasses import dataclass

import msgspec

__all__ = [
    "NO_RESPONDERS",
    "ApiError",
    "Doubtful",
    "NoSpace",
    "Overtaken",
    "Stored",
    "Verdict",
    "describe",
    "is_passing",
    "judge_ack",
]

NO_RESPONDERS = "503"
"""Status of the answer that stands for nobody."""

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
NO_SPACE = frozenset({10002, 10023, 10028, 10047})
STORE_FAILED = 10077
_LIMITS = ("maximum bytes exceeded", "maximum messages exceeded")
"""What 10077 says when a stream's own limit refuses a message that is not stored."""

STREAM_NOT_FOUND = 10059
NO_MESSAGE = 10037
_PASSING = frozenset({10008, 10009, 10075, 10023})
"""No leader yet, or one that changes: asking again may go well."""

_ADVICE = {
    10002: "raise the limits of the account",
    10005: "start more servers, or ask for fewer replicas",
    10023: "give JetStream more room, or trim",
    10028: "the journal should be on files: see `coordinator doctor`",
    10039: "enable JetStream for this account",
    10047: "give JetStream more room (max_file_store), or trim",
    10052: "see what the server says",
    10054: "raise max_msg_size of the stream",
    10058: "another stream has that name: use another journal name",
    10059: "restore the stream from a backup",
    10060: "the subjects belong to another stream: use another journal name",
    10065: "another stream takes these subjects: use another journal name",
    10074: "use a cluster, or replicas=1",
    10076: "start the server with JetStream: nats-server -js",
}


class ApiError(msgspec.Struct, frozen=True):
    """What JetStream says instead of doing it."""

    code: int = 0
    err_code: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """The message is durable, at the sequence that was expected."""


@dataclass(frozen=True, slots=True)
class Overtaken:
    """Something else stands where the message belongs."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoSpace:
    """It was refused for want of space, and is not stored."""

    reason: str


@dataclass(frozen=True, slots=True)
class Doubtful:
    """Nobody knows, or nobody knows what is the matter."""

    reason: str


Verdict = Stored | Overtaken | NoSpace | Doubtful


class _Ack(msgspec.Struct, frozen=True):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


def describe(error: ApiError) -> str:
    """Say what the server said, with its number, and what to do if that is known."""
    said = f"{error.description or 'no reason given'} ({error.err_code or error.code})"
    advice = _ADVICE.get(error.err_code)
    return f"{said}; {advice}" if advice else said


def is_passing(error: ApiError) -> bool:
    """Tell whether asking again in a moment may go well."""
    return error.err_code in _PASSING


def judge_ack(status: str, data: bytes, *, stream: str, sequence: int) -> Verdict:
    """Judge the answer to a message that belongs at *sequence* of *stream*.

    Args:
        status: That of the answer, which a server sends for one that is not there.
        data: The answer, in JSON.
        stream: Where it belongs.
        sequence: Where in it.
    """
    if status == NO_RESPONDERS:
        return Doubtful(
            f"no server answers for stream {stream}: it has no leader now, or is gone"
        )
    try:
        ack = msgspec.json.decode(data, type=_Ack)
    except msgspec.DecodeError as error:
        return Doubtful(f"stream {stream} gave an answer that is none: {error}")
    if (problem := ack.error) is not None:
        return _judge_error(problem, stream)
    if ack.stream != stream:
        return Overtaken(f"it was stored in stream {ack.stream!r}, not in {stream}")
    if ack.duplicate:
        return Overtaken(f"stream {stream} takes it for a duplicate of {ack.seq}")
    if ack.seq != sequence:
        return Overtaken(
            f"it was stored at sequence {ack.seq} of {stream}, not at {sequence}"
        )
    return Stored()


def _judge_error(error: ApiError, stream: str) -> Verdict:
    if error.err_code in WRONG_LAST_SEQUENCE:
        return Overtaken(f"stream {stream} does not end where we wrote last")
    limited = error.err_code == STORE_FAILED and error.description in _LIMITS
    if limited or error.err_code in NO_SPACE:
        return NoSpace(f"stream {stream} takes no more: {describe(error)}")
    return Doubtful(f"stream {stream} refused a message: {describe(error)}")
