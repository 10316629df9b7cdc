"""Code that does not fit what is stored, or can't be stored: stuck, with the reason.

Each case: the order is stuck and says why, the rest run, and the right code and `retry`
finish it, without anything being done twice.
"""

import asyncio
from pathlib import Path

import pytest
from tests.integration.support import (
    SOURCE,
    ask,
    changed,
    charges,
    cli,
    client_of,
    listed,
)
from tests.integration.till_app import Greet, Order, OrderFailed, Receipt
from tests.processes import Server, eventually, serving

CHARGE = """        _note(f"{current_step().idempotency_key} {order}\\n")
        return f"paid-{order}"
"""
STEP = "await workflow.step(till.charge, self.id).undo(till.refund)"

OUTGROWN = {
    "till.charge: what is stored does not fit int: Expected `int`, got `str`": (
        changed(
            ("charge(self, order: str) -> str:", "charge(self, order: str) -> int:")
        )
    ),
    "Order: Expected `int`, got `str` - at `$.id`": changed(
        ("    id: str\n", "    id: int\n"),
        ("return self.id\n", "return str(self.id)\n"),
    ),
    "the code has no command Order any more; put it back and retry": changed(
        ("class Order:", "class Purchase:"),
        ("[Order, Greet]", "[Purchase, Greet]"),
    ),
}
"""Why an order is stuck, and the code that does not know it any more."""


@pytest.mark.parametrize("reason", OUTGROWN)
def test_code_that_does_not_fit_what_is_stored_makes_it_stuck_until_it_does(
    tmp_path: Path, reason: str
) -> None:
    async def main() -> None:
        async with serving(tmp_path, SOURCE) as server:
            submitted = await cli(
                tmp_path, "submit", "Order", '{"id":"o-1","stamped":true}'
            )
            await eventually(lambda: charges(tmp_path) == {"o-1": 1})
            assert await server.stop() == 0
        (tmp_path / "go").touch()
        async with serving(tmp_path, OUTGROWN[reason]) as server:
            await _is_stuck(server, tmp_path, reason)
            assert await ask(server, Greet("you")) == "hello you"
            again = await cli(tmp_path, "retry", submitted.stdout.strip(), "--wait")
            assert again.code == 1
            assert reason in again.stdout
            assert await server.stop() == 0
        await _finishes_when_it_fits(tmp_path)

    asyncio.run(main())


UNSTORABLE = {
    "till.charge: Till can't be stored: Till is neither a dataclass": (
        changed((CHARGE, CHARGE.replace('f"paid-{order}"', "self")))
    ),
    "till.charge: int 5 does not come back as str, which is declared": (
        changed((CHARGE, CHARGE.replace('f"paid-{order}"', "5")))
    ),
    "till.charge: a record of 22020": changed(
        (CHARGE, CHARGE.replace('f"paid-{order}"', '"x" * 22_020_096'))
    ),
    "till.charge: a record of 220201": changed(
        ("    Retry,\n", "    Refused,\n    Retry,\n"),
        (
            CHARGE,
            CHARGE.replace('return f"paid-{order}"', 'raise Refused("x" * 22_020_096)'),
        ),
    ),
    "how it ended: a record of 22020": changed(
        ("Receipt(self.id, paid)", 'Receipt(self.id, "x" * 22_020_096)')
    ),
    "the result: Till can't be stored": changed(("Receipt(self.id, paid)", "till")),
    "two steps named till.charge are running at once": changed(
        (
            STEP,
            f"a, b = {STEP[6:]}, {STEP[6:]}; paid, _ = await workflow.gather(a, b)",
        ),
    ),
}
"""Why an order is stuck, and the code that makes it so."""


@pytest.mark.parametrize("reason", UNSTORABLE)
def test_what_can_not_be_stored_makes_its_order_stuck_until_it_can(
    tmp_path: Path, reason: str
) -> None:
    async def main() -> None:
        async with serving(tmp_path, UNSTORABLE[reason]) as server:
            answer = await ask(server, Order("o-1"))
            assert isinstance(answer, OrderFailed)
            assert answer.status == "stuck"
            assert reason in answer.reason
            await _is_stuck(server, tmp_path, reason)
            assert await ask(server, Greet("you")) == "hello you"
            assert await server.stop() == 0
        await _finishes_when_it_fits(tmp_path)

    asyncio.run(main())


async def _is_stuck(server: Server, folder: Path, reason: str) -> None:
    """Check that the log, ``list`` and ``show`` say that and why o-1 is stuck."""
    await eventually(lambda: "is stuck" in server.log)
    (line,) = [line for line in server.log.splitlines() if "is stuck" in line]
    assert reason in line
    (workflow,) = await listed(folder)
    assert workflow["status"] == "stuck"
    assert reason in workflow["reason"]
    assert "retry" in workflow["reason"]  # what to do
    shown = await cli(folder, "show", workflow["id"])
    assert f"coordinator retry {workflow['id']}" in shown.stdout


async def _finishes_when_it_fits(folder: Path) -> None:
    """Put the right code back, retry o-1, and check that it was charged once."""
    async with serving(folder, SOURCE) as server:
        (workflow,) = await listed(folder)
        done = await cli(folder, "retry", workflow["id"], "--wait")
        assert done.code == 0, done.stdout
        assert await ask(server, Order("o-1")) == Receipt("o-1", "paid-o-1")
        assert await listed(folder) == []
        assert await server.stop() == 0
    assert charges(folder) == {"o-1": 1}


def test_a_command_larger_than_a_record_is_refused_and_the_server_lives(
    tmp_path: Path,
) -> None:
    """Its key is stored beside its body, so a body within the limit is not enough."""

    async def main() -> None:
        async with serving(tmp_path, SOURCE) as server:
            answer = await ask(server, Order("x" * 11_000_000))
            assert isinstance(answer, OrderFailed)
            assert (answer.workflow, answer.status) == ("", "refused")
            assert "a record of 22000" in answer.reason
            assert await ask(server, Greet("you")) == "hello you"
            assert await listed(tmp_path) == []
            assert await server.stop() == 0

    asyncio.run(main())


def test_an_order_too_large_to_be_carried_over_keeps_its_segments_and_runs_on(
    tmp_path: Path,
) -> None:
    """Body and outcome fit a record each; together, at the fourth checkpoint, not."""
    large = changed(
        (
            "from coordinator import (",
            "from coordinator.log import LogOptions\n\nfrom coordinator import (",
        ),
        ("Options(", "Options(log=LogOptions(checkpoint_size=1_000_000), "),
        (CHARGE, CHARGE.replace('f"paid-{order}"', '"x" * 12_000_000')),
        ("Receipt(self.id, paid)", 'Receipt(self.id, "paid")'),
    )

    async def main() -> None:
        async with serving(tmp_path, large) as server:
            async with client_of(server) as client, asyncio.TaskGroup() as group:
                order = group.create_task(
                    client.send(Order("o-1", stamped=True, padding="x" * 12_000_000))
                )
                await eventually(lambda: charges(tmp_path) == {"o-1": 1})
                while "workflow 0-1 keeps old segments: a record of" not in server.log:
                    await client.send(Greet("x" * 1_000_000))
                (tmp_path / "go").touch()
                assert await order == Receipt("o-1", "paid")
            assert await server.stop() == 0

    asyncio.run(main())
