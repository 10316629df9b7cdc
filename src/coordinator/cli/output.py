"""What the commands print: data to stdout, everything else to stderr.

Rich is imported for terminals only. A pipe gets plain text that is never cut, and
``--json`` what a program wants.
"""

import math
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from coordinator.cli.printing import complain, encodable, visible, writing

__all__ = [
    "STATUS_STYLES",
    "Line",
    "confirmed",
    "emit_lines",
    "emit_table",
    "emit_text",
    "fill",
    "progress",
    "show_clock",
    "show_count",
    "show_duration",
    "show_size",
    "show_time",
    "width",
    "wrapped",
]

Line = list[tuple[str, str]]
"""Pieces of text, each with a Rich style; empty for none."""

WIDTH_DEFAULT = 100
"""Columns where there is no terminal to ask."""

PROGRESS_S = 5.0
"""Seconds between two lines of progress where there is no terminal."""

LAST_SIZE_MIN = 32
"""Columns that a table's last column is worth; with less it goes below its row."""

STATUS_STYLES = {
    "running": "cyan",
    "unfinished": "cyan",
    "delayed": "yellow",
    "stuck": "bold red",
    "cancelling": "magenta",
    "aborting": "magenta",
    "completed": "green",
    "compensated": "blue",
    "cancelled": "blue",
    "ok": "green",
    "warning": "yellow",
    "problem": "bold red",
}


def emit_lines(lines: Sequence[Line]) -> None:
    """Print *lines*, in colour if stdout is a terminal that wants it.

    Raises:
        CliError: It can't be written, or nobody reads it.
    """
    if not _wants_colour():
        with writing():
            for line in lines:
                text = "".join(text for text, _ in line).rstrip()
                print(encodable(visible(text)))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    with writing():
        for line in lines:
            pieces = ((encodable(visible(text)), style) for text, style in line)
            console.print(Text.assemble(*pieces))


def emit_text(text: str) -> None:
    """Print *text*, which may have several lines.

    Raises:
        CliError: It can't be written, or nobody reads it.
    """
    emit_lines([[(line, "")] for line in text.splitlines()])


def emit_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* in columns.

    In a terminal the last column is cut to fit, or cut and put below its row where
    little of it would be left beside the others.
    """
    cells = [[encodable(visible(cell)) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    last = widths.pop()
    room = width() - sum(size + 2 for size in widths)
    below = False
    if sys.stdout.isatty() and last > room:
        below = room < LAST_SIZE_MIN
        last = max(width() - 4 if below else room, 1)
    lines: list[Line] = []
    for number, row in enumerate(cells):
        line: Line = []
        for text, size in zip(row, widths, strict=False):
            style = "bold" if number == 0 else STATUS_STYLES.get(text, "")
            line += [(text.ljust(size), style), ("  ", "")]
        text = row[-1] if len(row[-1]) <= last else row[-1][: last - 1] + "…"
        if below:
            # No space behind the last piece: on a full line it would be a line more.
            lines.append(line[:-1])
            if text and number:
                lines.append([("    ", ""), (text, "dim")])
        else:
            lines.append([*line, (text, "" if number else "bold")])
    emit_lines(lines)


def confirmed(question: str) -> bool:
    """Ask a person; no, Ctrl-C and the end of stdin are the same answer."""
    import typer

    try:
        return typer.confirm(question)
    except typer.Abort:
        return False


@contextmanager
def progress(
    message: str,
    *,
    lines: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Callable[[str], None]]:
    """Show on stderr that something is under way.

    Args:
        message: What; on a terminal only.
        lines: Whether anything else gets a line every `PROGRESS_S`, for what may take
            minutes; else it gets nothing.
        clock: Seconds.

    Yields:
        What changes the message.
    """
    if not sys.stderr.isatty():
        said_at_s = clock() if lines else math.inf

        def tell(said: str) -> None:
            nonlocal said_at_s
            if clock() - said_at_s >= PROGRESS_S:
                said_at_s = clock()
                complain(said)

        yield tell
        return
    from rich.console import Console

    with Console(stderr=True).status(message) as status:
        yield status.update


def width() -> int:
    """Return the columns to fill."""
    return shutil.get_terminal_size((WIDTH_DEFAULT, 24)).columns


def wrapped(text: str, indent: int) -> list[str]:
    """Return *text* as the lines that fit behind *indent* columns of a terminal.

    A pipe gets it as one line. Long words are not broken: people copy them.
    """
    if not sys.stdout.isatty():
        return [text]
    return fill(text, width() - indent)


def fill(text: str, size: int) -> list[str]:
    """Return *text* in lines of *size* columns, or of one word that is longer."""
    return textwrap.wrap(
        text, max(size, 20), break_long_words=False, break_on_hyphens=False
    ) or [""]


def show_time(at: int) -> str:
    """Return microseconds since 1970 as people write a time, UTC."""
    return f"{_datetime(at):%Y-%m-%d %H:%M:%S}.{at // 1000 % 1000:03}Z"


def show_clock(at: int) -> str:
    """As `show_time`, without the date."""
    return f"{_datetime(at):%H:%M:%S}.{at // 1000 % 1000:03}"


def show_duration(us: int) -> str:
    """Return a duration with two or three digits that matter."""
    sign, us = ("-", -us) if us < 0 else ("", us)
    if us < 1000:
        return f"{sign}{us} us"
    if us < 1_000_000:
        return f"{sign}{us / 1000:.3g} ms" if us < 999_500 else f"{sign}1 s"
    seconds = us / 1_000_000
    if seconds < 60:
        return f"{sign}{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{sign}{days} d {hours} h"
    return (
        f"{sign}{hours} h {minutes} min"
        if hours
        else f"{sign}{minutes} min {seconds} s"
    )


def show_size(size: int) -> str:
    """Return bytes as people write them."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} TiB"


def show_count(count: int, what: str) -> str:
    """Return how many, e.g. ``1 segment``, ``2 segments``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _datetime(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1_000_000, UTC)


def _wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
