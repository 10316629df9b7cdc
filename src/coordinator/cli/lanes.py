"""A workflow's story as a picture: down the forward lane, and back up the undo lane.

    0-12  PlaceOrder  key o-1                      compensated

       do                              undo
       │                               ▲
     ✓ inventory.reserve   12 ms  ◀────┤  undone   8.1 ms
       │ "reserve-sku-7"               │
     ✗ payments.charge     30 ms       │
       │ declined                      │
       └──────── turned back ──────────┘

The undo stands beside the step it undoes, so the right lane is read from below.
"""

from typing import Any

import msgspec

from coordinator.cli.output import (
    STATUS_STYLES,
    Line,
    fill,
    show_clock,
    show_duration,
    show_time,
)
from coordinator.runs import WorkflowInfo
from coordinator.timeline import Step, Timeline

__all__ = ["draw"]

_MARKS = {
    "done": ("✓", "green"),
    "refused": ("✗", "bold red"),
    "noted": ("·", "dim"),
    "unknown": ("…", "yellow"),
}
_DECISION_STYLES = {
    "stuck": "bold red",
    "aborting": "magenta",
    "cancelled": "magenta",
    "undone": "blue",
    "resumed": "cyan",
    "completed": "green",
    "compensated": "blue",
}
_RESTARTED = " ↻"
"""Stands behind a time in which the server was started again."""
_ENDS = {"completed", "compensated", "cancelled"}
_REASON = 28
"""Column in which the reasons of decisions begin."""
_LANE = 5
"""Column of the forward lane."""
_RIGHT_SIZE = 26
"""Columns that the undo lane and what stands beside it take."""


def draw(timeline: Timeline, live: WorkflowInfo | None, columns: int) -> list[Line]:
    """Draw *timeline* for people.

    Args:
        timeline: What the journal says.
        live: What the running server says; None if there is none, or it ended.
        columns: Of the terminal. Names are never cut, so a narrow one wraps.
    """
    picture = _Picture(timeline, live, columns)
    return [
        *picture.header(),
        [],
        *picture.lanes(),
        [],
        *picture.decisions(),
        *picture.standing(),
        *picture.what_now(),
    ]


