"""The kit that runs servers, asked about servers of a few lines of Python."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.servers.process import POLL_S, TIMEOUT_S, Place, Server, ServerError

COUNTING = """
import os, pathlib, signal, sys
counted = pathlib.Path("count")
counted.write_text(f"{int(counted.read_text() if counted.exists() else 0) + 1}")
print("life", counted.read_text(), os.environ["WORD"], flush=True)
signal.pause()
"""


@pytest.fixture
def place() -> Iterator[Place]:
    with Place("kit") as place:
        yield place


def _says(server: Server, text: str) -> bool:
    return text in server.log


def counting(place: Place) -> Server:
    return place.server("a", (sys.executable, "-c", COUNTING), {"WORD": "hello"})


def test_a_server_starts_again_with_what_it_stored(place: Place) -> None:
    server = counting(place)
    for life in (1, 2, 3):
        server.start()
        said = f"life {life} hello"
        server.until(partial(_says, server, said), "ready")
        assert server.running
        server.kill()
        assert not server.running


def test_stopping_asks_and_killing_does_not(place: Place) -> None:
    polite = COUNTING.replace(
        "signal.pause()",
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye')))\n"
        "print('ready', flush=True)\nsignal.pause()",
    )
    server = place.server("a", (sys.executable, "-c", polite), {"WORD": ""})
    server.start()
    server.until(lambda: "ready" in server.log, "ready")
    server.kill()
    assert "bye" not in server.log
    server.start()
    server.until(lambda: server.log.count("ready") == 2, "ready")
    server.stop()
    assert "bye" in server.log
    server.stop()
    server.kill()


def test_a_paused_server_does_nothing_until_it_is_resumed(place: Place) -> None:
    server = place.server("a", (sys.executable, "-c", COUNTING), {"WORD": ""})
    server.start()
    server.pause()

    def state() -> str:
        return Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]

    server.until(lambda: state() == "T", "stopped")
    server.resume()
    server.until(lambda: "life 1" in server.log, "ready")
    server.pause()
    server.kill()
    assert not server.running


def test_one_that_ends_by_itself_is_an_error_with_what_it_said(place: Place) -> None:
    server = place.server("a", (sys.executable, "-c", "exit('no such spoon')"))
    server.start()
    with pytest.raises(ServerError, match=r"(?s)ended with 1 before.*no such spoon"):
        server.until(lambda: False, "ready")


def test_one_that_never_gets_ready_is_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = counting(place)
    server.start()
    server.until(lambda: "life 1" in server.log, "ready")

    def refuse() -> bool:
        raise ConnectionRefusedError

    monkeypatch.setattr("tests.servers.process.TIMEOUT_S", 0.0)
    with pytest.raises(ServerError, match=r"(?s)is not ready after.*life 1"):
        server.until(refuse, "ready")
    monkeypatch.undo()


def test_ports_are_free_and_nobody_else_gets_them(place: Place) -> None:
    with Place("other") as other:
        ports = [*place.ports(20), *other.ports(20)]
    assert len(set(ports)) == 40


def test_leaving_the_block_leaves_nothing_behind() -> None:
    with Place("kit") as place:
        server = counting(place)
        server.start()
        pid = server.pid
        assert place.folder.exists()
    assert not place.folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    place.close()


def test_a_test_that_is_killed_leaves_no_server_behind(tmp_path: Path) -> None:
    script = tmp_path / "victim.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from tests.servers.process import Place

            place = Place("victim")
            gone = place.server("a", (sys.executable, "-c", "pass"))
            gone.start()
            gone.kill()
            server = place.server("b", ("sleep", "1000"))
            server.start()
            server.pause()
            print(server.pid, place.folder, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
            """
        )
    )
    ended = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    pid, folder = ended.stdout.split()
    deadline = time.monotonic() + TIMEOUT_S
    while _runs(int(pid)) or Path(folder).exists():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


def _runs(pid: int) -> bool:
    """Whether it is there, and not only waiting for a parent that reaps it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"
