"""Which rare points of the product were reached: the coverage of what goes wrong.

A rare point is a call of `coordinator.rare.sometimes` with a name; all names are read
from the source, so that one which no seed reaches is listed as well.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["UNREACHED", "never_reached", "points", "table"]

SOURCE = Path(__file__).parents[2] / "src" / "coordinator"

_KAFKA = "the simulated journal is one of files; tests/journals/kafka/test_store.py"
UNREACHED = {
    "claim came second": _KAFKA,
    "group full by its count": "takes 1,000 records in one turn of the loop; "
    "tests/test_commit.py",
    "group full by its size": "takes a mebibyte in one turn of the loop; "
    "tests/test_commit.py",
    "partition lost while a command waited at the door": "takes a second partition; "
    "tests/engine/test_lost.py",
    "something lies between": _KAFKA,
    "trimmed while it was read": _KAFKA,
    "workflow too large to be carried": "takes 16 MiB of outcomes; tests/test_log.py",
}
"""Points that no seed reaches: why, and who tests what is there."""


def points() -> list[tuple[str, str]]:
    """Return the name and the place of each rare point, in the order of the source."""
    return [
        (name, f"{path.relative_to(SOURCE).as_posix()}:{line}")
        for path in sorted(SOURCE.rglob("*.py"))
        for name, line in _points_in(path.read_text())
    ]


def _points_in(source: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Name(id="sometimes"), args=[ast.Constant(str(name))]
            ):
                yield name, node.lineno
            case ast.Call(func=ast.Name(id="sometimes")):
                raise AssertionError(f"line {node.lineno}: its name is no literal")
            case _:
                pass


def never_reached(counts: Mapping[str, int]) -> list[str]:
    """Return the names that were not reached, but for those that can't be."""
    names = [name for name, _ in points()]
    return [name for name in names if name not in counts and name not in UNREACHED]


def table(counts: Counter[str]) -> str:
    """Return how often each point was reached, rarest first, as Markdown."""
    lines = ["| rare point | reached | where |", "|---|---|---|"]
    lines += [
        f"| {name} | {counts[name]:,} | `{place}` |"
        for name, place in sorted(points(), key=lambda point: counts[point[0]])
    ]
    return "\n".join(lines)