class _Picture:
    def __init__(
        self, timeline: Timeline, live: WorkflowInfo | None, columns: int
    ) -> None:
        self._timeline = timeline
        self._live = live
        self._undone = {undo.step: undo for undo in timeline.undos}
        self._turned = any(d.what == "aborting" for d in timeline.decisions)
        names = [len(step.step) for step in timeline.steps]
        self._name_size = max([*names, len("turned back")])
        # Mark, lane, name, duration.
        needed = _LANE + 2 + self._name_size + 2 + 8 + 2
        needed += len(_RESTARTED) if timeline.restarts else 0
        self._right = max(needed, min(columns - _RIGHT_SIZE, needed + 16))
        self._columns = max(columns, self._right + _RIGHT_SIZE)

    def header(self) -> list[Line]:
        """Draw who it is and how it stands."""
        timeline, live = self._timeline, self._live
        status = live.status if live is not None else timeline.status
        if status == "running" and live is None:
            status = "unfinished"
        style = STATUS_STYLES.get(status.partition(",")[0], "")
        title: Line = [(timeline.id, "bold"), (f"  {timeline.type}", "bold cyan")]
        if timeline.key:
            title.append((f"  key {timeline.key}", ""))
        title += [("  ", ""), (status, style)]
        when = f"accepted {show_time(timeline.accepted_at)}"
        if timeline.ended_at is not None:
            took = show_duration(timeline.ended_at - timeline.accepted_at)
            when += f", ended {took} later"
        lines: list[Line] = [title, [(when, "dim")]]
        lines.append([(_cut(_text(timeline.command), self._columns), "dim")])
        if timeline.trace:
            lines.append([(f"trace {timeline.trace}", "dim")])
        return lines

    def lanes(self) -> list[Line]:
        """Draw both lanes, or one if it never turned back."""
        lines: list[Line] = [self._row([(" " * _LANE + "do", "bold")], "undo", "bold")]
        lines.append(self._row([(" " * _LANE + "│", "dim")], "▲", "cyan"))
        for step in self._timeline.steps:
            lines += self._step(step)
        lines += self._foot()
        return lines

    def _step(self, step: Step) -> list[Line]:
        mark, style = _MARKS[step.status]
        left: Line = [
            (f"   {mark} ", style),
            (step.step.ljust(self._name_size), "bold" if style != "dim" else "dim"),
            (f"  {_took(step):>8}{_restarted(step)}", "dim"),
        ]
        undo = self._undone.get(step.step)
        if self._turned and step.status == "done":
            room = self._right - _size(left) - len("  ◀")
            left.append(("  ◀" + "─" * room if undo else "", "cyan"))
        first = self._row(left, *self._beside(step, undo))
        note = _note(step)
        if not note:
            return [first]
        cut = _cut(note, self._right - _LANE - 3)
        quoted: Line = [(" " * _LANE + "│ ", "dim"), (cut, _note_style(step))]
        return [first, self._row(quoted, "│", "cyan")]

    def _beside(self, step: Step, undo: Step | None) -> tuple[str, str]:
        """Return what stands in the undo lane beside *step*, and its style."""
        if undo is not None:
            return f"┤  undone  {_took(undo)}{_restarted(undo)}", "cyan"
        if step.status == "done" and self._timeline.status in _ENDS:
            return "│  ● still done", "yellow"
        if step.status == "done":
            return "│  ● not yet undone", "yellow"
        return "│", "cyan"

    def _foot(self) -> list[Line]:
        """Draw where the forward lane ends."""
        timeline, live = self._timeline, self._live
        indent = " " * _LANE
        lines: list[Line] = []
        if self._turned:
            word = " turned back "
            bar = "─" * (self._right - _LANE - len(word) - 2)
            half = (len(bar) + 1) // 2
            lines.append([(f"{indent}└{bar[:half]}{word}{bar[half:]}─┘", "cyan")])
        elif timeline.status == "completed":
            lines.append([(f"{indent}▼ ", "green"), (_text(timeline.result), "green")])
        if timeline.status == "stuck":
            # All of it is told with the decision.
            said = _cut(f"stuck: {_first(timeline.reason)}", self._columns - _LANE)
            lines.append([("   ■ ", "bold red"), (said, "red")])
        elif live is not None and live.due_s is not None:
            due = show_duration(round(live.due_s * 1_000_000))
            said = f"{_tries(live.attempts)}, again in {due}"
            lines.append([("   … ", "yellow"), (said, "yellow")])
            reason = fill(_first(live.reason), self._columns - _LANE)
            lines += [[(indent, ""), (line, "yellow")] for line in reason if line]
        elif live is not None:
            lines.append([("   … ", "cyan"), ("running now", "cyan")])
        elif timeline.status not in _ENDS:
            lines.append(
                [
                    ("   … ", "yellow"),
                    ("unfinished; it goes on when a coordinator is started", "yellow"),
                ]
            )
        return lines

    def _row(self, left: Line, right: str, style: str) -> Line:
        """Put *right* into the undo lane, if there is one."""
        if not self._turned:
            return left
        gap = self._right - _size(left)
        return [*left, (" " * gap, ""), (right, style)]

    def decisions(self) -> list[Line]:
        """Draw what was decided, and when."""
        timeline = self._timeline
        lines: list[Line] = [[("decided", "bold")]]
        for number, decision in enumerate(timeline.decisions):
            lines += self._restarts(number)
            by = f"by {decision.by}" if decision.by else ""
            reason = decision.reason.strip().splitlines()
            said = ": ".join(filter(None, (by, reason[0] if reason else "")))
            what = decision.what
            if what == "compensated" and timeline.status == "cancelled":
                what = "undone"  # "cancelled" is told where it was decided
            first, *more = fill(said, self._columns - _REASON)
            lines.append(
                [
                    (f"  {show_clock(decision.at)}  ", "dim"),
                    (f"{what:<12}", _DECISION_STYLES.get(what, "")),
                    (first, ""),
                ]
            )
            lines += [[(" " * _REASON + line, "")] for line in more]
            lines += [[(f"    {line}", "dim")] for line in reason[1:] if _tells(line)]
        lines += self._restarts(len(timeline.decisions))
        if not timeline.complete:
            lost = "only a copy of the earlier state is retained: when it was stuck or "
            lines.append([(f"  {lost}retried before is not known", "dim")])
        return [*lines, []]

    def _restarts(self, behind: int) -> list[Line]:
        """Draw the restarts that lie behind so many decisions."""
        return [
            [
                (f"  {show_clock(one.at)}  {'restarted':<12}", "dim"),
                (f"{_RESTARTED.strip()} start {one.epoch}, {one.owner}", "dim"),
            ]
            for one in self._timeline.restarts
            if one.behind == behind
        ]

    def standing(self) -> list[Line]:
        """Draw what is still done in the world, where that is news.

        Of what goes forward or has completed it is what everybody wants.
        """
        timeline = self._timeline
        lines: list[Line] = []
        if timeline.standing and timeline.status not in {"running", "completed"}:
            lines.append([("still done in the world", "bold")])
            values = {step.step: step.value for step in timeline.steps}
            for name in timeline.standing:
                value = values.get(name)
                said = "" if value is None else _cut(_text(value), self._columns - 40)
                lines.append([("  ● ", "yellow"), (f"{name:<34}", ""), (said, "dim")])
            lines.append([])
        if timeline.ignored:
            lines.append([("done, but no longer asked for by the code", "bold")])
            lines += [[("  ● ", "yellow"), (name, "")] for name in timeline.ignored]
            lines.append([])
        return lines

    def what_now(self) -> list[Line]:
        """Draw what a person can do, if it waits for one."""
        id_ = self._timeline.id
        if self._timeline.status != "stuck":
            return []
        lines: list[Line] = [
            [("what now", "bold")],
            [(f"  coordinator retry {id_}", "cyan"), ("    run it again", "dim")],
        ]
        if not self._turned:
            lines.append(
                [
                    (f"  coordinator cancel {id_}", "cyan"),
                    ("   undo what it did", "dim"),
                ]
            )
        return lines


def _took(step: Step) -> str:
    return "" if step.after_us is None else show_duration(step.after_us)


def _restarted(step: Step) -> str:
    return _RESTARTED if step.restarts else ""


def _note(step: Step) -> str:
    if step.status == "refused":
        return str(step.value)
    if step.status == "unknown":
        return "started, nothing is known of it yet"
    return "" if step.value is None else _text(step.value)


def _note_style(step: Step) -> str:
    return {"refused": "red", "unknown": "yellow"}.get(step.status, "dim")


def _text(value: Any) -> str:
    """Return a plain value as one line of JSON; the fields of a command by name."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _first(text: str) -> str:
    """Return the first line: the rest of a traceback is told with the decision."""
    return (text.strip().splitlines() or [""])[0]


def _tries(count: int) -> str:
    return {0: "not tried yet", 1: "tried once"}.get(count, f"tried {count} times")


def _tells(line: str) -> bool:
    """Whether a traceback's line is more than marks under the line before."""
    return bool(line.strip(" ~^"))


def _cut(text: str, size: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= size else line[: max(size - 1, 0)] + "…"


def _size(line: Line) -> int:
    return sum(len(text) for text, _ in line)
