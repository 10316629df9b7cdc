"""What ``python -m cmdstream`` does: ping, info and send.

    python -m cmdstream info 127.0.0.1:9000
    python -m cmdstream ping 127.0.0.1:9000 --count 4
    python -m cmdstream send 127.0.0.1:9000 0 '{"A":2,"B":3}'
    python -m cmdstream info orders.example.org:9443 --tls
    python -m cmdstream info 10.0.0.1:9443 --tls-ca ca.pem --tls-server-name orders

It has no types, so a command is the number of its type and its body: JSON as text, or
any other bytes, Protobuf's say, in hex. MUS bodies don't tell how long they are, and
can't be read without their types.

The exit status is 0 if the server answered, 1 if it did not, 2 if the command line
makes no sense, or names a file that can't be used. What the server said goes to
standard output, all else to standard error.
"""

import argparse
import asyncio
import json
import ssl
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from cmdstream.client import Client
from cmdstream.codecs.opaque import Opaque, OpaqueCodec
from cmdstream.connecting import ClientOptions
from cmdstream.errors import (
    CmdStreamError,
    ConnectError,
    ConnectionClosedError,
    ServerInfoMismatchError,
    TlsConfigError,
)
from cmdstream.protocol import INFO_SIZE_MAX
from cmdstream.tls import client_tls

__all__ = ["command_parser", "main"]

_TIMEOUT_S = 10.0

_NO_INFO = b"\0"
"""Expected where any ServerInfo will do: no server's, we hope."""


def main(arguments: Sequence[str]) -> int:
    """Do what *arguments* say, and return the exit status."""
    parser = command_parser()
    options = parser.parse_args(arguments)
    try:
        options.tls = _tls(options)
    except (TlsConfigError, ValueError) as error:
        parser.error(str(error))
    try:
        asyncio.run(options.run(options))
    except TimeoutError:
        return _failed(f"no answer from {options.address} in {options.timeout:g} s")
    except ConnectError as error:
        return _failed(str(error))
    except ConnectionClosedError as error:
        return _failed(
            f"{options.address} hung up: {error}. A server hangs up on a tag it does "
            "not know, on a body it can't read, and if the command fails: its log "
            "says which"
        )
    except CmdStreamError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Return how to speak TLS, if that is asked for.

    Raises:
        TlsConfigError: A file can't be used, or one is missing.
        ValueError: A server at a path has to be given a name.
    """
    ca, certificate, key = options.tls_ca, options.tls_cert, options.tls_key
    name = options.tls_server_name
    if not options.tls and all(one is None for one in (ca, certificate, key, name)):
        return None
    if options.path is not None and name is None:
        raise ValueError(
            f"TLS at {options.address} needs --tls-server-name: a path is no name to "
            "be found in a certificate"
        )
    return client_tls(server_ca=ca, certificate=certificate, key=key)


async def _info(options: argparse.Namespace) -> None:
    begin = time.perf_counter()
    info = await _server_info(options)
    taken_ms = 1e3 * (time.perf_counter() - begin)
    print(
        f"{options.address} announces {_shown(info)!r} ({len(info)} bytes), "
        f"{taken_ms:.1f} ms after the first knock"
    )


async def _ping(options: argparse.Namespace) -> None:
    taken_ms: list[float] = []
    async with await _connected(options, lambda _: True) as client:
        for number in range(1, options.count + 1):
            if number > 1:
                await asyncio.sleep(options.interval)
            begin = time.perf_counter()
            async with asyncio.timeout(options.timeout):
                await client.ping()
            taken_ms.append(1e3 * (time.perf_counter() - begin))
            print(f"pong {number} of {options.address}: {taken_ms[-1]:.2f} ms")
    print(
        f"{options.count} pings, {len(taken_ms)} pongs: {min(taken_ms):.2f} / "
        f"{statistics.median(taken_ms):.2f} / {max(taken_ms):.2f} ms "
        "(least / median / most)"
    )


async def _send(options: argparse.Namespace) -> None:
    async with await _connected(options, _last_one(options)) as client:
        results = client.stream(Opaque(options.tag, options.body))
        async with asyncio.timeout(options.timeout):
            async for result in results:
                assert isinstance(result, Opaque)
                print(f"{result.tag} {_shown(result.body)}", flush=True)


def _last_one(options: argparse.Namespace) -> Callable[[Opaque], bool]:
    """Tell which result ends the one command that is sent."""
    if options.until is None:
        left = options.results

        def counted(_: Opaque) -> bool:
            nonlocal left
            left -= 1
            return bool(left == 0)

        return counted

    def told(result: Opaque) -> bool:
        value: object = json.loads(result.body)
        if not isinstance(value, dict):
            return False
        fields = cast("dict[str, object]", value)  # what JSON's objects become
        return bool(fields.get(options.until))

    return told


async def _connected(
    options: argparse.Namespace, last_one: Callable[[Opaque], bool]
) -> Client:
    expected = options.server_info or await _server_info(options)
    return await _connect(options, expected, last_one)


async def _server_info(options: argparse.Namespace) -> bytes:
    """Find out what the server announces: expect something else."""
    try:
        client = await _connect(options, _NO_INFO, lambda _: True)
    except ServerInfoMismatchError as mismatch:
        return mismatch.received
    await client.aclose()
    return _NO_INFO


async def _connect(
    options: argparse.Namespace, expected: bytes, last_one: Callable[[Opaque], bool]
) -> Client:
    codec = OpaqueCodec(last_one)
    bounds = ClientOptions(
        server_info=expected,
        connect_timeout_s=options.timeout,
        server_info_timeout_s=options.timeout,
        tls_handshake_timeout_s=options.timeout,
        tls_server_name=options.tls_server_name,
    )
    tls = options.tls
    if options.path is not None:
        return await Client.connect_unix(options.path, codec, options=bounds, tls=tls)
    return await Client.connect(
        options.host, options.port, codec, options=bounds, tls=tls
    )


def _shown(data: bytes) -> str:
    """Show *data* as text if it is some, else as hex."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data.hex()
    return text if text.isprintable() else data.hex()


