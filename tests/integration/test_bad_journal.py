"""Folders and files that are not what they should be, under a real server."""

import asyncio
import random
import signal
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.integration.support import (
    SOURCE,
    Placed,
    ask,
    batches,
    charges,
    cli,
    client_of,
    flip,
    listed,
    overwrite,
    segments,
    serve,
)
from tests.integration.till_app import Greet, Order, Receipt
from tests.processes import eventually, serving

from coordinator.journals.segments.format import (
    CHECKPOINT_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
)

SMALL = "file:./journal?segment_mib=1"
DAMAGED = 6
UNAVAILABLE = 5

FIELDS = {
    0: "magic",
    4: "format",
    8: "epoch",
    16: "first position",
    24: "count",
    28: "length",
    32: "previous crc",
    36: "crc",
    45: "record",
    -1: "padding",
}
"""What is at which byte of a batch."""


async def _make(folder: Path, *, large: int = 0, kill: bool = True) -> None:
    """Make a journal: an order under way, and *large* commands of 300 kB that ended."""
    async with serving(folder, SOURCE, journal=SMALL) as server:
        submitted = await cli(folder, "submit", "Order", '{"id":"o-1","stamped":true}')
        assert submitted.code == 0, submitted.stderr
        # Delayed by its stamp: so the outcome of the charge is in the journal. That the
        # charge was noted does not say so, and the kill could come before it is.
        await eventually(lambda: _is_delayed(folder))
        assert charges(folder) == {"o-1": 1}
        async with client_of(server) as client:
            for number in range(large):
                name = f"{number:x}" * 300_000
                assert await client.send(Greet(name)) == f"hello {name}"
        if kill:
            server.kill()
            assert await server.exited() == -signal.SIGKILL
        else:
            assert await server.stop() == 0


async def _is_delayed(folder: Path) -> bool:
    (workflow,) = await listed(folder)
    return bool(workflow["status"] == "delayed")


async def _goes_on(folder: Path) -> str:
    """Check that nothing of what `_make` made is lost; return the server's log."""
    (folder / "go").touch()
    async with serving(folder, SOURCE, journal=SMALL) as server:
        assert await ask(server, Order("o-1")) == Receipt("o-1", "paid-o-1")
        assert await ask(server, Greet("you")) == "hello you"
        assert await listed(folder) == []
        assert await server.stop() == 0
        assert charges(folder) == {"o-1": 1}
        return server.log


def _newer_journal(folder: Path) -> Path:
    path = folder / "journal" / "journal.json"
    described = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**described, "format": 2}))
    return path


def _newer_segment(folder: Path) -> Path:
    (path,) = segments(folder)
    _make_newer(path, SEGMENT_HEADER_SIZE, b"")
    return path


def _newer_batch(folder: Path) -> Path:
    (path,) = segments(folder)
    overwrite(path, batches(path)[-1].offset + 4, b"\x02")
    return path


def _newer_checkpoint(folder: Path) -> Path:
    path = folder / "journal" / "p0" / "checkpoint"
    _make_newer(
        path, CHECKPOINT_HEADER_SIZE, path.read_bytes()[CHECKPOINT_HEADER_SIZE:]
    )
    return path


def _make_newer(path: Path, size: int, data: bytes) -> None:
    """Change the format in a header of *size* bytes, which ends in a crc."""
    header = bytearray(path.read_bytes()[: size - 4])
    assert header[4] == 1
    header[4] = 2
    crc = zlib.crc32(data, zlib.crc32(header))
    overwrite(path, 0, bytes(header) + crc.to_bytes(4, "little"))


@pytest.mark.parametrize(
    "make_newer", [_newer_journal, _newer_segment, _newer_batch, _newer_checkpoint]
)
def test_a_newer_format_is_refused_and_left_as_it_is(
    tmp_path: Path, make_newer: Callable[[Path], Path]
) -> None:
    async def main() -> None:
        await _make(tmp_path, kill=False)
        path = make_newer(tmp_path)
        before = path.read_bytes()
        ended = await serve(tmp_path)
        assert ended.code == UNAVAILABLE, ended.stderr
        (line,) = ended.stderr.splitlines()
        assert str(path.relative_to(tmp_path)) in line
        assert "format 2" in line
        assert "this version reads format 1, use the one that wrote it" in line
        assert path.read_bytes() == before

    asyncio.run(main())


def test_a_flipped_bit_in_a_closed_segment_is_named_and_the_partition_refused(
    tmp_path: Path,
) -> None:
    chance = random.Random(20_261_122)

    async def main() -> None:
        await _make(tmp_path, large=6)
        first, *later = segments(tmp_path)
        assert len(later) >= 2
        placed = batches(first)
        assert placed[-1].offset + len(placed[-1].batch.data) == first.stat().st_size
        for byte, field in FIELDS.items():
            bad = chance.choice(placed)
            offset = bad.offset + byte % len(bad.batch.data)
            bit = chance.randrange(8)
            flip(first, offset, bit)
            before = {path: path.read_bytes() for path in segments(tmp_path)}
            ended = await serve(tmp_path, journal=SMALL)
            (line,) = ended.stderr.splitlines()
            path = first.relative_to(tmp_path)
            if field == "format":  # or else a newer version wrote it: who knows
                assert ended.code == UNAVAILABLE
                assert f"{path} at byte {bad.offset}: batch of format" in line
                assert "unless it is damaged" in line
            else:
                assert ended.code == DAMAGED
                assert f"{path} is damaged at byte {bad.offset}: " in line
                assert "restore the file from a copy" in line
            verified = await cli(tmp_path, "journal", "verify")
            assert verified.code == DAMAGED
            assert f"at byte {bad.offset}" in verified.stdout
            assert {path: path.read_bytes() for path in segments(tmp_path)} == before
            flip(first, offset, bit)
        await _goes_on(tmp_path)

    asyncio.run(main())


def _cut(path: Path, last: Placed) -> int:
    """Keep the first half of the last batch, and zeros behind it."""
    kept = len(last.batch.data) // 2
    overwrite(path, last.offset + kept, bytes(len(last.batch.data) - kept))
    return len(last.batch.data[:kept].rstrip(b"\0"))


def _garble(path: Path, last: Placed) -> int:
    """Turn one byte in the middle of the last batch."""
    flip(path, last.offset + len(last.batch.data) // 2)
    return len(last.batch.data.rstrip(b"\0"))


def _stop_short(path: Path, last: Placed) -> int:
    """End the file in the middle of the last batch."""
    with path.open("r+b") as file:
        file.truncate(last.offset + len(last.batch.data) - 1)
    return len(last.batch.data[:-1].rstrip(b"\0"))


@pytest.mark.parametrize("tear", [_cut, _garble, _stop_short])
def test_a_torn_tail_is_cut_off_and_the_log_says_where_and_how_much(
    tmp_path: Path, tear: Callable[[Path, Placed], int]
) -> None:
    """The last batch notes the charge: it is asked for again, under the same key."""

    async def main() -> None:
        await _make(tmp_path)
        (path,) = segments(tmp_path)
        last = batches(path)[-1]
        size = tear(path, last)
        log = await _goes_on(tmp_path)
        (line,) = [line for line in log.splitlines() if "cut off" in line]
        assert "WARNING coordinator: " in line
        assert str(path.relative_to(tmp_path)) in line
        assert f"cut off {size} bytes at byte {last.offset}; " in line
        assert "cut off" not in await _goes_on(tmp_path)

    asyncio.run(main())
