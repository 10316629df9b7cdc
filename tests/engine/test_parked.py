"""What a delayed workflow costs, of which there may be 100,000."""

import asyncio
import gc
import tracemalloc

from tests.engine.support import Receipt, Service, Shop, make, run, until
from tests.engine.test_door import Pay

from coordinator import CommandDelayed, Retry

COUNT = 500
DELAYED_SIZE_MAX = 1_500
"""Bytes in memory, payload and outcomes included; as DESIGN says, and without them."""


class Silent(Service):
    """Never answers, and keeps nothing of it: an exception would keep its frames."""

    async def do(self, amount: int = 0) -> Receipt:
        raise CommandDelayed("no answer in 5 s")


def test_a_delayed_workflow_costs_no_more_than_it_may() -> None:
    shop = Shop()
    shop.payments = Silent("payments")

    async def main() -> int:
        async with make(shop, Pay, retry=Retry(first_s=10)) as coordinator:
            await coordinator.submit(Pay(0))
            before = size()
            for number in range(1, COUNT + 1):
                await coordinator.submit(Pay(number))
            await asyncio.sleep(100)
            assert len(coordinator.workflows()) == COUNT + 1
            return size() - before

    def size() -> int:
        gc.collect()
        # The journal is in memory here, too.
        here = tracemalloc.take_snapshot().filter_traces(
            [
                tracemalloc.Filter(inclusive=False, filename_pattern=pattern)
                for pattern in (
                    "*/tests/*",
                    "*/journals/*",
                    "*/batch.py",
                    "*/testing/*",
                )
            ]
        )
        return sum(trace.size for trace in here.traces)

    tracemalloc.start()
    try:
        grown = run(main())
    finally:
        tracemalloc.stop()
    assert grown / COUNT <= DELAYED_SIZE_MAX


def test_who_left_is_not_kept_with_a_delayed_workflow() -> None:
    shop = Shop()
    shop.payments.script = [CommandDelayed("no answer")] * 4

    async def main() -> None:
        async with make(shop, Pay, retry=Retry(first_s=10)) as coordinator:
            await coordinator.submit(Pay(1))
            kept = await coordinator.submit(Pay(2))
            await until(lambda: len(shop.payments.calls) == 4)
            await asyncio.sleep(1)
            left, stayed = coordinator.engine._runs.values()
            assert left.callers == ()
            assert len(stayed.callers) == 1
            assert await kept.result() is not None

    run(main())
