"""A short run, as every change has to stand it; ``make stress`` has longer ones."""

import asyncio
from pathlib import Path

from tests.stress.run import stress


def test_every_attempt_is_accounted_for_while_everything_breaks(tmp_path: Path) -> None:
    report = asyncio.run(stress(tmp_path, seconds=6.0, seed=1))
    assert report.problems == []
    assert report.count.ends["answered"] > 0
    assert sum(report.count.ends.values()) == report.count.attempts
