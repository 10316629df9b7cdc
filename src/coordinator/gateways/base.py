"""What every call of a service needs, whatever the protocol.

A service gives one of three answers, and a gateway's work is to tell them apart:

    answer          the operation ...                       the breaker counts
    ------          -----------------                       ------------------
    did             returns its value                       a success
    did not         raises `Refused`                        a success: it is alive
    nobody knows    raises `CommandDelayed`                 a failure
      (our lack)    raises `CommandDelayed`                 nothing
      (person)      raises `GatewayError`                   a failure
      (blocked)     raises `CommandBlocked`: not asked      -
    anything else   passes unchanged                        nothing

*Person*: the call came to a fault that asking again will not mend by itself (a wrong
address, an expired token, an answer that does not decode). It must not be taken for a
refusal: an expired token would undo every order of the day. Nor may it be asked for
ever, unseen, as `CommandDelayed` is. A `GatewayError` is to the engine an unexpected
exception: tried again a bounded number of times (`Retry.attempts_max`), then the
workflow is stuck with the reason, and goes on once the fault is mended. It counts as a
failure, so that a fault that hits every call opens the circuit after a few: what
follows waits outside instead of piling up as stuck workflows.

*Our lack*: this process is out of descriptors or memory (`lacks_resources`). That ends
by itself, so it is asked again. But it says nothing about the service, whose circuit
our own crowd would open.

*Anything else* is most often a bug on this side of the wire, so it says nothing about
the service: counting a `TypeError` of one operation would block all the others. The
price: a foreign client's own exception does not open the circuit until `translate`
says what it means.
"""

import asyncio
import enum
import errno
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from types import MemberDescriptorType, TracebackType
from typing import Self, TypeVar

from cmdstream.breaker import (
    Breaker,
    BreakerOptions,
    BreakerSnapshot,
    BreakerState,
    Ticket,
)
from coordinator.context import StepContext, current_step
from coordinator.errors import (
    CommandBlocked,
    CommandDelayed,
    CoordinatorError,
    Refused,
)
from coordinator.rare import sometimes

__all__ = [
    "CALL_HEADERS",
    "KEY_WORD",
    "REASON_LENGTH_MAX",
    "Answer",
    "Gateway",
    "GatewayError",
    "MisconfiguredError",
    "UnreadableAnswerError",
    "aclose_gateways",
    "call_headers",
    "lacks_resources",
]

T = TypeVar("T")

TIMEOUT_S = 10.0
"""Default time-out of a call: longer than a healthy service ever takes, short enough
that a silent one is noticed before a person is."""

CALLS_MAX = 100
"""Default of the calls in flight: what one coordinator may ask of a service at once."""

REASON_LENGTH_MAX = 500
"""Characters of a service's reason that are kept: it is written into the journal."""

KEY_WORD = "idempoten"
"""What a service's words have in them when they are about the idempotency key, of
"Idempotency-Key", "idempotency_key_in_use", "an idempotent request is running"."""

CALL_HEADERS = frozenset(
    {"idempotency-key", "coordinator-epoch", "coordinator-replay", "traceparent"}
)
"""Names, in lower case, of what `call_headers` may give: a user can't set them."""

_LACKS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# A dot would be read as service.operation, a bracket as the beginning of a step's key.
_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Answer(enum.Enum):
    """What a status, or a type of result, says about the operation."""

    DID = "did"
    REFUSED = "did not"
    UNKNOWN = "nobody knows"
    MISCONFIGURED = "a person must look"


class GatewayError(CoordinatorError):
    """A person must look: nobody knows, and asking again alone will not tell."""


class MisconfiguredError(GatewayError):
    """The service can't be asked like this: wrong address, credentials or protocol."""


class UnreadableAnswerError(GatewayError):
    """The service did it, but what it answered is not what the code declares.

    Asked again under the same key it gives the same answer, so it is a person who
    mends this: a deploy of either side. Then the workflow goes on where it was.
    """


