"""Every bit of every file flipped, and every file cut at every byte.

    FILE:flip:PART    each bit of a share of the file, one at a time
    FILE:cut:PART     the file cut at each byte of a share of it

    closed       a segment with a successor       checkpoint    the engine's
    active       the last segment                 unsaved       the last segment, of a
    journal      journal.json                                   partition that has no
                                                                checkpoint

**What it proves.** Whatever bit of the journal decays, a start either refuses and names
a file and the byte where what is bad begins, or it reads exactly what was written. It
is never silently wrong, with the one exception that docs/guarantees.md owns up to: the
last batch of the active segment, if no checkpoint was saved behind it, looks like a
write that the power cut short. That is why a cut of that batch is no damage: there it
is asked that exactly the batches before it are found.

**How it judges.** The damaged file is real; recovery reads it as a start does. Refused:
the file named is the one that was changed (of journal.json, a bit of the journal's id
or of the number of partitions may instead be found out by what contradicts it), and the
byte that is named does not lie behind the change. Read: all batches, byte by byte, the
headers and the checkpoint are those of the sound journal, or, where it may be so, of
the sound journal without its last batch.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.torture.harness import Harness, Result, spread

from coordinator.batch import encode_batch
from coordinator.errors import JournalDamagedError, JournalError, JournalFormatError
from coordinator.journals.handle import encode_claim
from coordinator.journals.segments.format import SegmentHeader, segment_name
from coordinator.journals.segments.journal import read_journal_file
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.reading import Identity, SegmentReader
from coordinator.journals.segments.recovery import recover
from coordinator.journals.segments.renewal import make_partition
from coordinator.journals.segments.store import Store, StoreOptions
from coordinator.records import Resumed, encode_record

__all__ = ["HARNESS"]

IDENTITY = Identity(bytes(range(160, 176)), 0, 1)
OPTIONS = StoreOptions(segment_size=4096)
FILES = ("closed", "active", "unsaved", "checkpoint", "journal")
PARTS = 16


@dataclass(frozen=True)
class Found:
    """What a start reads."""

    segments: tuple[object, ...]
    end: int
    batches: bytes
    """Of all segments."""
    checkpoint: object
    data: bytes | None


@dataclass(frozen=True)
class Sound:
    """The journal as it was written."""

    folder: Path
    ends: tuple[tuple[int, int], ...]
    """Of each batch of the active segment: byte and position where it ends."""


def _make(folder: Path, *, saved: bool) -> Sound:
    """Make a journal with two closed segments and an active one."""
    (folder / "p0").mkdir(parents=True)
    described = {"format": 1, "id": IDENTITY.journal_id.hex(), "partitions": 1}
    text = str(described).replace("'", '"').replace(" ", "")
    (folder / "journal.json").write_text(text + "\n")
    partition = PosixFolder(str(folder / "p0"))
    make_partition(partition, IDENTITY, created_at=1)
    store = Store(partition, IDENTITY, OPTIONS, clock=lambda: 1)
    store.open("nobody")
    store.append(encode_claim(store.chain, owner="nobody", at=1))
    ends: list[tuple[int, int]] = []
    # Sizes of all remainders: the padding is damaged too.
    sizes = [300 + 61 * number for number in range(14)] + [40, 41, 42, 43, 190]
    segments = 1
    for number, size in enumerate(sizes):
        records = [encode_record(Resumed(number, "x" * size, 1))] * (1 + number % 2)
        store.append(
            encode_batch(
                records,
                epoch=store.chain.epoch,
                first=store.chain.end,
                previous_crc=store.chain.crc,
            )
        )
        if len(store.segments) > segments:
            segments, ends = len(store.segments), []
        ends.append((store._offset, store.chain.end))
    if saved:
        store.save_checkpoint(0, b"the engine's" * 8)
    store.close()
    assert segments >= 3, segments
    assert len(ends) > 2, ends
    return Sound(folder, tuple(ends))


def _read(folder: Path) -> Found:
    journal = PosixFolder(str(folder))
    identity = read_journal_file(journal)
    if identity is None:
        raise AssertionError("journal.json is not seen")
    partition = journal.folder("p0")
    found = recover(partition, identity)
    if identity.partitions != 1:
        journal.folder(f"p{identity.partitions - 1}")
    path = folder / "p0" / "checkpoint"
    return Found(
        tuple(found.segments),
        found.chain.end,
        b"".join(_batches(partition, found.segments)),
        found.checkpoint,
        path.read_bytes() if path.exists() else None,
    )


def _batches(folder: PosixFolder, segments: list[SegmentHeader]) -> Iterator[bytes]:
    for header in segments:
        file = folder.open(segment_name(header.base))
        try:
            for batch in SegmentReader(file, "", header).batches():
                yield bytes(batch.data)
        finally:
            file.close()


def _file(sound: Sound, name: str) -> Path:
    segments = sorted((sound.folder / "p0").glob("*.seg"))
    return {
        "closed": segments[1],
        "active": segments[-1],
        "unsaved": segments[-1],
        "checkpoint": sound.folder / "p0" / "checkpoint",
        "journal": sound.folder / "journal.json",
    }[name]


def _cases(count: int, _seed: int) -> Iterable[str]:
    cases = [
        f"{name}:{how}:{part}"
        for part in range(PARTS)
        for name in FILES
        for how in ("flip", "cut")
    ]
    return spread(cases, count)


def _run(case: str, _seed: int, folder: Path) -> Result:
    name, how, part = case.split(":")
    sound = _make(folder / "journal", saved=name != "unsaved")
    path = _file(sound, name)
    judge = _Judge(sound, name, _read(sound.folder))
    content = path.read_bytes()
    size = len(content)
    share = range(size * int(part) // PARTS, size * (int(part) + 1) // PARTS)
    for offset in share:
        if how == "cut":
            path.write_bytes(content[:offset])
            judge.look(offset, path, "cut", last_may_go=True)
            continue
        with path.open("r+b", buffering=0) as file:
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([content[offset] ^ 1 << bit]), offset)
                judge.look(offset, path, f"bit {bit}")
            os.pwrite(file.fileno(), content[offset : offset + 1], offset)
    return Result(judge.violations, judge.count, judge.facts)


class _Judge:
    def __init__(self, sound: Sound, name: str, found: Found) -> None:
        self.violations: list[str] = []
        self.count = 0
        self.facts: Counter[str] = Counter()
        self._sound = sound
        self._name = name
        self._found = found

    def look(
        self, offset: int, path: Path, what: str, *, last_may_go: bool = False
    ) -> None:
        """Start from the damaged journal, and judge what comes of it."""
        self.count += 1
        where = f"{what} at byte {offset} of {self._name}"
        try:
            found = _read(self._sound.folder)
        except JournalDamagedError as error:
            self._refused(error, offset, path, where)
        except JournalFormatError as error:
            self.facts["refused, as another format"] += 1
            if str(path) not in str(error):
                self.violations.append(f"{where}: {error} does not name the file")
        except FileNotFoundError:
            # Where a start looks for as many partitions as journal.json says.
            self.facts["refused, by what contradicts it"] += 1
            assert self._name == "journal"
        except (JournalError, AssertionError, OSError) as error:
            if self._name == "journal" and "format" in str(error):
                self.facts["refused, as another format"] += 1
            else:
                self.violations.append(f"{where}: {type(error).__name__}: {error}")
        else:
            self._taken(found, offset, where, last_may_go=last_may_go)

    def _refused(
        self, error: JournalDamagedError, offset: int, path: Path, where: str
    ) -> None:
        if error.path == str(path):
            self.facts["refused, by file and byte"] += 1
            # A cut is noticed at the byte where something is missing.
            if error.offset > offset:
                self.violations.append(f"{where}: named behind it: {error}")
        elif self._name == "journal" or "cut" in where:
            self.facts["refused, by what contradicts it"] += 1
        else:
            self.violations.append(f"{where}: another file is named: {error}")

    def _taken(
        self, found: Found, offset: int, where: str, *, last_may_go: bool
    ) -> None:
        if found == self._found:
            self.facts["read, as it was written"] += 1
            return
        ends = self._sound.ends
        kept = [end for byte, end in ends if byte <= offset]
        torn = (
            self._name == "unsaved"
            and (last_may_go or offset >= ends[-2][0])
            and (not kept or found.end == kept[-1])
            and self._found.batches.startswith(found.batches)
        )
        if torn and found.segments == self._found.segments:
            self.facts["taken for a torn tail"] += 1
        else:
            self.violations.append(f"{where}: something else is read")


HARNESS = Harness("bits", "damages", _cases, _run, full=0, small=10)
