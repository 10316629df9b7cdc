import asyncio
import gzip
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey
from tests.certificates import Authority, needs_openssl
from tests.gateways.conformance import (
    LONG_S,
    Act,
    Clock,
    GatewayConformance,
    Paid,
    Peer,
    Scene,
    Seen,
)
from tests.streams import Listener

from coordinator.context import StepContext, in_step
from coordinator.errors import CommandDelayed, Refused
from coordinator.gateways import (
    BreakerOptions,
    MisconfiguredError,
    UnreadableAnswerError,
)
from coordinator.gateways.http import Answer, HttpGateway, HttpOptions
from coordinator.model import Direction, StepId

STEP = StepContext("k-1", 7, "0-1", StepId("payments.charge", 0), Direction.DO, 0)

Handler = Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]


class Payments(HttpGateway):
    """The one-liners that users write."""

    async def charge(self, order_id: str, cents: int) -> Paid:
        body = {"order_id": order_id, "cents": cents}
        return await self.post("/charge", body, into=Paid)

    async def refund(self, paid: Paid) -> None:
        await self.post("/refund", {"payment": paid.id})


async def listening(
    runner: web.AppRunner, port: int, tls: ssl.SSLContext | None = None
) -> Listener:
    """Let *runner* serve who comes to *port*, 0 for a free one."""
    await runner.setup()
    server = runner.server
    assert server is not None

    async def take(sock: socket.socket) -> None:
        with suppress(ConnectionError, ssl.SSLError):  # as the client wants it
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(server, sock, ssl=tls)

    listener = Listener(take)
    listener.listen(socket.create_server(("127.0.0.1", port)))
    return listener


