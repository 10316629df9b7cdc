"""A real server as tests see it: started, killed, paused, started again in its place.

    with Place("nats") as place:                    a folder and ports of its own
        server = place.server("a", command)
        server.start()
        server.until(answers, "ready")              asked again and again
        server.kill()                               SIGKILL, as a crash
        server.pause(); server.resume()             SIGSTOP, SIGCONT
    # all are killed here, and the folder is gone; also if the test itself is killed

Everything blocks for as long as it takes, which is short; a test on an event loop that
must go on meanwhile puts the call into a thread.
"""

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from tests.servers.guardian import Guardian

__all__ = ["Place", "Server", "ServerError"]

TIMEOUT_S = 120.0
"""Only a hang gets here; the machine may be busy."""
POLL_S = 0.01
LOG_TAIL_SIZE = 4000
"""Characters of a server's log that an error shows."""
PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to connections: a server that is down for a while
finds its port free again."""


class ServerError(AssertionError):
    """A server did not do what a test needs of it; with the end of its log."""


class Server:
    """One server process; `Place.server` makes it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.folder = folder
        """Its own, for what it stores; the log lies there, too."""
        self._command = [*command]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started, and has not ended by itself."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has said so far, in all its lives."""
        path = self._log_path
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _log_path(self) -> Path:
        return self.folder / "log.txt"

    def start(self) -> None:
        """Start it, also once more after its end, with what it has stored."""
        assert self._process is None, f"{self.name} runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the test, which then ends it
            )
        Guardian.ours().tell("started", self._process.pid)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Ask *holds* until it does.

        Args:
            holds: Asks the server. An `OSError` is a no: it may not listen yet.
            what: Completes "nats a is not …", for an error.

        Raises:
            ServerError: The server ended first, or it took too long.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with suppress(OSError):
                if holds():
                    return
            if not self.running:
                code = None if self._process is None else self._process.returncode
                raise self.error(f"ended with {code} before it was {what}")
            if time.monotonic() > deadline:
                raise self.error(f"is not {what} after {TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)

    def error(self, what: str) -> ServerError:
        """Return an error that says *what*, with the end of the log."""
        return ServerError(f"{self.name} {what}:\n{self.log[-LOG_TAIL_SIZE:]}")

    def kill(self) -> None:
        """End it as a crash does, and wait for its end; nothing if it has ended."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, as an init system does, and wait; nothing if it has ended.

        Raises:
            ServerError: It does not end.
        """
        self._end(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal that it lives on with."""
        os.kill(self.pid, number)

    def pause(self) -> None:
        """Stop it where it is: a machine that hangs. Its connections stay."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self.send(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(number)  # nothing, if it was waited for
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise self.error(f"does not end on {number.name}") from error
        self._process = None
        Guardian.ours().tell("ended", process.pid)


class Place:
    """A folder and ports for servers that belong together, until the block is left."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"coordinator-{name}-"))
        Guardian.ours().tell("made", self.folder)
        self._name = name
        self._servers: list[Server] = []
        self._held: list[IO[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def server(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> Server:
        """Return a server that is not started yet, with a folder of its own here."""
        server = Server(
            f"{self._name} {name}", command, self.folder / name, environment or {}
        )
        self._servers.append(server)
        return server

    def ports(self, count: int) -> list[int]:
        """Return ports of 127.0.0.1 that are free, and nobody else's until `close`."""
        found = _free_ports()
        taken = [next(found) for _ in range(count)]
        self._held += [held for _, held in taken]
        return [port for port, _ in taken]

    def close(self) -> None:
        """Kill what runs, and remove the folder. May be called twice."""
        for server in self._servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        Guardian.ours().tell("removed", self.folder)
        while self._held:
            self._held.pop().close()


def _free_ports() -> Iterator[tuple[int, IO[str]]]:
    """Yield free ports, each with the locked file that keeps other tests away from it.

    A server that is down holds no port, so being free is not enough.
    """
    locks = Path(tempfile.gettempdir()) / "coordinator-test-ports"
    locks.mkdir(exist_ok=True)
    ports = list(PORTS)
    random.shuffle(ports)
    for port in ports:
        held = (locks / str(port)).open("w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            held.close()
        else:
            yield port, held
    raise ServerError(f"no free port from {PORTS.start} to {PORTS.stop}")