class Gateway:
    """The way to one service; base of the gateways of every protocol.

    An operation is a method that wraps its one request in `call`:

        class Payments(Gateway):
            async def charge(self, order_id: str, cents: int) -> Payment:
                return await self.call(
                    lambda step: client.charge(
                        order_id, cents, key=step.idempotency_key
                    )
                )

    It belongs to one event loop. It never repeats a call by itself: the engine does,
    under the same key.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout_s: float = TIMEOUT_S,
        calls_max: int = CALLS_MAX,
        breaker: BreakerOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the gateway; nothing is connected before the first call.

        Args:
            name: The service's name, as in ``service.operation``. It is part of the
                stored names of steps: choose it once. Letters, digits, ``_``, ``-``.
            timeout_s: Seconds a call may take in all; more than 0.
            calls_max: Calls in flight; 1 or more. The others wait in order, and not on
                their own time: a burst of commands is not the service's silence, and
                must not open its circuit. Those in flight end by their time-out, so the
                queue always moves; the coordinator's `max_commands` bounds it.
            breaker: When to stop asking; its defaults if None.
            clock: Seconds that never go back, for the breaker.

        Raises:
            ValueError: An argument is out of its bounds.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"a service's name is made of letters, digits, _ and -, got {name!r}"
            )
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be more than 0, got {timeout_s}")
        if calls_max < 1:
            raise ValueError(f"calls_max must be 1 or more, got {calls_max}")
        self.service_name = name
        self._places = asyncio.Semaphore(calls_max)
        self._timeout_s = timeout_s
        self._breaker = Breaker(breaker)
        self._clock = clock

    async def call(
        self,
        operation: Callable[[StepContext], Awaitable[T]],
        *,
        timeout_s: float | None = None,
    ) -> T:
        """Ask the service once, and say which of the answers it gave.

        Args:
            operation: Does the request; gets the step's context for its key, epoch and
                trace (`call_headers`).
            timeout_s: Seconds for this call, instead of the gateway's.

        Cancellation: the service may have done it or not; asking again under the same
        key tells. The breaker counts nothing, and a trial gives its place back.

        Raises:
            Refused: The service did not do it.
            CommandBlocked: The circuit is open; the service was not asked.
            CommandDelayed: Nobody knows whether it did.
            GatewayError: Nobody knows, and a person must look.
            RuntimeError: The caller does not run in a step.
        """
        step = current_step()
        if timeout_s is None:
            timeout_s = self._timeout_s
        now_s = self._clock()
        # Calls that hang may hold every place: nobody queues to be turned away.
        if self._breaker.turn_away(now_s):
            raise self._blocked()
        async with self._places:
            # Admitted only now: while it waited the circuit may have opened, and a
            # trial must not wait in a queue.
            ticket = self._breaker.admit(self._clock())
            if ticket is None:
                sometimes("turned away behind the queue")
                raise self._blocked()
            return await self._admitted(operation, step, timeout_s, ticket)

    def translate(self, error: Exception) -> Exception:
        """Say what an exception of the operation means; override for a foreign client.

        Return a `Refused`, a `CommandDelayed` or a `GatewayError` for what is known,
        and the rest to ``super().translate(error)``, which knows time-outs and lost
        connections, and returns what it does not know unchanged. A `Refused` passes
        here too, and may become one of its subclasses.

            def translate(self, error: Exception) -> Exception:
                match error:
                    case stripe.CardError():
                        return Refused(error.user_message, {"code": error.code})
                    case stripe.APIConnectionError():
                        return CommandDelayed(str(error))
                    case _:
                        return super().translate(error)
        """
        match error:
            case TimeoutError():
                # Its own message is empty, or names a detail nobody set.
                return CommandDelayed(f"{self.service_name} did not answer in time")
            case OSError() if lacks_resources(error):
                return CommandDelayed(
                    f"{self.service_name}: this process lacks resources: {error}"
                )
            case ConnectionError() | socket.gaierror() | asyncio.IncompleteReadError():
                return CommandDelayed(
                    f"{self.service_name}: {str(error) or type(error).__name__}"
                )
            case _:
                return error

    def health(self) -> BreakerSnapshot:
        """Return what the breaker sees, for people."""
        return self._breaker.snapshot(self._clock())

    def reset_breaker(self) -> None:
        """Close the circuit by hand: an operator knows that the service is back."""
        self._breaker.reset()

    async def aclose(self) -> None:
        """Close the connections; calls in flight may end as unknown. Idempotent."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _admitted(
        self,
        operation: Callable[[StepContext], Awaitable[T]],
        step: StepContext,
        timeout_s: float,
        ticket: Ticket,
    ) -> T:
        """Run *operation*, and hand the ticket back with what came of it."""
        # A call is abandoned until something else is known, and every path ends in the
        # one `finally`: not even an exception from `translate` keeps a trial's place.
        failure: str | None = None
        answered = False
        try:
            async with asyncio.timeout(timeout_s):
                value = await operation(step)
            answered = True
        except Exception as error:
            answer = self.translate(error)
            answered = isinstance(answer, Refused)
            # A block tells of another service, one that the operation itself called.
            tells = not isinstance(answer, CommandBlocked) and not lacks_resources(
                error
            )
            if tells and isinstance(answer, (CommandDelayed, GatewayError)):
                failure = str(answer)
            if answer is error:
                raise
            raise answer from error
        else:
            return value
        finally:
            before = self._breaker.state
            if answered:
                self._breaker.succeeded(ticket, self._clock())
            elif failure is not None:
                self._breaker.failed(ticket, self._clock(), failure)
            else:
                self._breaker.abandoned(ticket)
            if self._breaker.state is not before:
                _note_change(before, self._breaker.state)

    def _blocked(self) -> CommandBlocked:
        seen = self.health()
        blocked = CommandBlocked(
            self.service_name,
            f"service {self.service_name} is blocked: {seen.last_failure}; "
            + (
                f"it is tried again in {seen.open_left_s:.1f} s"
                if seen.open_left_s
                else f"{seen.trials_in_flight} trials are on the way"
            ),
        )
        # While trials are on the way nobody can say how long: None, ask as usual.
        blocked.retry_after_s = seen.open_left_s or None
        return blocked


