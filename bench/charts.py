"""Draw the figures: ``make bench-charts`` makes pictures and tables from the JSONs.

Nothing here measures, and nothing is typed in by hand: `tests/bench/test_charts.py`
holds that what is committed is what the committed JSON draws.

    docs/throughput.svg    sagas per second, 100 in flight, beside the peers
    docs/latency.svg       milliseconds of one saga, beside the peers
    docs/echo.svg          round trips per second of an echo, beside others
    docs/performance.md    between <!-- figures --> and <!-- /figures -->, and
                           between <!-- echo --> and <!-- /echo -->
    README.md              between <!-- measured --> and <!-- /measured -->
"""

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from bench.results import CMDSTREAM, CORE, Figure, Machine, Results, described, load

ROOT = Path(__file__).parents[1]

WIDTH = 720
LEFT = 190
RIGHT = 90
ROW = 44
BAR = 18
TOP = 64
BOTTOM = 40

STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328; }
    .title { font-size: 16px; font-weight: 600; }
    .small { font-size: 11px; fill: #59636e; }
    .ours { fill: #0969da; } .theirs { fill: #8c959f; }
    .range { stroke: #1f2328; } .grid { stroke: #d1d9e0; }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; } .small { fill: #9198a1; }
      .ours { fill: #4493f8; } .theirs { fill: #656c76; }
      .range { stroke: #f0f6fc; } .grid { stroke: #3d444d; }
    }
"""


class Row(NamedTuple):
    """One bar: of which figure, and what it is called."""

    figure: str
    label: str
    how: str
    ours: bool = False


class Chart(NamedTuple):
    """What one picture shows."""

    file: str
    title: str
    unit: str
    rows: tuple[Row, ...]


CHARTS = (
    Chart(
        "throughput.svg",
        "Three durable steps, 100 in flight: sagas per second",
        "sagas per second, logarithmic; more is better",
        (
            Row("within_per_s", "coordinator", "in the caller's process", ours=True),
            Row("dbos_per_s", "DBOS, SQLite", "in the caller's process"),
            Row("sagas_per_s", "coordinator", "over the wire", ours=True),
            Row("restate_per_s", "Restate", "over the wire"),
        ),
    ),
    Chart(
        "latency.svg",
        "Three durable steps, one in flight: median latency",
        "milliseconds, logarithmic; less is better",
        (
            Row("within_p50_ms", "coordinator", "in the caller's process", ours=True),
            Row("dbos_p50_ms", "DBOS, SQLite", "in the caller's process"),
            Row("p50_ms", "coordinator", "over the wire", ours=True),
            Row("restate_p50_ms", "Restate", "over the wire"),
        ),
    ),
)


ECHO_CHARTS = (
    Chart(
        "echo.svg",
        "An echo of 64 bytes, 100 in flight on one connection",
        "round trips per second, logarithmic; more is better",
        (
            Row("bare_per_s", "asyncio.Protocol", "no codec, no numbers"),
            Row("json_per_s", "cmdstream", "JSON", ours=True),
            Row("mus_per_s", "cmdstream", "MUS", ours=True),
            Row("protobuf_per_s", "cmdstream", "Protobuf", ours=True),
            Row("go_per_s", "cmd-stream-go", "JSON, Go at both ends"),
            Row("aiohttp_per_s", "aiohttp", "HTTP/1.1, bytes"),
            Row("grpc_per_s", "grpc.aio", "unary, bytes"),
        ),
    ),
)


def draw(chart: Chart, results: Results) -> str:
    """Return *chart* as SVG: a bar per figure that was measured, with its range."""
    found = {line.name: line for line in results.figures}
    rows = [row for row in chart.rows if row.figure in found]
    low, high = scale([found[row.figure] for row in rows])

    def x(value: float) -> float:
        share = math.log10(value / low) / math.log10(high / low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    height = TOP + ROW * len(rows) + BOTTOM
    foot = TOP + ROW * len(rows)
    lines = _head(chart, rows, found, height)
    tick = low
    while tick <= high:
        lines += [
            (
                f'  <line class="grid" x1="{x(tick)}" x2="{x(tick)}" '
                f'y1="{TOP - 8}" y2="{foot}"/>'
            ),
            (
                f'  <text class="small" x="{x(tick)}" y="{foot + 16}" '
                f'text-anchor="middle">{number(tick)}</text>'
            ),
        ]
        tick *= 10
    for index, row in enumerate(rows):
        lines += _bar(row, found[row.figure], TOP + ROW * index, x)
    lines += [
        f'  <text class="small" x="{LEFT}" y="{foot + 32}">{escape(chart.unit)}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def scale(figures: Sequence[Figure]) -> tuple[float, float]:
    """Return the powers of ten that hold all *figures*, with their ranges."""
    low = min((line.min for line in figures), default=1.0)
    high = max((line.max for line in figures), default=10.0)
    first = math.floor(math.log10(low) - 1e-9)
    last = math.ceil(math.log10(high))
    return 10.0**first, 10.0 ** max(last, first + 1)


def _head(
    chart: Chart, rows: Sequence[Row], found: Mapping[str, Figure], height: int
) -> list[str]:
    told = "; ".join(
        f"{row.label}, {row.how}: {number(found[row.figure].value)}" for row in rows
    )
    return [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'role="img" aria-labelledby="title desc">'
        ),
        f'  <title id="title">{escape(chart.title)}</title>',
        f'  <desc id="desc">{escape(told)}. {escape(chart.unit)}.</desc>',
        f"  <style>{STYLE}  </style>",
        f'  <text class="title" x="16" y="28">{escape(chart.title)}</text>',
    ]


def _bar(row: Row, figure: Figure, top: int, x: Callable[[float], float]) -> list[str]:
    kind = "ours" if row.ours else "theirs"
    end, middle = x(figure.value), top + BAR / 2
    return [
        f'  <text x="16" y="{top + 12}">{escape(row.label)}</text>',
        f'  <text class="small" x="16" y="{top + 27}">{escape(row.how)}</text>',
        (
            f'  <rect class="{kind}" x="{LEFT}" y="{top}" rx="2" '
            f'width="{max(1.0, round(end - LEFT, 1))}" height="{BAR}"/>'
        ),
        (
            f'  <line class="range" x1="{x(figure.min)}" x2="{x(figure.max)}" '
            f'y1="{middle}" y2="{middle}"/>'
        ),
        (
            f'  <text x="{max(end, x(figure.max)) + 8}" y="{top + 14}">'
            f"{number(figure.value)}</text>"
        ),
    ]


def number(value: float) -> str:
    """Return *value* as people read it: three digits, thousands apart."""
    if value >= 100:
        return f"{round(value):,}"
    return f"{value:.3g}"


def figures_table(results: Results) -> str:
    """Return all figures as Markdown, with the machine and what was left out."""
    peers = ", ".join(f"{name} {what}" for name, what in results.peers.items())
    lines = [
        f"{described(results.machine)}.",
        *([f"Peers: {peers}."] if peers else []),
        "",
        "| figure | median | range | unit | target | rounds | commit, day |",
        "|---|---:|---:|---|---|---:|---|",
    ]
    for line in results.figures:
        mark = {True: "holds", False: "**missed**", None: ""}[line.holds]
        target = f"{line.target} {mark}".strip()
        lines.append(
            f"| {line.name} | {number(line.value)} | {number(line.min)} to "
            f"{number(line.max)} | {line.unit} | {target} | {line.rounds or ''} | "
            f"{line.commit} {line.date} |"
        )
    lines += [f"\n{name} is left out: {why}." for name, why in results.left_out.items()]
    return "\n".join(lines)


def measured(results: Results) -> str:
    """Return the README's sentence, of the figures that there are."""
    found = {line.name: number(line.value) for line in results.figures}
    said = [
        f"{found[name]} {text}"
        for name, text in (
            ("sagas_per_s", "sagas of three durable steps per second"),
            ("p50_ms", "ms for one"),
            ("recover_1000_s", "s until 1,000 killed in flight are complete"),
            ("parked_mb", "MB for 100,000 parked"),
        )
        if name in found
    ]
    machine: Machine = results.machine
    return (
        f"On {machine.cores} cores of a shared machine: {', '.join(said)}. "
        "What that means: [docs/performance.md](docs/performance.md)."
    )


def between(text: str, mark: str, content: str) -> str:
    """Return *text* with *content* between ``<!-- mark -->`` and its end.

    Raises:
        ValueError: It has no such place.
    """
    place = re.compile(rf"(<!-- {mark} -->\n?).*?(\n?<!-- /{mark} -->)", re.DOTALL)
    found, count = place.subn(lambda match: f"{match[1]}{content}{match[2]}", text)
    if count != 1:
        raise ValueError(f"{count} places for {mark}, there must be one")
    return found


def drawn(core: Results, echo: Results) -> dict[Path, str]:
    """Return the text of every file that shows figures."""
    docs, readme = ROOT / "docs", ROOT / "README.md"
    text = between(
        (docs / "performance.md").read_text(), "figures", figures_table(core)
    )
    return {
        **{docs / one.file: draw(one, core) for one in CHARTS},
        **{docs / one.file: draw(one, echo) for one in ECHO_CHARTS},
        docs / "performance.md": between(text, "echo", figures_table(echo)),
        readme: between(readme.read_text(), "measured", measured(core)),
    }


def main() -> int:
    """Write the files."""
    core, echo = load(CORE), load(CMDSTREAM)
    if core is None or echo is None:
        print(f"{CORE} or {CMDSTREAM} is missing; see `make help`", file=sys.stderr)
        return 1
    for path, text in drawn(core, echo).items():
        path.write_text(text)
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