def _failed(why: str) -> int:
    print(f"python -m cmdstream: {why}", file=sys.stderr)
    return 1


class _Address(argparse.Action):
    """``HOST:PORT``, ``[IPv6]:PORT``, or the path of a unix socket."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Take the address apart."""
        host, colon, port = values.rpartition(":")
        namespace.address, namespace.path = values, None
        if "/" in values:
            namespace.path = values
        elif colon and host and port.isdecimal() and int(port) < 2**16:
            namespace.host, namespace.port = host.strip("[]"), int(port)
        else:
            parser.error(f"{values!r} is neither HOST:PORT nor the path of a socket")


class _Body(argparse.Action):
    """JSON as text, or with ``hex:`` in front any bytes."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Turn it into bytes; text that is no JSON is a slip, and not sent."""
        try:
            if values.startswith("hex:"):
                namespace.body = bytes.fromhex(values.removeprefix("hex:"))
            else:
                json.loads(values)
                namespace.body = values.encode()
        except ValueError as error:
            parser.error(f"the body {values!r} can't be read: {error}")


def command_parser() -> argparse.ArgumentParser:
    """Return what takes a command line apart."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "address", action=_Address, help="HOST:PORT, or the path of a unix socket"
    )
    common.add_argument(
        "--timeout", type=_seconds, default=_TIMEOUT_S, metavar="S", help="default: 10"
    )
    tls = common.add_argument_group("TLS", "any of these turns it on")
    tls.add_argument(
        "--tls", action="store_true", help="trust the authorities of this machine"
    )
    tls.add_argument("--tls-ca", metavar="FILE", help="trust these instead")
    tls.add_argument(
        "--tls-cert", metavar="FILE", help="of ours, for a server with mTLS"
    )
    tls.add_argument("--tls-key", metavar="FILE", help="of --tls-cert")
    tls.add_argument(
        "--tls-server-name",
        metavar="NAME",
        help="that the server's certificate has to have; default: HOST",
    )
    parser = argparse.ArgumentParser(
        prog="python -m cmdstream", description="Ask a cmd-stream server."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser(
        "info", parents=[common], help="print the ServerInfo it announces"
    )
    info.set_defaults(run=_info)

    ping = commands.add_parser("ping", parents=[common], help="time round trips")
    _expect_info(ping)
    ping.add_argument("--count", type=_count, default=4, metavar="N")
    ping.add_argument("--interval", type=_seconds, default=1.0, metavar="S")
    ping.set_defaults(run=_ping)

    send = commands.add_parser(
        "send", parents=[common], help="send one command, print its results"
    )
    _expect_info(send)
    send.add_argument("tag", type=_tag, help="number of the command's type, from 0")
    send.add_argument("body", action=_Body, help="its JSON, or hex:… for other bytes")
    send.add_argument(
        "--results", type=_count, default=1, metavar="N", help="how many to wait for"
    )
    send.add_argument(
        "--until", metavar="FIELD", help="wait for the one whose JSON FIELD is true"
    )
    send.set_defaults(run=_send)
    return parser


def _expect_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server-info",
        type=_info_bytes,
        metavar="TEXT",
        help="fail if it announces another one; default: take any",
    )


def _number(text: str, *, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)


def _count(text: str) -> int:
    return _number(text, least=1)


def _tag(text: str) -> int:
    return _number(text, least=0)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _info_bytes(text: str) -> bytes:
    info = text.encode()
    if not 1 <= len(info) <= INFO_SIZE_MAX:
        raise argparse.ArgumentTypeError(
            f"a server info has 1 to {INFO_SIZE_MAX} bytes, this one {len(info)}"
        )
    return info
