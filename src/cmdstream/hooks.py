"""Hooks: what others may see of a send, and forbid or change about it.

One object for each send (or stream), made by the factories that the client was given.
Each gets its calls in this order, and no others:

    before(command)     nothing is sent yet. Returns what to send: *command*, or another
                        in its place, such as one that carries a trace. Raises to veto.
    sent(command)       it has its number and is on its way. Not called if it could not
                        be encoded, or its time was over before.
    received(result)    once for each result, when its sender takes it; late ones that
                        nobody takes are not seen.
    ended(error)        once, and nothing after it, if `before` returned. How the send
                        ended: None for good; else what its sender sees.

Several hooks lie around the send like layers: `before` goes from the first to the last,
everything else from the last to the first. One that vetoes is seen by those before it,
as the error in `ended`.

What `ended` gets:

    None                      the last result was taken
    SendTimeoutError          `timeout_s` was over
    ConnectionClosedError     the connection ended, or there was none
    asyncio.CancelledError    the sender was cancelled, or left a stream early
    anything else             EncodeError, RemoteProtocolError, another hook's error, …

All calls are made by the task that sends, so an exception of a hook is that send's
exception, and nobody else's: the command is forgotten, and what the connection carries
beside it goes on. Where the send fails already, the first error stands (a cancellation
must not get lost), with a note of the second.

Without hooks a send does nothing for them.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from cmdstream.messages import ResultReceived

__all__ = ["CommandSent", "Hook", "HookFactory", "Layers"]


class CommandSent(msgspec.Struct, frozen=True):
    """A command has been numbered and written."""

    seq: int
    """Its number on its connection."""
    size: int
    """Bytes of the whole frame."""
    peer: str
    """The server's end of the connection: which of a group's it is."""


class Hook:
    """One send's companion. Does nothing; override what you want to see."""

    def before(self, command: object) -> object:
        """Return what to send; an exception stops it, and is what the sender gets."""
        return command

    def sent(self, sent: CommandSent) -> None:
        """Take note that the command is on its way."""

    def received(self, received: ResultReceived) -> None:
        """Take note of a result."""

    def ended(self, error: BaseException | None) -> None:
        """Take note of the end: None for good, else what the sender sees."""


HookFactory: TypeAlias = Callable[[], Hook]
"""Makes the hook of one send."""


class Layers:
    """The hooks of one send."""

    def __init__(self, factories: Sequence[HookFactory]) -> None:
        self._factories = factories
        self._hooks: list[Hook] = []
        """Those whose `before` has returned and whose `ended` was not called."""

    def before(self, command: object) -> object:
        """Return what to send. Whatever it raises: call `ended` with it."""
        for make in self._factories:
            hook = make()
            command = hook.before(command)
            self._hooks.append(hook)
        return command

    def sent(self, sent: CommandSent) -> None:
        """See `Hook.sent`."""
        for hook in reversed(self._hooks):
            hook.sent(sent)

    def received(self, received: ResultReceived) -> None:
        """See `Hook.received`."""
        for hook in reversed(self._hooks):
            hook.received(received)

    def ended(self, error: BaseException | None) -> BaseException | None:
        """See `Hook.ended`; every hook is told, whatever the others do.

        Returns:
            What the sender is to see: *error*, or the first that a hook raised.
        """
        while self._hooks:
            hook = self._hooks.pop()
            try:
                hook.ended(error)
            except Exception as problem:  # noqa: BLE001 -- whatever users' code raises
                if error is None:
                    error = problem
                else:
                    error.add_note(f"and then {type(hook).__qualname__}: {problem!r}")
        return error