class HttpPeer:
    """The peer behind a real server on a port of its own."""

    def __init__(self) -> None:
        self.peer = Peer()
        # Bound, and not listened on: while it is away nobody else is given its port.
        self.keeper = socket.socket()
        self.keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.keeper.bind(("127.0.0.1", 0))
        self.port: int = self.keeper.getsockname()[1]
        self.open: set[asyncio.BaseTransport] = set()
        self.runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/charge", self.charge)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        self.listener = await listening(self.runner, self.port)

    async def stop(self) -> None:
        if self.runner is not None:
            runner, self.runner = self.runner, None
            self.listener.close()
            await self.listener.wait_idle()
            for transport in self.open:
                assert isinstance(transport, asyncio.Transport)
                transport.abort()
            await runner.cleanup()

    async def charge(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        self.open.add(transport)
        body = msgspec.json.decode(await request.read(), type=dict[str, Any])
        act, paid = await self.peer.take(
            Seen(
                request.headers["Idempotency-Key"],
                request.headers["Coordinator-Epoch"],
                request.headers.get("traceparent", ""),
                body["order_id"],
                body["cents"],
            )
        )
        match act:
            case Act.REFUSE:
                problem = {"detail": "declined", "code": "do_not_honor"}
                return web.json_response(
                    problem, status=409, content_type="application/problem+json"
                )
            case Act.FAIL:
                return web.json_response({"detail": "overloaded"}, status=503)
            case Act.LOSE_REPLY:
                transport.abort()
                return web.Response()
            case Act.GARBLE:
                return web.Response(text="<html>")
            case Act.DO | Act.HANG:
                return web.Response(body=msgspec.json.encode(paid))


def busy_connections(gateway: HttpGateway) -> int:
    session = gateway._session
    return 0 if session is None else len(session.connector._acquired)  # type: ignore[union-attr]  # aiohttp has no public count


class TestHttp(GatewayConformance):
    @asynccontextmanager
    async def open(
        self, timeout_s: float, breaker: BreakerOptions, clock: Clock
    ) -> AsyncGenerator[Scene, None]:
        server = HttpPeer()
        await server.start()
        async with Payments(
            f"http://127.0.0.1:{server.port}",
            name="payments",
            timeout_s=timeout_s,
            breaker=breaker,
            clock=clock,
            options=HttpOptions(connect_timeout_s=LONG_S),
        ) as gateway:
            try:
                yield Scene(
                    server.peer,
                    gateway,
                    clock,
                    server.stop,
                    server.start,
                    lambda: busy_connections(gateway),
                )
            finally:
                await server.stop()
                server.keeper.close()


@asynccontextmanager
async def serving(
    handler: Handler, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[str, None]:
    """Serve every path with *handler*; its base URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=0.01, auto_decompress=False
    )
    listener = await listening(runner, 0, tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listener.port}"
    finally:
        listener.close()
        await listener.wait_idle()
        await runner.cleanup()


def with_gateway(
    handler: Handler,
    use: Callable[[HttpGateway], Coroutine[Any, Any, object]],
    prefix: str = "",
    options: HttpOptions = HttpOptions(),  # noqa: B008 -- frozen
    **more: Any,
) -> None:
    """Run *use*, in a step, with a gateway to *handler* that has all the time."""
    options = msgspec.structs.replace(options, connect_timeout_s=LONG_S)
    more = {"timeout_s": LONG_S, "options": options, **more}

    async def main() -> None:
        async with (
            serving(handler) as base_url,
            HttpGateway(base_url + prefix, name="shop", **more) as gateway,
        ):
            with in_step(STEP):
                await use(gateway)
            assert busy_connections(gateway) == 0

    asyncio.run(main(), debug=True)


def answering(status: int, body: bytes = b"", **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=names)

    return handler


async def echo(request: web.Request) -> web.Response:
    """Answer with what arrived."""
    return web.json_response(
        {
            "method": request.method,
            "raw_path": request.raw_path,
            "body": (await request.read()).decode(),
            "headers": {name.lower(): value for name, value in request.headers.items()},
        }
    )


@dataclass
class Echo:
    method: str
    raw_path: str
    body: str
    headers: dict[str, str]


def test_what_is_sent_is_what_was_said() -> None:
    async def use(gateway: HttpGateway) -> None:
        sent = await gateway.post(
            ("orders", "a/b ?#ä", "charge"),
            {"cents": 5},
            into=Echo,
            query={"dry run": "x&y", "n": 1},
            headers={"X-Tenant": "t", "accept": "text/plain"},
        )
        assert sent.method == "POST"
        assert sent.raw_path == (
            "/api/orders/a%2Fb%20%3F%23%C3%A4/charge?dry%20run=x%26y&n=1"
        )
        assert sent.body == '{"cents":5}'
        assert sent.headers["content-type"] == "application/json"
        assert sent.headers["idempotency-key"] == "k-1"
        assert sent.headers["coordinator-epoch"] == "7"
        assert sent.headers["authorization"] == "Bearer t-1"
        assert (sent.headers["x-tenant"], sent.headers["accept"]) == ("t", "text/plain")
        assert "traceparent" not in sent.headers
        assert "cookie" not in sent.headers

    with_gateway(echo, use, "/api/", headers={"Authorization": "Bearer t-1"})


def test_other_methods_and_bodies() -> None:
    async def use(gateway: HttpGateway) -> None:
        got = await gateway.get("/stock", into=Echo)
        assert (got.method, got.body) == ("GET", "")
        assert "content-type" not in got.headers
        deleted = await gateway.request("DELETE", "/hold/1", into=Echo)
        assert deleted.method == "DELETE"
        raw = await gateway.post(
            "/xml", into=Echo, body=b"<a/>", headers={"Content-Type": "text/xml"}
        )
        assert (raw.body, raw.headers["content-type"]) == ("<a/>", "text/xml")
        # Without a type the answer is not looked at.
        await gateway.post("/x")
        await gateway.get("/x")
        await gateway.request("PUT", "/x", {})

    with_gateway(echo, use)


def test_credentials_that_change_are_asked_for_each_time() -> None:
    tokens = iter(["t-1", "t-2"])

    async def use(gateway: HttpGateway) -> None:
        for token in ("t-1", "t-2"):
            sent = await gateway.get("/", into=Echo)
            assert sent.headers["authorization"] == token

    with_gateway(echo, use, headers=lambda: {"Authorization": next(tokens)})


def test_a_cookie_of_one_step_does_not_reach_the_next() -> None:
    async def handler(request: web.Request) -> web.Response:
        assert "Cookie" not in request.headers
        return web.Response(headers={"Set-Cookie": "session=1; Path=/"})

    async def use(gateway: HttpGateway) -> None:
        await gateway.get("/")
        await gateway.get("/")

    with_gateway(handler, use)


@pytest.mark.parametrize("status", [400, 402, 409, 410, 413, 422, 451])
def test_the_business_says_no(status: int) -> None:
    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(Refused) as refused:
            await gateway.post("/charge", {})
        assert refused.value.reason == "no stock"
        assert refused.value.details == {"reason": "no stock", "status": status}
        assert gateway.health().failures == 0

    with_gateway(answering(status, b'{"reason": "no stock", "status": 1}'), use)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 415, 301, 302, 303, 307, 308])
def test_a_broken_configuration_is_not_a_refusal(status: int) -> None:
    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(
            MisconfiguredError, match=f"shop: POST .*/charge: HTTP {status}"
        ):
            await gateway.post("/charge", {}, query={"token": "secret"})
        assert gateway.health().failures == 1
        assert "secret" not in gateway.health().last_failure

    with_gateway(answering(status), use)


def test_the_message_of_an_ambiguous_status_says_how_to_decide_it() -> None:
    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(
            MisconfiguredError, match=r"answers=\{404: Answer.REFUSED\}"
        ):
            await gateway.get("/")

    with_gateway(answering(404), use)


def test_statuses_can_be_decided_by_gateway_and_by_call() -> None:
    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(Refused):
            await gateway.get("/")
        await gateway.get("/", answers={404: Answer.DID})
        with pytest.raises(CommandDelayed):
            await gateway.get("/", answers={404: Answer.UNKNOWN})

    with_gateway(answering(404), use, answers={404: Answer.REFUSED})


@pytest.mark.parametrize("status", [408, 423, 425, 429, 500, 501, 502, 503, 504])
def test_not_now_and_server_errors_are_nobody_knows(status: int) -> None:
    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(CommandDelayed, match=f"HTTP {status}") as delayed:
            await gateway.post("/charge", {})
        assert delayed.value.retry_after_s == 7
        assert gateway.health().failures == 1

    with_gateway(answering(status, Retry_After="7"), use)


def test_a_key_that_is_still_in_use_is_no_refusal() -> None:
    body = b'{"error": {"code": "idempotency_key_in_use", "message": "wait"}}'

    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(CommandDelayed, match="wait"):
            await gateway.post("/charge", {})

    with_gateway(answering(409, body), use)


@pytest.mark.parametrize("body", [b"", b"{", b'{"id": 1}', b"\xff", b'"\xff"'])
def test_an_answer_that_does_not_fit_says_that_the_work_was_done(body: bytes) -> None:
    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(UnreadableAnswerError, match="shop did POST /charge, but"):
            await gateway.post("/charge", {}, into=Paid)
        assert gateway.health().failures == 1

    with_gateway(answering(200, body), use)


def test_brackets_without_end_do_not_break_it() -> None:
    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(UnreadableAnswerError):
            await gateway.post("/charge", {}, into=list[Any])
        with pytest.raises(Refused):
            await gateway.post("/charge", {}, answers={200: Answer.REFUSED})

    with_gateway(answering(200, b"[" * 100_000), use)


async def chunked(request: web.Request) -> web.StreamResponse:
    """Answer 3,000 bytes without saying how many."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for _ in range(3):
        await response.write(b"x" * 1000)
    return response


@pytest.mark.parametrize(
    "handler",
    [
        answering(200, b"x" * 3000),
        chunked,
        answering(200, gzip.compress(b"x" * 3000), Content_Encoding="gzip"),
    ],
    ids=["with length", "chunked", "packed"],
)
def test_an_answer_that_is_too_big_is_not_read(handler: Handler) -> None:
    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(UnreadableAnswerError, match="more than 2000 bytes"):
            await gateway.get("/", into=Paid)
        await gateway.get("/")

    with_gateway(handler, use, options=HttpOptions(response_size_max=2000))


def test_a_refusal_that_is_too_big_is_still_a_refusal() -> None:
    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(Refused) as refused:
            await gateway.get("/")
        assert refused.value.reason.startswith("HTTP 422")
        assert refused.value.details == {"status": 422}

    with_gateway(
        answering(422, b"x" * 3000), use, options=HttpOptions(response_size_max=2000)
    )


def test_a_body_that_breaks_off_is_nobody_knows() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"id"')
        assert request.transport is not None
        request.transport.close()
        return response

    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(CommandDelayed, match="shop: "):
            await gateway.post("/charge", {}, into=Paid)

    with_gateway(handler, use)


def test_a_redirect_is_not_followed_and_the_message_says_where_it_points() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "http://evil/take"})

    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(MisconfiguredError, match="redirects to http://evil/take"):
            await gateway.post("/charge", {})

    with_gateway(handler, use)
    assert asked == ["/charge"]


