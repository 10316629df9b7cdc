"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Self

from examples.demo.client import Progress
from rich import progress as bars
from rich.console import Console

LINE_EVERY_S = 2.0


class Display:
    """Shows progress, and events as they happen."""

    def __init__(self, orders: int, console: Console) -> None:
        self._orders = orders
        self._console = console
        self._start_s = self._line_s = time.monotonic()
        self._bars: bars.Progress | None = None
        self._task = bars.TaskID(0)
        if console.is_terminal:
            self._bars = bars.Progress(
                bars.TimeElapsedColumn(),
                bars.BarColumn(bar_width=10),
                bars.TextColumn("{task.fields[counts]}"),
                console=console,
            )
            self._task = self._bars.add_task("", total=orders, counts="")

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start_s

    def event(self, text: str, style: str = "") -> None:
        """Show that something happened."""
        line = f"{self.elapsed_s:6.1f} s  {text}"
        self._console.print(line, style=style, markup=False, soft_wrap=True)

    def update(self, progress: Progress, delayed: int) -> None:
        """Show how far it is; *delayed* of the orders in flight wait for a retry."""
        counts = (
            f"{progress.completed} completed, {progress.failed} compensated, "
            f"{progress.in_flight} in flight, {delayed} delayed"
        )
        if self._bars is not None:
            self._bars.update(self._task, completed=progress.answered, counts=counts)
        elif time.monotonic() - self._line_s >= LINE_EVERY_S:
            self._line_s = time.monotonic()
            self.event(f"{100 * progress.answered // self._orders:3d} %  {counts}")
