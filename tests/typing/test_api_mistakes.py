"""The mistakes that users make: mypy and pyright report each, on its line."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

MISTAKES = """\
from dataclasses import dataclass

from coordinator import Coordinator, Workflow
from tests.typing.api_ok import Payments, PlaceOrder, Receipt, Shop


@dataclass
class NoCommand:
    order: str


@dataclass
class NotAsync:
    def exec(self, workflow: Workflow, shop: Shop) -> int:
        return 1


async def in_exec(workflow: Workflow, shop: Shop) -> None:
    pay, inventory = shop.payments, shop.inventory
    await workflow.step(pay.charge, 1)  # mistake: an int for a str
    await workflow.step(pay.charge)  # mistake: an argument is missing
    await workflow.step(pay.charge, "o", euros=5)  # mistake: no such argument
    await workflow.step(inventory.reserve, "s").undo(pay.refund)  # mistake: of other
    await workflow.step(pay.charge, "o").undo(inventory.release)  # mistake: as well
    number: int = await workflow.step(pay.charge, "o")  # mistake: it is a Payment
    charge = workflow.step(pay.charge, "o")
    await workflow.gather(charge, pay.charge)  # mistake: a function is no step
    one, two = await workflow.gather(charge, charge, charge)  # mistake: three
    workflow.step("payments.charge")  # mistake: a name is no function
    workflow.step(pay.charge, "o").named("a", "key")  # mistake: the key is by keyword
    print(number, one, two)


async def outside(shop: Coordinator[Shop], payments: Coordinator[Payments]) -> None:
    await shop.execute(5)  # mistake: no command
    await shop.execute(NoCommand("o"))  # mistake: it has no exec
    await shop.execute(NotAsync())  # mistake: exec is not async
    await shop.execute(PlaceOrder)  # mistake: the class
    await payments.execute(PlaceOrder("o"))  # mistake: another receiver
    result: int = await shop.execute(PlaceOrder("o"))  # mistake: it is a Receipt
    handle = await shop.submit(PlaceOrder("o"))
    text: str = await handle.result()  # mistake: it is a Receipt
    fine: Receipt = await handle.result()
    print(result, text, fine)


Coordinator(Payments(), commands=[PlaceOrder])  # mistake: another receiver
Coordinator(Shop(), commands=[NoCommand])  # mistake: it has no exec
Coordinator(Shop(), commands=[PlaceOrder("o")])  # mistake: an instance
"""
MARKED = {
    number
    for number, line in enumerate(MISTAKES.splitlines(), 1)
    if "# mistake" in line
}


def lines_of(numbers: set[int]) -> list[str]:
    lines = MISTAKES.splitlines()
    return [lines[number - 1].strip() for number in sorted(numbers)]


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_mypy_reports_each_mistake_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mistakes.py"
    path.write_text(MISTAKES)
    found = re.findall(r"mistakes\.py:(\d+): error", run("mypy", str(path)))
    assert lines_of({int(number) for number in found}) == lines_of(MARKED)


def test_pyright_reports_each_mistake_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    settings = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT / "src"), str(ROOT)],
        # The unused and the unknown are what a mistake leaves behind.
        "reportUnknownVariableType": False,
        "reportUnknownMemberType": False,
        "reportUnknownArgumentType": False,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    project = ("--project", str(tmp_path), "--pythonpath", sys.executable)
    report = json.loads(run("pyright", "--outputjson", *project))
    found = {
        item["range"]["start"]["line"] + 1
        for item in report["generalDiagnostics"]
        if item["severity"] == "error"
    }
    assert lines_of(found) == lines_of(MARKED)