@pytest.mark.parametrize(
    "path",
    [
        "//evil/x",
        "http://evil/x",
        "charge",
        "",
        "/a//b",
        "/..",
        "/../admin",
        "/a/../../admin",
        "/%2e%2e/admin",
        "/a/%2E%2E%2fadmin",
        "/.%2e/x",
        "/./x",
        "/\\evil",
        "\\\\evil",
        "/%5c..%5cadmin",
        "/x?y=1",
        "/x#y",
        "/a b",
        "/a\r\nHost: evil",
        "/@evil/../..",
        (),
        ("..", "admin"),
        ("a", "../admin"),
        ("a", "..\\admin"),
        ("", "evil"),
        ("a", "."),
    ],
)
def test_no_path_leaves_the_base(path: str | tuple[str, ...]) -> None:
    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(ValueError, match="path"):
            await gateway.get(path, into=Echo)
        assert gateway._session is None

    with_gateway(echo, use, "/api")


@pytest.mark.parametrize(
    "path", ["/@evil:80/x", "/a;b=1/c", ("http://evil/x",), ("@",)]
)
def test_a_path_that_looks_like_a_host_is_only_a_path(
    path: str | tuple[str, ...],
) -> None:
    async def use(gateway: HttpGateway) -> None:
        sent = await gateway.get(path, into=Echo)
        assert sent.raw_path.startswith("/api/")
        assert sent.headers["host"].startswith("127.0.0.1:")

    with_gateway(echo, use, "/api")


