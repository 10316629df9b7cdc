"""cmd-stream intake: commands come in over the wire, results go back when they exist.

    frame --> CommandReceived --> Entrance.offer --> ... --> _Asker.ended --> result

The payload is stored exactly as it was received. A command that does not complete is
told by a result of the user's *failure* class; without one the connection is closed,
which is the protocol's only other word. While the doors are closed no connection is
read from.
"""

import functools
import logging
import ssl
from collections.abc import Callable
from typing import Any

import msgspec

from cmdstream import (
    CmdStreamError,
    CommandReceived,
    JsonCodec,
    Reply,
    Server,
    ServerOptions,
    ServerTls,
)
from coordinator import values
from coordinator.api.bodies import body_of, codec_of
from coordinator.app import Coordinator
from coordinator.commands import command_key, union_members
from coordinator.engine import Engine
from coordinator.entrance import Entrance
from coordinator.errors import (
    CommandTypeError,
    CoordinatorError,
    DecodeError,
    JournalError,
)
from coordinator.model import EndStatus, WorkflowId
from coordinator.runs import Outcome, Submission

__all__ = ["CODEC", "CmdStreamIntake", "json_codec", "read_json_payload"]

_LOGGER = logging.getLogger("coordinator.intake")

CODEC = "json"
"""What `records.Accepted.codec` says of payloads that came in here."""


def json_codec(coordinator: Coordinator[Any]) -> JsonCodec:
    """Return the codec that clients of *coordinator* have to use, too."""
    return codec_of(coordinator.commands, coordinator.results)


def read_json_payload(payload: bytes, class_: Any) -> Any:
    """Decode a stored payload: for `Coordinator.read_payloads`.

    Raises:
        DecodeError: It does not fit *class_* (any more).
    """
    try:
        return body_of(class_).decode(payload)
    except CmdStreamError as error:
        raise DecodeError(f"{class_.__name__}: {error}") from error


class CmdStreamIntake:
    """Serves one coordinator on any number of addresses."""

    def __init__(
        self, coordinator: Coordinator[Any], options: ServerOptions | None = None
    ) -> None:
        """Prepare to serve *coordinator*, which need not be started yet.

        Raises:
            CommandTypeError: What a command returns can't be sent.
        """
        coordinator.read_payloads(CODEC, read_json_payload)
        self._coordinator = coordinator
        self._failure = coordinator.failure
        self._kinds = [
            (class_.__name__, hasattr(class_, "key"), values.return_type(class_.exec))
            for class_ in coordinator.commands
        ]
        """Name, whether it has a key, and the type of the result, by the tag."""
        for name, _, type_ in self._kinds:
            _require_sendable(name, type_, coordinator.results)
        self._engine: Engine | None = None
        self._gate = _Gate()
        self.server = Server(
            json_codec(coordinator), self._take, options=options, gate=self._gate
        )

    async def listen(
        self, host: str, port: int, *, tls: ServerTls | ssl.SSLContext | None = None
    ) -> tuple[str, int]:
        """Accept clients; the coordinator must be started.

        Args:
            host: Name or address.
            port: Of TCP; 0 for any free one.
            tls: See `cmdstream.Server.listen`.

        Returns:
            The address, with the port that was given for 0.

        Raises:
            OSError: The address can't be had.
        """
        self._engine = self._coordinator.engine
        self._gate.watch(self._engine)
        return await self.server.listen(host, port, tls=tls)

    def _take(self, received: CommandReceived, reply: Reply) -> None:
        """Offer one command to the engine; called by the server."""
        engine = self._engine
        assert engine is not None
        name, keyed, result_type = self._kinds[received.tag]
        asker = _Asker(reply, result_type, self._failure)
        try:
            key = command_key(received.command) if keyed else ""
        except Exception as error:  # noqa: BLE001 -- user code: anything may come
            asker.refused(CommandTypeError(f"{name}.key() failed: {_named(error)}"))
            return
        submission = Submission(name, CODEC, received.body, key, "", received.command)
        if engine.entrance.offer(submission, asker):
            reply.when_closed(functools.partial(self._leave, engine, asker))

    @staticmethod
    def _leave(engine: Engine, asker: "_Asker") -> None:
        """Free the place at the door of a client that hung up."""
        if engine.entrance.withdraw(asker):
            asker.forget()


