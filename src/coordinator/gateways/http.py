"""The gateway to services that speak HTTP and JSON.

    class Payments(HttpGateway):
        async def charge(self, order_id: str, cents: int) -> Payment:
            body = {"order_id": order_id, "cents": cents}
            return await self.post("/charge", body, into=Payment)

        async def refund(self, payment: Payment) -> None:
            await self.post("/refund", {"payment": payment.id})

`http_rules` says what each status means. What has no status:

    connection refused, name not found      nobody knows: certainly not done, but it is
                                            not the business that says no
    connection lost, time-out, a torn body  nobody knows
    TLS that fails on either side           misconfigured: a certificate that is not
                                            trusted or not shown, no TLS at all
    no descriptors left in this process     nobody knows; the circuit counts nothing
    2xx, not readable as the declared type  `UnreadableAnswerError`: the service did it;
                                            a refusal would undo what it never undoes

Headers sent: ``Idempotency-Key``, ``Coordinator-Epoch``, ``traceparent``.

aiohttp is imported with this module, and with nothing else of the package.
"""

import re
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict, TypeVar, Unpack, overload

import msgspec

from cmdstream.breaker import BreakerOptions
from coordinator.context import StepContext
from coordinator.errors import CommandDelayed, Refused
from coordinator.gateways.base import (
    CALL_HEADERS,
    TIMEOUT_S,
    Answer,
    Gateway,
    MisconfiguredError,
    UnreadableAnswerError,
    call_headers,
    lacks_resources,
)
from coordinator.gateways.http_rules import (
    Problem,
    answer_to,
    base_of,
    read_problem,
    retry_after_s,
    target_of,
)

try:
    import aiohttp
    from multidict import CIMultiDict
    from yarl import URL
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"HTTP gateways need aiohttp ({error}): pip install 'coordinator[http]'"
    ) from error

__all__ = ["Answer", "CallOptions", "HttpGateway", "HttpOptions"]

T = TypeVar("T")

NO_PROBLEM = Problem("", {})

# RFC 9110, 5.1 and 5.5; a lone surrogate can't be encoded.
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")

_HINT_409 = (
    "; taken for the idempotency key's, if it is a refusal: "
    "answers={409: Answer.REFUSED}"
)


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one gateway's connections and answers."""

    connect_timeout_s: float = 3.0
    """Seconds to open one connection; more than 0. A host that is gone is known long
    before the call's own time-out: one lost SYN is sent again after 1 s."""
    connections_max: int = 100
    """Connections at once, which is calls at once; 1 or more. Calls above it wait, and
    not on their own time (see `Gateway`). It bounds what one coordinator can do to a
    service, and its own descriptors."""
    keepalive_s: float = 4.0
    """Seconds an unused connection is kept; 0 or more. Less than the 5 s after which
    uvicorn and Node close theirs: a POST that meets the closing is of unknown outcome,
    and costs a retry."""
    response_size_max: int = 1024 * 1024
    """Bytes of an answer, unpacked; 1 or more. An outcome is written to the journal and
    kept in memory while its workflow lives."""
    dns_cache_s: int = 10
    """Seconds a name's addresses are kept; 0 or more. Short: services move."""
    tls: ssl.SSLContext | None = None
    """Certificates to trust and to show; None trusts what the system trusts."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: A field is out of its bounds.
        """
        if not (self.connect_timeout_s > 0 and self.connections_max >= 1):
            raise ValueError(
                "http options need connect_timeout_s > 0 and connections_max >= 1, "
                f"got {self}"
            )
        if not (
            self.keepalive_s >= 0
            and self.response_size_max >= 1
            and self.dns_cache_s >= 0
        ):
            raise ValueError(
                "http options need keepalive_s >= 0, response_size_max >= 1 and "
                f"dns_cache_s >= 0, got {self}"
            )


class CallOptions(TypedDict, total=False):
    """What one call may do differently; all keyword arguments, all optional."""

    query: Mapping[str, str | int]
    headers: Mapping[str, str]
    answers: Mapping[int, Answer]
    """Statuses that mean something else here, e.g. ``{404: Answer.DID}`` of an undo
    whose object is gone already."""
    timeout_s: float
    body: bytes
    """A body that is not JSON; give its ``Content-Type`` in `headers`."""


