"""What the services answer in a test, step by step.

    services.refuse("shipping.book", "no carrier")   did not do it, and will not
    services.fail("inventory.reserve", times=2)      was not reached; nobody knows that
    services.lose_reply("payments.charge")           did it, and the reply never came
    services.delay("payments.charge", "40s")         does it at once, answers that late
    services.returns("payments.charge", Payment(1))  the function is not called at all

A step is named as in the timeline: ``payments.charge`` is every step of that name,
``payments.charge#1`` the second of its workflow, ``stock.reserve[sku-7]`` the one of
that key, and ``payments.charge/undo`` its undo.
"""

from dataclasses import dataclass
from typing import Any

from coordinator.errors import CommandDelayed, Refused
from coordinator.testing.durations import Duration, seconds
from coordinator.testing.errors import RehearsalError

__all__ = ["Answer", "Services", "names_of"]

_ONE_AT_A_TIME = frozenset({"refuse", "fail", "lose_reply"})
_NOTHING = object()


@dataclass
class _Rule:
    """One line of the script."""

    kind: str
    step: str
    value: Any
    times: int | None
    after: int
    seen: int = 0
    used: int = 0

    def __str__(self) -> str:
        return f"{self.kind}({self.step!r})"

    def takes(self) -> bool:
        """Count a call, and say whether it is for this rule."""
        self.seen += 1
        return self.seen > self.after and (self.times is None or self.used < self.times)


@dataclass
class Answer:
    """What is to happen with one call."""

    before: Exception | None = None
    """Raised instead of calling the function."""
    lost: bool = False
    delay_s: float = 0.0
    value: Any = _NOTHING

    @property
    def canned(self) -> bool:
        """Whether `value` stands for what the function returns."""
        return self.value is not _NOTHING


def names_of(step: str) -> tuple[str, ...]:
    """Return the names that mean *step*, which is written as in the timeline."""
    base, slash, undo = step.partition("/undo")
    number = base.rpartition("#")[0] or base
    bare = number.partition("[")[0]
    first = f"{number}#0" if number == base else base
    return tuple(
        dict.fromkeys(f"{name}{slash}{undo}" for name in (base, first, number, bare))
    )


class Services:
    """The script of a rehearsal. What it does not speak of is called as it is."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []
        self._seen: dict[str, None] = {}

    def refuse(
        self,
        step: str,
        reason: str | Refused = "refused by the test",
        *,
        times: int | None = 1,
        after: int = 0,
    ) -> None:
        """Have *step* refused: nothing is done, and the saga turns back.

        Args:
            step: As in the timeline.
            reason: Words, or a refusal of a class of your own.
            times: How many calls; None for all.
            after: How many calls of it go through before.
        """
        refusal = reason if isinstance(reason, Refused) else Refused(reason)
        self._add("refuse", step, refusal, times, after)

    def fail(
        self,
        step: str,
        error: str | Exception = "could not be reached",
        *,
        times: int | None = 1,
        after: int = 0,
    ) -> None:
        """Have *step* fail before anything is done; nobody knows that.

        Args:
            step: As in the timeline.
            error: Words of a `CommandDelayed`, or what is to be raised.
            times: How many calls; None for all.
            after: How many calls of it go through before.
        """
        raised = error if isinstance(error, Exception) else CommandDelayed(error)
        self._add("fail", step, raised, times, after)

    def lose_reply(self, step: str, *, times: int | None = 1, after: int = 0) -> None:
        """Have *step* done, and its reply lost: nobody knows, so it is asked again."""
        self._add("lose_reply", step, None, times, after)

    def delay(
        self, step: str, duration: Duration, *, times: int | None = 1, after: int = 0
    ) -> None:
        """Have *step* done at once, and the reply come *duration* later.

        Raises:
            RehearsalError: *duration* is none.
        """
        self._add("delay", step, seconds(duration), times, after)

    def returns(
        self, step: str, value: Any, *, times: int | None = None, after: int = 0
    ) -> None:
        """Have *step* return *value*; its function, and what it would reach, rests."""
        self._add("returns", step, value, times, after)

    def _add(
        self, kind: str, step: str, value: Any, times: int | None, after: int
    ) -> None:
        if not step or step == "/undo":
            raise RehearsalError(
                f"{kind}({step!r}): name the step as the timeline does, "
                f"e.g. 'payments.charge', or 'payments.charge/undo'"
            )
        if (times is not None and times < 1) or after < 0:
            raise RehearsalError(
                f"{kind}({step!r}): times must be 1 or more (None for every call) and "
                f"after 0 or more, got times={times}, after={after}"
            )
        self._rules.append(_Rule(kind, step, value, times, after))

    def answer(self, step: str) -> Answer:
        """Say what is to happen with a call of *step*, and count it."""
        self._seen[step] = None
        answer = Answer()
        if not self._rules:
            return answer
        names = names_of(step)
        taken = False
        for rule in self._rules:
            if rule.step not in names or not rule.takes():
                continue
            if rule.kind in _ONE_AT_A_TIME:
                if taken:
                    continue  # its turn comes with a later call
                taken = True
            rule.used += 1
            match rule.kind:
                case "lose_reply":
                    answer.lost = True
                case "delay":
                    answer.delay_s += rule.value
                case "returns":
                    answer.value = rule.value
                case _:
                    answer.before = rule.value
        return answer

    @property
    def seen(self) -> list[str]:
        """The steps that were called so far, as the timeline names them."""
        return list(self._seen)

    def unused(self) -> str:
        """Say which lines of the script never came to anything; empty if all did."""
        idle = [rule for rule in self._rules if not rule.used]
        known = {name for step in self._seen for name in names_of(step)}
        # What a fake would return for an undo that did not come to it is no mistake.
        idle = [
            rule
            for rule in idle
            if rule.kind != "returns" or rule.step.removesuffix("/undo") not in known
        ]
        if not idle:
            return ""
        seen = ", ".join(self._seen) or "no step at all"
        called = [rule for rule in idle if rule.step in known]
        why = (
            "the step was called less often than that"
            if len(called) == len(idle)
            else "no step of that name was called"
        )
        return (
            f"{', '.join(map(str, idle))} never came to anything: {why}; called were "
            f"{seen}"
        )
