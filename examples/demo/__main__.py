"""The demo: 2,000 orders, everything goes wrong, and an audit.

    python -m examples.demo --orders 2000 --seed 1

Exit code: 0 if every line of the audit passed, 1 if not, 2 if it could not begin.
"""

import argparse
import asyncio
import os
import random
import sys
from pathlib import Path

from examples.demo.audit import Audit, show, show_story
from examples.demo.driver import DemoError, Options, Ran, prepare, run
from examples.demo.evidence import read_evidence
from rich.console import Console


def main() -> None:
    """Run it."""
    given = arguments()
    options = Options(
        orders=given.orders,
        seed=random.randrange(1_000_000) if given.seed is None else given.seed,
        kills=given.kills,
        outage_s=given.outage,
        in_flight=given.in_flight or max(1, min(150, given.orders // 10)),
    )
    console = Console(highlight=False, soft_wrap=True)
    try:
        prepare(given.data, options)
    except DemoError as error:
        console.print(str(error), style="red")
        sys.exit(2)
    try:
        ran = asyncio.run(run(given.data, options, console))
    except KeyboardInterrupt:
        sys.exit(130)
    if not (given.data / "answers.jsonl").exists():
        sys.exit(f"FAIL: {ran.problem}")
    audit = Audit(read_evidence(given.data))
    passed = show(audit.rows(), console) and not ran.problem
    if (story := audit.example()) is not None:
        show_story(given.data, story, console)
    conclude(console, options, ran, given.data, passed=passed)
    sys.exit(0 if passed else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="examples.demo")
    parser.add_argument("--orders", type=int, default=2000)
    parser.add_argument(
        "--seed", type=int, help="of everything random; as chance has it if not given"
    )
    parser.add_argument("--kills", type=int, default=4, help="of the coordinator")
    parser.add_argument("--outage", type=float, default=5, help="seconds")
    parser.add_argument(
        "--in-flight", type=int, help="orders at a time; 150 or a tenth, if not given"
    )
    parser.add_argument("--data", type=Path, default=Path("demo-data"), help="a folder")
    return parser.parse_args()


def conclude(
    console: Console, options: Options, ran: Ran, folder: Path, *, passed: bool
) -> None:
    """Say it in one sentence, and where to look."""
    recoveries = ", ".join(f"{seconds:.2f}" for seconds in ran.recoveries_s)
    if recoveries:
        console.print(f"Seconds from each kill until accepting again: {recoveries}.")
    if passed:
        console.print(
            f"PASS: {options.orders} orders in {ran.seconds:.0f} s; each was done "
            "exactly once, or nothing of it is left.",
            style="bold green",
        )
    else:
        console.print(
            f"FAIL: {ran.problem or 'see the lines marked FAIL above'}.",
            style="bold red",
        )
    commands = os.path.relpath(Path(sys.executable).parent)
    console.print(f"Look around, with {commands} in the PATH:", markup=False)
    for command in (
        f"coordinator journal dump {folder / 'journal'}",
        f"coordinator show ID --journal {folder / 'journal'}",
        f"sqlite3 {folder / 'payments.sqlite'} 'select * from world'",
    ):
        console.print(f"  {command}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
