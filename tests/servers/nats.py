"""nats-server for the tests: built once, and run alone or as a cluster.

    with nats_server() as server:                   JetStream, on files
        ... server.url ...
    with nats_cluster() as cluster:                 three of them
        cluster.leader("stream").kill()

It is built with the Go of `tests/interop/golang.py`. Its version stands in
``go/go.mod``, the hash of each module in ``go/go.sum``; it is kept in ``.cache``.
"""

import atexit
import functools
import hashlib
import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import nats
from tests.certificates import Pair
from tests.interop import golang
from tests.lacking import lack
from tests.servers.installing import LackError, install_once
from tests.servers.process import Place, Server

__all__ = [
    "Nats",
    "NatsCluster",
    "NatsOptions",
    "NatsTls",
    "delete_streams",
    "install",
    "nats_client",
    "nats_cluster",
    "nats_server",
    "shared_cluster",
    "shared_server",
]

T = TypeVar("T")

_MODULE = Path(__file__).parent / "go"
_PACKAGE = "github.com/nats-io/nats-server/v2"


@dataclass(frozen=True, kw_only=True)
class NatsTls:
    """What a server shows, and whom it lets in."""

    server: Pair
    authority: Path
    """Signed the certificates of clients."""
    verify: bool = False
    """Whether clients must show one."""


@dataclass(frozen=True, kw_only=True)
class NatsOptions:
    """How a server is set up; by default anybody may do anything."""

    user: str = ""
    password: str = ""
    token: str = ""
    tls: NatsTls | None = None
    sync_interval: str = ""
    """E.g. ``always``: each message is flushed before it is acknowledged."""
    max_payload: int = 0
    """Bytes of a message; 0 for the server's own, 1 MiB."""
    extra: str = ""
    """Further lines of configuration, e.g. of accounts and rights."""


_DEFAULT = NatsOptions()


