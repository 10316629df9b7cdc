"""Write the golden files of format 1: ``python -m tests.golden.make``.

They were made once, when format 1 was settled, and every later version must read them.
Made again by this version they must come out the same, byte for byte; if they do not,
the format changed, and that needs a new number and new files beside these.
"""

from collections.abc import Sequence
from pathlib import Path

from coordinator.batch import Batch, encode_batch
from coordinator.journals.chain import Chain
from coordinator.journals.segments.format import (
    SegmentHeader,
    encode_checkpoint,
    encode_segment_header,
    segment_name,
)
from coordinator.model import Direction, EndStatus, OutcomeStatus
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Carried,
    Claimed,
    Finished,
    Outcome,
    Record,
    Resumed,
    Started,
    Stuck,
    encode_record,
)

__all__ = ["FILES", "FOLDER", "JOURNAL_ID", "RECORDS"]

FOLDER = Path(__file__).parent / "format-1"
JOURNAL_ID = bytes(range(16))

_AT = 1_700_000_000_000_000

_ACCEPTED = Accepted("PlaceOrder", "msgpack", b"\x93\xa3o-1\xa5sku-7\xcd\x07\xcf", _AT)
_REFUSAL = b"\x82\xa4code\xa8declined\xa6reason\xa8no funds"

RECORDS: Sequence[Sequence[Sequence[Record]]] = [
    # The first segment: an order that is done.
    [
        [Claimed(1, "shop-1 pid 4711", _AT)],
        [_ACCEPTED],
        [Outcome(1, "inventory.reserve", 0, b"\xa3r-1", _AT + 1000)],
        [
            Outcome(1, "payments.charge", 0, b"\xa3p-1", _AT + 2000),
            Accepted(
                "PlaceOrder", "json", b'{"id": 2}', _AT + 2000, "o-2", "00-ab-cd-01"
            ),
        ],
        [Finished(1, EndStatus.COMPLETED, b"\xa4done", _AT + 3000)],
    ],
    # The second one, of a second owner: every other kind of record.
    [
        [Claimed(2, "shop-2 pid 4712", _AT + 4000)],
        [
            Started(4, (("a.b", 0), ("a.c[key]", 1)), _AT + 4500),
            Outcome(
                4,
                "payments.charge",
                0,
                _REFUSAL,
                _AT + 5000,
                Direction.DO,
                OutcomeStatus.REFUSED,
                "bank",
            ),
            Aborting(4, "no funds", _AT + 5000, _REFUSAL),
            Outcome(4, "inventory.reserve", 0, b"\xc0", _AT + 6000, Direction.UNDO),
            Stuck(4, "cannot undo", _AT + 7000),
            Resumed(4, "ann", _AT + 8000),
            Cancelled(4, "bob", "by hand", _AT + 9000),
            Carried(
                4,
                _AT + 9500,
                _ACCEPTED,
                (Outcome(4, "a.b", 0, b"", _AT),),
                Cancelled(4, "bob", "by hand", _AT + 9000),
                Aborting(4, "no funds", _AT + 5000, _REFUSAL),
                Stuck(4, "cannot undo", _AT + 7000),
            ),
        ],
        [Finished(4, EndStatus.COMPENSATED, _REFUSAL, _AT + 10_000)],
    ],
]
"""By segment and batch."""


def _files() -> dict[str, bytes]:
    files = {
        "journal.json": (
            b'{"format":1,"id":"%s","partitions":1}\n' % JOURNAL_ID.hex().encode()
        )
    }
    chain = Chain()
    for batches in RECORDS:
        header = SegmentHeader(
            journal_id=JOURNAL_ID,
            partition=0,
            partitions=1,
            base=chain.end,
            created_at=_AT + chain.end,
            epoch=chain.epoch,
            previous_crc=chain.crc,
        )
        parts = [encode_segment_header(header)]
        for records in batches:
            batch = _batch(chain, records)
            chain.take(batch)
            parts.append(batch.data)
        files[f"p0/{segment_name(header.base)}"] = b"".join(parts)
    files["p0/checkpoint"] = encode_checkpoint(
        b"the engine's", journal_id=JOURNAL_ID, partition=0, low=4, end=chain.end
    )
    return files


def _batch(chain: Chain, records: Sequence[Record]) -> Batch:
    first = records[0]
    epoch = first.epoch if isinstance(first, Claimed) else chain.epoch
    return encode_batch(
        [encode_record(record) for record in records],
        epoch=epoch,
        first=chain.end,
        previous_crc=chain.crc,
    )


FILES = _files()


def main() -> None:
    """Write the files."""
    for name, data in FILES.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