def _note_change(before: BreakerState, after: BreakerState) -> None:
    """Note what the end of a call made of the circuit."""
    if after is BreakerState.CLOSED:
        sometimes("circuit closed by trials")
    elif before is BreakerState.CLOSED:
        sometimes("circuit opened")
    else:
        sometimes("trial failed")


def lacks_resources(error: BaseException) -> bool:
    """Say whether it is this process that has no descriptors or memory left."""
    return isinstance(error, OSError) and error.errno in _LACKS


def call_headers(step: StepContext) -> dict[str, str]:
    """Return what travels with every call, as headers of HTTP or metadata of gRPC.

    ``Idempotency-Key``, ``Coordinator-Epoch`` (the fencing token) and, if the command
    came with one, ``traceparent``. A key is free to hold what a header may not (a
    user's ``.named(..., key=...)`` is part of it): such characters are percent-encoded,
    and so is the percent sign, which keeps different keys different. In a replay
    ``Coordinator-Replay: true``, too.
    """
    headers = {
        "Idempotency-Key": _header_value(step.idempotency_key),
        "Coordinator-Epoch": str(step.epoch),
    }
    if step.trace:
        headers["traceparent"] = _header_value(step.trace)
    if step.replay:
        headers["Coordinator-Replay"] = "true"
    return headers


def _header_value(text: str) -> str:
    if text.isascii() and text.isprintable() and "%" not in text:
        return text
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte != 0x25 else f"%{byte:02X}"
        for byte in text.encode("utf-8", "surrogatepass")
    )


async def aclose_gateways(receiver: object) -> None:
    """Close every gateway that is an attribute of *receiver*, in a slot or not.

    For the ``aclose`` of a receiver with several:

        class Shop:
            async def aclose(self) -> None:
                await aclose_gateways(self)

    Raises:
        ExceptionGroup: Some could not be closed; the others are.
    """
    problems: list[Exception] = []
    for value in _attributes(receiver):
        if isinstance(value, Gateway):
            try:
                await value.aclose()
            except Exception as error:  # noqa: BLE001 -- raised below, with the others
                problems.append(error)
    if problems:
        raise ExceptionGroup("some gateways could not be closed", problems)


def _attributes(receiver: object) -> Iterator[object]:
    yield from getattr(receiver, "__dict__", {}).values()
    for class_ in type(receiver).__mro__:
        for name, found in vars(class_).items():
            # By descriptor: __slots__ has private names as they were written.
            if isinstance(found, MemberDescriptorType):
                yield getattr(receiver, name, None)  # a slot may be empty