class HttpGateway(Gateway):
    """The way to one service over HTTP; derive from it, one method per operation.

    Its connections are opened at the first call and closed by `aclose`, which the
    coordinator calls; a call after that opens them again.
    """

    def __init__(
        self,
        base_url: str,
        *,
        name: str,
        timeout_s: float = TIMEOUT_S,
        breaker: BreakerOptions | None = None,
        answers: Mapping[int, Answer] | None = None,
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        options: HttpOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the gateway; nothing is connected before the first call.

        Args:
            base_url: ``http(s)://host[:port][/path]``, from the configuration: what a
                command says never chooses the host.
            name: The service's name, as in ``service.operation``; see `Gateway`.
            timeout_s: Seconds a call may take in all, connecting included.
            breaker: When to stop asking.
            answers: Statuses that this service uses in another sense than `http_rules`
                has it, e.g. ``{404: Answer.REFUSED}``.
            headers: Sent with every call, e.g. ``Authorization``; a function is asked
                each time, for credentials that change.
            options: Limits, and TLS.
            clock: Seconds that never go back, for the breaker.

        Raises:
            ValueError: An argument is out of its bounds.
        """
        self._options = options or HttpOptions()
        super().__init__(
            name,
            timeout_s=timeout_s,
            calls_max=self._options.connections_max,
            breaker=breaker,
            clock=clock,
        )
        self._base = str(URL(base_of(base_url))).rstrip("/")
        self._answers = dict(answers or {})
        self._headers = headers if callable(headers) else _checked(headers)
        self._session: aiohttp.ClientSession | None = None
        self._encoder = msgspec.json.Encoder()
        self._decoders: dict[object, msgspec.json.Decoder[Any]] = {}

    @overload
    async def get(
        self, path: str | tuple[str, ...], *, into: type[T], **more: Unpack[CallOptions]
    ) -> T: ...
    @overload
    async def get(
        self, path: str | tuple[str, ...], **more: Unpack[CallOptions]
    ) -> None: ...
    async def get(
        self,
        path: str | tuple[str, ...],
        *,
        into: type[T] | None = None,
        **more: Unpack[CallOptions],
    ) -> T | None:
        """Send a GET; see `request`."""
        return await self._request("GET", path, None, into, more)

    @overload
    async def post(
        self,
        path: str | tuple[str, ...],
        json: object = None,
        *,
        into: type[T],
        **more: Unpack[CallOptions],
    ) -> T: ...
    @overload
    async def post(
        self,
        path: str | tuple[str, ...],
        json: object = None,
        **more: Unpack[CallOptions],
    ) -> None: ...
    async def post(
        self,
        path: str | tuple[str, ...],
        json: object = None,
        *,
        into: type[T] | None = None,
        **more: Unpack[CallOptions],
    ) -> T | None:
        """Send a POST; see `request`."""
        return await self._request("POST", path, json, into, more)

    @overload
    async def request(
        self,
        method: str,
        path: str | tuple[str, ...],
        json: object = None,
        *,
        into: type[T],
        **more: Unpack[CallOptions],
    ) -> T: ...
    @overload
    async def request(
        self,
        method: str,
        path: str | tuple[str, ...],
        json: object = None,
        **more: Unpack[CallOptions],
    ) -> None: ...
    async def request(
        self,
        method: str,
        path: str | tuple[str, ...],
        json: object = None,
        *,
        into: type[T] | None = None,
        **more: Unpack[CallOptions],
    ) -> T | None:
        """Send one request and return its answer, decoded into the type *into*.

        Args:
            method: ``PUT``, ``PATCH``, ``DELETE``, ...
            path: ``/charge``; or segments that may be any data, which are encoded:
                ``("orders", order_id, "charge")``. It can't leave the base URL.
            json: What is sent as JSON; nothing if None.
            into: Type of the answer; without it the body is not looked at.
            more: `CallOptions`.

        Cancellation: as `Gateway.call`; the connection is closed.

        Raises:
            Refused: The service did not do it; its `details` are the body's members
                and the ``status``.
            CommandBlocked: The circuit is open; the service was not asked.
            CommandDelayed: Nobody knows whether it did.
            MisconfiguredError: A fault of address, credentials or protocol.
            UnreadableAnswerError: It did, but *into* does not fit the answer.
            ValueError: The path or a header is not one; nothing was sent.
        """
        return await self._request(method, path, json, into, more)

    async def aclose(self) -> None:
        """Close the connections; calls in flight end as unknown. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def translate(self, error: Exception) -> Exception:
        """Say what aiohttp's exceptions mean; see `Gateway.translate`."""
        match error:
            case TimeoutError():
                return super().translate(error)
            case aiohttp.ClientConnectorCertificateError():
                return MisconfiguredError(
                    f"{self.service_name}: certificate not trusted: {error}"
                )
            case aiohttp.ClientError() if _fails_in_tls(error):
                return MisconfiguredError(f"{self.service_name}: TLS: {_said(error)}")
            case aiohttp.ClientError() if not lacks_resources(error):
                return CommandDelayed(f"{self.service_name}: {_said(error)}")
            case _:
                return super().translate(error)

    async def _request(
        self,
        method: str,
        path: str | tuple[str, ...],
        json: object,
        into: type[T] | None,
        more: CallOptions,
    ) -> T | None:
        # All that can fail on this side fails before anything is sent.
        target = target_of(self._base, path, more.get("query"))
        url = URL(target, encoded=True)
        assert str(url).startswith(self._base), "the path left the base URL"
        decoder = None if into is None else self._decoder(into)
        # Answers are small: packing them costs more than it saves.
        headers = CIMultiDict(
            {"Accept": "application/json", "Accept-Encoding": "identity"}
        )
        content = more.get("body")
        if content is None and json is not None:
            content = self._encoder.encode(json)
            headers["Content-Type"] = "application/json"
        given = self._headers
        headers.update(_checked(given()) if callable(given) else given)
        headers.update(_checked(more.get("headers")))
        overrides = self._answers | dict(more.get("answers", {}))

        async def ask(step: StepContext) -> T | None:
            headers.update(call_headers(step))
            async with self._open().request(
                method, url, data=content, headers=headers, allow_redirects=False
            ) as response:
                body = await self._read(response)
            problem = NO_PROBLEM if response.ok else read_problem(body)
            answer = answer_to(response.status, problem, overrides)
            if answer is not Answer.DID:
                raise self._not_done(answer, response, problem)
            return self._value(decoder, body, f"{method} {url.raw_path}")

        return await self.call(ask, timeout_s=more.get("timeout_s"))

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            options = self._options
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=options.connections_max,
                    keepalive_timeout=options.keepalive_s,
                    ttl_dns_cache=options.dns_cache_s,
                    ssl=options.tls or True,
                ),
                # The total is `call`'s: one clock decides when a call is over.
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=options.connect_timeout_s
                ),
                # A step must not depend on what an earlier one left in a cookie.
                cookie_jar=aiohttp.DummyCookieJar(),
                # No proxies out of the environment: see base_url.
                trust_env=False,
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """Return the body, or None if it is too big; the connection is closed then."""
        size_max = self._options.response_size_max
        if (response.content_length or 0) > size_max:
            response.close()
            return None
        chunks: list[bytes] = []
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size_max -= len(chunk)
            if size_max < 0:
                response.close()
                return None
        return b"".join(chunks)

    def _not_done(
        self, answer: Answer, response: aiohttp.ClientResponse, problem: Problem
    ) -> Exception:
        """Return the exception that says *answer*."""
        status = f"HTTP {response.status} {response.reason or ''}".strip()
        reason = f"{status}: {problem.reason}" if problem.reason else status
        if answer is Answer.REFUSED:
            details = problem.details | {"status": response.status}
            return Refused(problem.reason or status, details)
        if answer is Answer.UNKNOWN:
            wait_s = retry_after_s(
                response.headers.get("Retry-After"), datetime.now(UTC)
            )
            hint = _HINT_409 if response.status == 409 else ""
            return CommandDelayed(f"{self.service_name}: {reason}{hint}", wait_s)
        hint = f"; if it is a refusal: answers={{{response.status}: Answer.REFUSED}}"
        if location := response.headers.get("Location"):
            hint = f"; it redirects to {location[:200]}, and that is not followed"
        where = f"{response.method} {response.url.with_query(None)}"
        return MisconfiguredError(f"{self.service_name}: {where}: {reason}{hint}")

    def _value(
        self, decoder: "msgspec.json.Decoder[T] | None", body: bytes | None, what: str
    ) -> T | None:
        if decoder is None:
            return None
        if body is None:
            raise UnreadableAnswerError(
                f"{self.service_name} did {what}, but answered more than "
                f"{self._options.response_size_max} bytes"
            )
        try:
            return decoder.decode(body)
        except (ValueError, RecursionError) as error:  # as in `read_problem`
            raise UnreadableAnswerError(
                f"{self.service_name} did {what}, but its answer does not fit: {error}"
            ) from error

    def _decoder(self, into: type[T]) -> "msgspec.json.Decoder[T]":
        decoder = self._decoders.get(into)
        if decoder is None:
            decoder = self._decoders[into] = msgspec.json.Decoder(into)
        return decoder


def _fails_in_tls(error: aiohttp.ClientError) -> bool:
    """Say whether *error* is the fault of TLS, and not just a lost connection in it."""
    cause = error.__cause__
    lost = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, lost)


def _said(error: aiohttp.ClientError) -> str:
    """Return what *error* says, and its cause where it keeps that to itself."""
    said = str(error) or type(error).__name__
    cause = error.__cause__
    if cause is None:
        return said
    why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return said if why in said else f"{said}: {why}"


def _checked(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of *headers*.

    Raises:
        ValueError: One of them is the gateway's own, or can't be sent as a header.
    """
    if not headers:
        return {}
    for name, value in headers.items():
        # aiohttp would say so, too: once it is connected. Values may be credentials,
        # so they are not repeated.
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the header {name} has a value that can't be sent")
    if taken := CALL_HEADERS & {name.lower() for name in headers}:
        raise ValueError(f"the gateway sets {', '.join(sorted(taken))} itself")
    return dict(headers)