@functools.cache
def install() -> Path:
    """Build nats-server, if need be, and return the program.

    Raises:
        LackError: There is nothing to build it with.
    """
    try:
        go = golang.find_go()
    except golang.LackError as error:
        raise LackError(str(error)) from error
    pinned = b"".join((_MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    version = golang.run_go(go, "version").encode()
    name = f"nats-{hashlib.sha256(pinned + version).hexdigest()[:16]}"

    def build(folder: Path) -> None:
        arguments = ("build", "-trimpath", "-buildvcs=false", "-o", f"{folder}/")
        try:
            golang.run_go(go, "mod", "download", _PACKAGE, folder=_MODULE)
            golang.run_go(go, *arguments, _PACKAGE, folder=_MODULE)
        except subprocess.CalledProcessError as error:
            raise LackError(
                f"can't build nats-server: {error.stderr.strip()}; it needs the Go "
                f"modules of tests/servers/go, `make servers` gets them"
            ) from error

    return install_once(name, build) / "nats-server"


def _program() -> Path:
    try:
        return install()
    except LackError as error:
        lack(str(error))


class Nats:
    """One nats-server with JetStream on files."""

    def __init__(
        self,
        place: Place,
        name: str,
        options: NatsOptions,
        ports: Sequence[int],
        routes: Sequence[int] = (),
    ) -> None:
        """Describe it; `start` starts it.

        Args:
            place: Where it runs.
            name: Unique in its cluster.
            options: How it is set up.
            ports: For clients, for questions over HTTP, and for the other servers.
            routes: Ports of the other servers, and its own; none if it is alone.
        """
        self.name = name
        self.port, self._monitor, _ = ports
        self._options = options
        self._size = max(1, len(routes))
        self._path = path = place.folder / f"{name}.conf"
        store = place.folder / name / "data"
        path.write_text(_configuration(name, options, ports, routes, store))
        self.process: Server = place.server(name, (str(_program()), "-c", str(path)))

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As nats-py takes it, without a user."""
        return f"{'tls' if self._options.tls else 'nats'}://{self.address}"

    def start(self) -> None:
        """Start it; it may not be ready on return, see `wait`."""
        self.process.start()

    def restart(self) -> None:
        """Start it once more after its end, and wait until it is ready."""
        self.start()
        self.wait()

    def wait(self) -> None:
        """Wait until it does JetStream, with all that it has stored."""
        self.process.until(self._is_healthy, "healthy")

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()

    def pause(self) -> None:
        """See `Server.pause`."""
        self.process.pause()

    def resume(self) -> None:
        """See `Server.resume`."""
        self.process.resume()

    def reload(self, extra: str) -> None:
        """Have it take other further lines of configuration, in its own time."""
        old = self._path.read_text()
        self._path.write_text(old.replace(self._options.extra, extra))
        self.process.send(signal.SIGHUP)

    def ask(self, path: str) -> Any:
        """Return what it says of itself, e.g. under ``/jsz?streams=true``.

        Raises:
            OSError: It does not answer, or says no.
        """
        url = f"http://127.0.0.1:{self._monitor}{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.loads(answer.read())

    def _is_healthy(self) -> bool:
        try:
            if self.ask("/healthz")["status"] != "ok":
                return False
        except urllib.error.HTTPError as error:
            error.close()
            return False
        if self._size == 1:
            return True
        meta = self.ask("/jsz").get("meta_cluster", {})
        return bool(meta.get("leader")) and meta.get("cluster_size") == self._size


class NatsCluster:
    """Three servers that hold each stream together."""

    def __init__(self, servers: Sequence[Nats]) -> None:
        self.servers = list(servers)

    @property
    def addresses(self) -> list[str]:
        """Host and port of each."""
        return [server.address for server in self.servers]

    @property
    def urls(self) -> list[str]:
        """As nats-py takes them."""
        return [server.url for server in self.servers]

    def restart(self) -> None:
        """Start those that have ended, and wait until all are ready."""
        for server in self.servers:
            if not server.process.running:
                server.process.kill()  # waits for one that ended by itself
                server.start()
        for server in self.servers:
            server.wait()

    def leader(self, stream: str) -> Nats:
        """Return the server that leads *stream*, once there is one."""
        found: list[Nats] = []

        def ask() -> bool:
            for server in self.servers:
                if server.process.running and _leads(server, stream):
                    found.append(server)
                    return True
            return False

        alive = next(one for one in self.servers if one.process.running)
        alive.process.until(ask, f"told who leads {stream}")
        return found[0]


@contextmanager
def nats_server(options: NatsOptions = _DEFAULT) -> Generator[Nats]:
    """Run one server until the block is left; skips, or fails in CI, without it."""
    with Place("nats") as place:
        server = Nats(place, "a", options, place.ports(3))
        server.start()
        server.wait()
        yield server


@contextmanager
def nats_cluster(options: NatsOptions = _DEFAULT) -> Generator[NatsCluster]:
    """Run three servers until the block is left; skips, or fails in CI, without it."""
    with Place("nats") as place:
        ports = place.ports(9)
        routes = ports[6:]
        cluster = NatsCluster(
            [
                Nats(place, name, options, ports[index::3], routes)
                for index, name in enumerate("abc")
            ]
        )
        for server in cluster.servers:
            server.start()
        for server in cluster.servers:
            server.wait()
        yield cluster


@functools.cache
def shared_server() -> Nats:
    """Return a server that runs as long as the process, for tests that share one."""
    return _shared(nats_server())


@functools.cache
def shared_cluster() -> NatsCluster:
    """Return a cluster that runs as long as the process."""
    return _shared(nats_cluster())


@asynccontextmanager
async def nats_client(*addresses: str) -> AsyncGenerator[Any]:
    """Give a client of nats-py, whose annotations a strict checker can't follow."""
    library: Any = nats
    client = await library.connect([f"nats://{address}" for address in addresses])
    try:
        yield client
    finally:
        await client.close()


async def delete_streams(addresses: Sequence[str], streams: Sequence[str]) -> None:
    """Delete *streams*, as an operator does."""
    async with nats_client(*addresses) as client:
        for stream in streams:
            await client.jetstream().delete_stream(stream)


def _shared(made: AbstractContextManager[T]) -> T:
    running = made.__enter__()
    atexit.register(made.__exit__, None, None, None)
    return running


def _leads(server: Nats, stream: str) -> bool:
    try:
        details = server.ask("/jsz?streams=true&accounts=true")["account_details"]
    except (OSError, KeyError):
        return False
    return any(
        one["name"] == stream and one["cluster"].get("leader") == server.name
        for account in details
        for one in account.get("stream_detail", [])
    )


def _configuration(
    name: str,
    options: NatsOptions,
    ports: Sequence[int],
    routes: Sequence[int],
    store: Path,
) -> str:
    port, monitor, route = ports
    lines = [
        f"server_name: {name}",
        f"listen: 127.0.0.1:{port}",
        f"http: 127.0.0.1:{monitor}",
        f"jetstream {{ store_dir: {_quoted(store)}",
        *([f"sync_interval: {options.sync_interval}"] if options.sync_interval else []),
        "}",
    ]
    if options.max_payload:
        lines.append(f"max_payload: {options.max_payload}")
    if options.user:
        lines.append(
            f"authorization {{ user: {_quoted(options.user)}, "
            f"password: {_quoted(options.password)} }}"
        )
    if options.token:
        lines.append(f"authorization {{ token: {_quoted(options.token)} }}")
    if (tls := options.tls) is not None:
        lines += [
            f"tls {{ cert_file: {_quoted(tls.server.certificate)}",
            f"key_file: {_quoted(tls.server.key)}",
            f"ca_file: {_quoted(tls.authority)}",
            f"verify: {str(tls.verify).lower()} }}",
        ]
    if routes:
        others = ", ".join(f"nats-route://127.0.0.1:{other}" for other in routes)
        lines.append(
            f"cluster {{ name: tests, listen: 127.0.0.1:{route}, routes: [{others}] }}"
        )
    return "\n".join([*lines, options.extra, ""])


def _quoted(value: object) -> str:
    return json.dumps(str(value))