@pytest.mark.parametrize(
    "base_url",
    [
        "payments",
        "ftp://payments",
        "http://",
        "http:///x",
        "//payments",
        "http://user:secret@payments",
        "http://payments/?x=1",
        "http://payments/#x",
        "http://payments\\evil",
        "file:///etc/passwd",
    ],
)
def test_a_base_url_that_is_none_is_refused_without_repeating_it(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url must be") as refused:
        HttpGateway(base_url, name="shop")
    assert "secret" not in str(refused.value)


def test_the_gateways_own_headers_can_not_be_set() -> None:
    with pytest.raises(ValueError, match="idempotency-key"):
        HttpGateway("http://h", name="shop", headers={"idempotency-Key": "x"})

    async def use(gateway: HttpGateway) -> None:
        with pytest.raises(ValueError, match="coordinator-epoch"):
            await gateway.get("/", headers={"Coordinator-Epoch": "9"})

    with_gateway(echo, use)


@pytest.mark.parametrize(
    "options",
    [
        {"connect_timeout_s": 0},
        {"connections_max": 0},
        {"keepalive_s": -1},
        {"response_size_max": 0},
        {"dns_cache_s": -1},
    ],
)
def test_options_out_of_their_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="http options need"):
        HttpOptions(**options)


def test_connections_above_the_limit_wait_for_one() -> None:
    at_once = 0
    most = 0
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 2:
            go_on.set()
        await go_on.wait()
        at_once -= 1
        return web.Response()

    async def use(gateway: HttpGateway) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(gateway.get("/"))

    with_gateway(handler, use, options=HttpOptions(connections_max=2))
    assert most == 2


def test_a_closed_gateway_opens_again_at_the_next_call() -> None:
    async def use(gateway: HttpGateway) -> None:
        await gateway.get("/")
        await gateway.aclose()
        await gateway.get("/")

    with_gateway(echo, use)


def test_a_name_that_is_not_found_is_nobody_knows() -> None:
    lookup = aiohttp.ClientConnectorDNSError(
        ConnectionKey("h", 80, False, True, None, None, None),
        OSError(-2, "no such name"),
    )
    answer = HttpGateway("http://h", name="shop").translate(lookup)
    assert isinstance(answer, CommandDelayed)
    assert "no such name" in answer.reason


def test_what_is_not_of_http_passes_unchanged() -> None:
    bug = KeyError("x")
    assert HttpGateway("https://h", name="shop").translate(bug) is bug


@needs_openssl
def test_a_certificate_is_trusted_only_if_the_options_say_so(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(*authority.issue("server"))
    client_tls = ssl.create_default_context(cafile=str(authority.certificate))

    async def main() -> None:
        async with serving(echo, server_tls) as base_url:
            options = HttpOptions(connect_timeout_s=LONG_S)
            async with HttpGateway(base_url, name="shop", options=options) as gateway:
                with pytest.raises(MisconfiguredError, match="certificate not trusted"):
                    await gateway.get("/")
            options = HttpOptions(tls=client_tls, connect_timeout_s=LONG_S)
            async with HttpGateway(base_url, name="shop", options=options) as gateway:
                assert (await gateway.get("/", into=Echo)).method == "GET"

    with in_step(STEP):
        asyncio.run(main())


def test_without_aiohttp_the_package_imports_and_the_message_says_what_to_install() -> (
    None
):
    code = """
import sys
sys.modules["aiohttp"] = None
import coordinator.gateways
assert "coordinator.gateways.http" not in sys.modules
try:
    import coordinator.gateways.http
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'coordinator[http]'" in done.stdout
