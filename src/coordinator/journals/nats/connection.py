"""One connection to NATS that never comes back: when it is lost, so is all that waited.

nats-py would connect again by itself, and send then what it had not sent before: a
write that its owner had given up, behind the claim of another. So that is switched off,
and each answer is waited for here: what waits fails at once when the connection does,
which nats-py's own requests do not.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from coordinator.journals.nats.address import Address
from coordinator.journals.nats.answers import NO_RESPONDERS, ApiError, describe
from coordinator.journals.nats.checks import ServerInfo

try:
    import nats.errors
    from nats.aio.client import Client
    from nats.aio.msg import Msg
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"journals in NATS need nats-py ({error}): pip install 'coordinator[nats]'"
    ) from error

__all__ = [
    "ApiProblem",
    "Connection",
    "DeniedError",
    "LostError",
    "NoAnswerError",
    "Reply",
    "UnreachableError",
    "next_of",
]

ANSWER_S = 5.0
"""Seconds to wait for an answer; one that leads nothing any more never gives one."""
CONNECT_S = 3.0
"""Seconds to wait for a server to let us in."""
PING_S = 10
"""Seconds between two pings; two that are not answered end the connection."""

T = TypeVar("T")


class UnreachableError(Exception):
    """No server lets us in; says why, of each."""


class LostError(Exception):
    """The connection was lost, or closed."""


class NoAnswerError(Exception):
    """No answer came, or the server will not give one; says which."""


class DeniedError(NoAnswerError):
    """We may not ask that: asking again does not help."""


class ApiProblem(Exception):  # noqa: N818 -- an answer, not an accident
    """JetStream answered that it will not do it.

    Attributes:
        error: What it said.
    """

    def __init__(self, subject: str, error: ApiError) -> None:
        super().__init__(f"{subject.removeprefix('$JS.API.')}: {describe(error)}")
        self.error = error


class Reply(NamedTuple):
    """What came to one of our inboxes."""

    status: str
    """Of an answer that is none, e.g. ``503``; else empty."""
    data: bytes
    reply: str
    """Where an answer would go; of a stored message, it tells its sequence."""
    subject: str


class _Failed(msgspec.Struct, frozen=True):
    error: ApiError | None = None


Inbox = asyncio.Queue[Reply | Exception]


class Connection:
    """A connection that is given up when it is lost. Make one with `connect`."""

    def __init__(self, address: Address) -> None:
        # Its annotations leave out what its futures and options are of.
        self._client: Any = Client()
        self._address = address
        self._inboxes: dict[str, Inbox] = {}
        self._prefix = f"_INBOX.{secrets.token_hex(11)}"
        self._trouble = ""
        self._lost: LostError | None = None
        self._on_loss: Callable[[LostError], None] | None = None

    @classmethod
    async def connect(cls, address: Address) -> Self:
        """Connect to the first of the servers that lets us in.

        Raises:
            UnreachableError: None does.
        """
        tried: list[str] = []
        tls = _tls_context(address)
        for server in address.servers:
            connection = cls(address)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await connection._connect(server, tls)
            except Exception as error:  # noqa: BLE001 -- a bad seed has errors of its own
                tried.append(f"{server}: {connection._trouble or _said(error)}")
                await connection._give_up()
            except BaseException:
                await connection._give_up()
                raise
            else:
                return connection
        raise UnreachableError("; ".join(tried))

    async def _connect(self, server: str, tls: ssl.SSLContext | None) -> None:
        address = self._address
        options: dict[str, Any] = {
            "user": address.user or None,
            "password": address.password or None,
            "token": address.token or None,
            "user_credentials": address.creds or None,
            "nkeys_seed": address.nkey or None,
        }
        if tls is not None:
            options["tls"] = tls
            options["tls_hostname"] = server.rpartition(":")[0].strip("[]")
        await self._client.connect(
            [f"{'tls' if tls else 'nats'}://{server}"],
            name=f"coordinator journal {address.names.journal}",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=int(CONNECT_S),
            ping_interval=PING_S,
            error_cb=self._on_trouble,
            closed_cb=self._on_closed,
            **options,
        )
        await self._client.subscribe(
            f"{self._prefix}.*", cb=self._hear, pending_bytes_limit=0
        )

    @property
    def info(self) -> ServerInfo:
        """What the server said of itself."""
        return msgspec.convert(self._client._server_info, ServerInfo)  # noqa: SLF001 -- no other way

    @property
    def payload_max(self) -> int:
        """Bytes that the server takes as one message, headers included."""
        return int(self._client.max_payload)

    def watch(self, on_loss: Callable[[LostError], None]) -> None:
        """Have *on_loss* called when the connection is lost; not when it is closed."""
        self._on_loss = on_loss
        if self._lost is not None:
            on_loss(self._lost)

    async def ask(
        self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None
    ) -> Reply:
        """Send *data*, and return the answer. Nothing is tried again.

        Cancellation: it may have been sent, and done.

        Raises:
            LostError: The connection was lost: nobody knows what became of it.
            NoAnswerError: As much; or we may not ask.
        """
        with self._inbox() as (token, inbox):
            reply = f"{self._prefix}.{token}"
            await self.send(subject, data, reply=reply, headers=headers)
            return await next_of(inbox, subject)

    async def call(self, subject: str, question: object, answer: type[T]) -> T:
        """Ask JetStream, and return its answer, decoded.

        Args:
            subject: Behind ``$JS.API.``.
            question: Sent as JSON; nothing if it is None.
            answer: What to decode the answer to.

        Raises:
            ApiProblem: It says no.
            LostError: As `ask`.
            NoAnswerError: As `ask`.
        """
        subject = f"$JS.API.{subject}"
        data = b"" if question is None else msgspec.json.encode(question)
        reply = await self.ask(subject, data)
        if reply.status == NO_RESPONDERS:
            raise NoAnswerError(
                f"nobody answers to {subject}: the server has no JetStream, or not "
                f"enough servers of its cluster are there"
            )
        try:
            failed = msgspec.json.decode(reply.data, type=_Failed)
            if failed.error is not None:
                raise ApiProblem(subject, failed.error)
            return msgspec.json.decode(reply.data, type=answer)
        except msgspec.DecodeError as error:
            raise NoAnswerError(f"the answer to {subject} is none: {error}") from error

    @contextlib.contextmanager
    def _inbox(self) -> Generator[tuple[str, Inbox]]:
        """Give the name of a new inbox, and the queue of what comes to it.

        Raises:
            LostError: The connection was lost.
        """
        if self._lost is not None:
            raise LostError(*self._lost.args)
        token = secrets.token_hex(8)
        inbox: Inbox = asyncio.Queue()
        self._inboxes[token] = inbox
        try:
            yield token, inbox
        finally:
            del self._inboxes[token]

    @contextlib.asynccontextmanager
    async def feed(self) -> AsyncGenerator[tuple[str, Inbox]]:
        """Give a subject to whose children messages may be sent, and their queue.

        What is stored comes under the subject that it was stored with, so for which
        inbox it is is told by a subscription of its own.

        Raises:
            LostError: The connection was lost.
        """
        with self._inbox() as (token, inbox):

            async def hear(message: Msg) -> None:
                inbox.put_nowait(_reply_of(message))

            subject = f"{self._prefix}.feed.{token}"
            try:
                feed = await self._client.subscribe(
                    f"{subject}.*", cb=hear, pending_bytes_limit=0
                )
            except (OSError, nats.errors.Error) as error:
                raise LostError(str(error)) from error
            try:
                yield subject, inbox
            finally:
                with contextlib.suppress(OSError, nats.errors.Error):
                    await feed.unsubscribe()

    async def send(
        self,
        subject: str,
        data: bytes = b"",
        *,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send *data*; nobody says whether it arrives.

        Raises:
            LostError: The connection was lost.
            NoAnswerError: It is larger than the server takes, and was not sent.
        """
        try:
            await self._client.publish(subject, data, reply=reply, headers=headers)
        except nats.errors.MaxPayloadError as error:
            raise NoAnswerError(
                f"{len(data)} bytes are more than a message may have here"
            ) from error
        except (OSError, nats.errors.Error) as error:
            raise LostError(str(error)) from error

    async def aclose(self) -> None:
        """Close it. May be called twice."""
        self._on_loss = None
        await self._give_up()

    async def _give_up(self) -> None:
        # What is on its way to a server that does not read is not waited for. One that
        # never began to connect asserts that it did.
        with contextlib.suppress(
            OSError, TimeoutError, nats.errors.Error, AssertionError
        ):
            async with asyncio.timeout(CONNECT_S):
                await self._client.close()

    async def _hear(self, message: Msg) -> None:
        """Put what came where it is waited for; nobody waits for what is late."""
        inbox = self._inboxes.get(message.subject.rpartition(".")[2])
        if inbox is not None:
            inbox.put_nowait(_reply_of(message))

    async def _on_trouble(self, error: Exception) -> None:
        self._trouble = _said(error)
        if "permissions violation" in self._trouble.lower():
            # The server does not answer then. It names the subject, no secret.
            self._tell(DeniedError(self._trouble))

    async def _on_closed(self) -> None:
        server = self._address
        said = self._trouble or _said(self._client.last_error)
        self._lost = LostError(f"the connection to {server} was lost: {said}")
        self._tell(self._lost)
        if self._on_loss is not None:
            self._on_loss(self._lost)

    def _tell(self, error: Exception) -> None:
        for inbox in self._inboxes.values():
            inbox.put_nowait(error)


