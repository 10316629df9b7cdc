"""A circuit breaker around sends: a hook that vetoes while the server is silent.

    circuit = Circuit(BreakerOptions(open_first_s=2.0))
    client = await Client.connect(host, port, codec, hooks=[circuit])

    how a send ended                        the breaker counts
    ----------------                        ------------------
    its last result, be it good or bad      a success: the server answers
    SendTimeoutError                        a failure
    ConnectionClosedError                   a failure: also if it was never sent
    CircuitOpenError                        nothing: this circuit's own, or another's
    anything else                           nothing: it says nothing about the server

In Go a lost connection counts as a success (W-D2), and a half-open circuit lets
everything through (W-D10). A sender that is cancelled, by an ``asyncio.timeout`` of its
own for instance, is "anything else": use ``timeout_s`` where silence should count.

The one circuit may be given to several clients or groups, whose sends it then counts
together. It belongs to one event loop.
"""

import time
from collections.abc import Callable

from cmdstream.breaker import Breaker, BreakerOptions, BreakerSnapshot, Ticket
from cmdstream.errors import (
    CircuitOpenError,
    ConnectionClosedError,
    SendTimeoutError,
)
from cmdstream.hooks import Hook

__all__ = ["Circuit"]


class Circuit:
    """A circuit breaker; as a `HookFactory`, one of the client's `hooks`."""

    def __init__(
        self,
        options: BreakerOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a closed circuit.

        Args:
            options: When it opens, and what closes it; the defaults if None.
            clock: Seconds that never go back.
        """
        self._breaker = Breaker(options)
        self._clock = clock

    def __call__(self) -> Hook:
        """Make the hook of one send."""
        return _CircuitHook(self._breaker, self._clock)

    def health(self) -> BreakerSnapshot:
        """Return what it sees, for people."""
        return self._breaker.snapshot(self._clock())

    def reset(self) -> None:
        """Close it by hand: an operator knows that the server is back."""
        self._breaker.reset()


class _CircuitHook(Hook):
    """One send's ticket."""

    def __init__(self, breaker: Breaker, clock: Callable[[], float]) -> None:
        self._breaker = breaker
        self._clock = clock
        self._ticket: Ticket | None = None

    def before(self, command: object) -> object:
        """Let the command pass, or not.

        Raises:
            CircuitOpenError: The circuit is open, or has its trials on the way.
        """
        now_s = self._clock()
        self._ticket = self._breaker.admit(now_s)
        if self._ticket is None:
            seen = self._breaker.snapshot(now_s)
            raise CircuitOpenError(
                f"{type(command).__qualname__} was not sent, the circuit is "
                f"{seen.state.value}: {seen.last_failure}",
                retry_after_s=seen.open_left_s,
            )
        return command

    def ended(self, error: BaseException | None) -> None:
        """Hand the ticket back with what came of the send."""
        assert self._ticket is not None
        if error is None:
            self._breaker.succeeded(self._ticket, self._clock())
        elif isinstance(error, ConnectionClosedError | SendTimeoutError):
            self._breaker.failed(self._ticket, self._clock(), str(error))
        else:
            self._breaker.abandoned(self._ticket)
