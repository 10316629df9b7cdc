"""An owner in a process of its own: writes one batch after another, and says so.

    python -m tests.journals.kafka.owner URL OWNER

Prints ``open``, then each number whose write was acknowledged, and at the end the class
and the text of the error that ended it.
"""

import asyncio
import sys
from itertools import count

from coordinator.batch import encode_batch
from coordinator.errors import JournalError
from coordinator.journals.urls import open_journal
from coordinator.records import Resumed, encode_record


async def main(url: str, owner: str) -> None:
    journal = await open_journal(url)
    partition = await journal.open(0, owner=owner, at=1)
    print("open", flush=True)
    try:
        for number in count():
            await partition.write(
                encode_batch(
                    [encode_record(Resumed(0, f"{owner} {number}", 1))],
                    epoch=partition.epoch,
                    first=partition.end,
                    previous_crc=partition.crc,
                )
            )
            print(number, flush=True)
    except JournalError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    await journal.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