def _require_sendable(name: str, result: Any, results: tuple[type, ...]) -> None:
    """Check that a client can be told what a command returns.

    Raises:
        CommandTypeError: It can't.
    """
    for member in union_members(result):
        if result in {None, type(None)}:
            _LOGGER.warning(
                "%s returns nothing: cmd-stream has no word for that, so that a client "
                "is not told when it completed; let it return a class of its own",
                name,
            )
        elif member is not Any and member not in results:
            raise CommandTypeError(
                f"{name} returns {result}, and cmd-stream can't send {member}: only "
                f"instances of the classes in `results`; wrap it in a class of its own"
            )


class _Asker(msgspec.Struct, eq=False):
    """A cmd-stream client that waits for the result of one command."""

    _reply: Reply
    _result_type: Any
    _failure: Callable[..., object] | None

    @property
    def gone(self) -> bool:
        return self._reply.closed or self._reply.finished

    def accepted(self, workflow_id: WorkflowId) -> None:
        """Nothing: the protocol has no word for it."""

    def ended(self, outcome: Outcome) -> None:
        if outcome.status is not EndStatus.COMPLETED:
            self._send_failure(outcome.workflow_id, *_failure_of(outcome))
            return
        try:
            self._send(values.decode(outcome.value, self._result_type))
        except Exception as error:  # noqa: BLE001 -- the user's class may do anything
            # Not by closing: the client would ask again by key, for ever.
            problem = f"its result can't be sent: {_named(error)}"
            self._send_failure(outcome.workflow_id, "completed", problem)

    def refused(self, error: CoordinatorError) -> None:
        if isinstance(error, JournalError):
            # It may have been accepted, and goes on at the next start then. "Refused"
            # would make the client send it a second time, as another one.
            self._hang_up(f"nobody knows what became of the command: {error}")
        else:
            self._send_failure(WorkflowId(""), "refused", str(error))

    def forget(self) -> None:
        self._reply.finish()

    def _send_failure(self, workflow_id: WorkflowId, status: str, reason: str) -> None:
        if self._reply.closed or self._failure is None:
            what = f"workflow {workflow_id}" if workflow_id else "the command"
            self._hang_up(f"{what} is {status}: {reason}")
            return
        try:
            self._send(
                self._failure(workflow=workflow_id, status=status, reason=reason)
            )
        except Exception as error:  # noqa: BLE001 -- the user's class may do anything
            self._hang_up(f"the failure can't be sent: {error}", error)

    def _hang_up(self, reason: str, error: Exception | None = None) -> None:
        if not self._reply.finished:
            self._reply.fail(reason, error)

    def _send(self, result: object) -> None:
        """Send the one answer.

        Raises:
            CmdStreamError: It can't be sent; nothing was.
        """
        if not self._reply.finished:  # a stuck workflow was told of before
            self._reply.send_nowait(result)
            self._reply.finish()


def _failure_of(outcome: Outcome) -> tuple[str, str]:
    match outcome.status:
        case EndStatus.COMPENSATED:
            try:
                reason = values.load_refusal(outcome.value).reason
            except Exception as error:  # noqa: BLE001 -- it may be a class of the user's
                # What became of the command is known all the same.
                reason = f"the refusal can't be made again: {_named(error)}"
            return "compensated", reason
        case EndStatus.CANCELLED:
            return "cancelled", values.decode(outcome.value, str)
        case _:
            return "stuck", outcome.reason


def _named(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, CmdStreamError | CoordinatorError)
        else repr(error)
    )


class _Gate:
    """Closed while the engine's doors are; see `cmdstream.Gate`."""

    def __init__(self) -> None:
        self._entrance: Entrance | None = None
        self._closed = ""
        self._held_back = False
        """Because many are coming in at present: that is no news to anybody."""
        self._reopened: list[Callable[[], None]] = []

    def watch(self, engine: Engine) -> None:
        self._entrance = engine.entrance
        engine.entrance.on_door = self._look

    def is_open(self) -> bool:
        entrance = self._entrance
        assert entrance is not None
        is_open = entrance.is_open()
        closed = "" if is_open else entrance.closed
        if closed and not self._closed:
            _LOGGER.warning("connections are not read from: %s", closed)
        if self._closed and not closed:
            _LOGGER.warning("connections are read from again")
        self._closed = closed
        self._held_back = not (is_open or closed)
        return is_open

    def subscribe(self, reopened: Callable[[], None]) -> Callable[[], None]:
        self._reopened.append(reopened)
        return lambda: self._reopened.remove(reopened)

    def _look(self) -> None:
        if (self._closed or self._held_back) and self.is_open():
            for reopened in self._reopened:
                reopened()