async def next_of(inbox: Inbox, subject: str) -> Reply:
    """Return what comes to *inbox* next.

    Args:
        inbox: Of a question that was sent.
        subject: What was asked, for messages.

    Raises:
        LostError: The connection was lost meanwhile.
        NoAnswerError: Nothing came in time, or we may not ask that.
    """
    try:
        async with asyncio.timeout(ANSWER_S):
            heard = await inbox.get()
    except TimeoutError as error:
        raise NoAnswerError(
            f"no answer to {subject} within {ANSWER_S:.0f} s"
        ) from error
    if isinstance(heard, Exception):
        raise heard
    return heard


def _reply_of(message: Msg) -> Reply:
    status = (message.headers or {}).get("Status", "")
    return Reply(status, message.data, message.reply, message.subject)


def _said(error: Exception | None) -> str:
    if error is None:
        return "it was closed"
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return str(error).removeprefix("nats: ") or type(error).__name__


def _tls_context(address: Address) -> ssl.SSLContext | None:
    """Return how to speak TLS, if that is asked for.

    Raises:
        UnreachableError: A file can't be read.
    """
    if not address.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca or None)
        if address.cert:
            context.load_cert_chain(address.cert, address.key)
    except OSError as error:
        files = ", ".join(filter(None, (address.ca, address.cert, address.key)))
        raise UnreachableError(f"can't use {files} for TLS: {error}") from error
    return context
