"""What `exec` sees: how functions are named, and what a step and a gather do."""

import asyncio
import functools
import math
import re
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

import msgspec
import pytest
from tests.engine.support import run

from coordinator.errors import CommandDelayed, CommandTypeError, Refused
from coordinator.model import OutcomeStatus, Retry, StepId, WorkflowId
from coordinator.saga import Unwind
from coordinator.workflow import Callee, Names, RecordedOutcome, Step, Workflow

T = TypeVar("T")


class Payments:
    async def charge(self, cents: int = 0) -> int:
        return cents

    def refund(self, receipt: int) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    @staticmethod
    def static() -> None: ...

    unnamed: Callable[[Any], int] = lambda _: 1


class Mail:
    service_name = "post"

    def send(self) -> None: ...


class Sender:
    async def __call__(self, to: str) -> str:
        return to


class Unhashable(Sender):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


class Shop:
    """Gateways on the object, and one on the class."""

    stock = Payments()

    def __init__(self) -> None:
        self.payments = Payments()
        self.mail = Mail()
        self.bank = self.payments
        self.send = Sender()
        self.cache: dict[str, int] = {}

    async def close(self) -> None: ...


class Branch(Shop):
    """Inherits the gateway of the class."""


class Slotted:
    __slots__ = ("__private", "missing", "payments")

    def __init__(self) -> None:
        self.payments = Payments()
        self.__private = 1

    def private(self) -> int:
        return self.__private


class Frozen(msgspec.Struct, frozen=True):
    payments: Any


async def function() -> None: ...


def plain_function() -> int:
    return 1


# Names.


def test_a_method_of_a_gateway_is_named_after_the_attribute_that_it_is() -> None:
    shop = Shop()
    names = Names(shop)
    assert names.of(shop.payments.charge).name == "payments.charge"
    assert names.of(shop.payments.refund).name == "payments.refund"
    assert names.of(shop.stock.charge).name == "stock.charge"


def test_a_gateway_with_two_attributes_has_the_name_of_the_first() -> None:
    shop = Shop()
    assert Names(shop).of(shop.bank.charge).name == "payments.charge"


def test_a_gateway_that_names_itself_is_named_so_wherever_it_is() -> None:
    shop = Shop()
    assert Names(shop).of(shop.mail.send).name == "post.send"
    assert Names(shop).of(Mail().send).name == "post.send"


def test_a_gateway_is_found_on_a_base_class_in_a_slot_and_in_a_field() -> None:
    branch, slotted, frozen = Branch(), Slotted(), Frozen(Payments())
    assert Names(branch).of(branch.stock.charge).name == "stock.charge"
    assert Names(slotted).of(slotted.payments.charge).name == "payments.charge"
    assert Names(frozen).of(frozen.payments.charge).name == "payments.charge"


def test_two_gateways_of_one_class_are_told_apart() -> None:
    class Two:
        def __init__(self) -> None:
            self.east, self.west = Payments(), Payments()

    two = Two()
    names = Names(two)
    for _ in range(2):
        assert names.of(two.east.charge).name == "east.charge"
        assert names.of(two.west.charge).name == "west.charge"


def test_two_methods_that_are_not_written_in_python_are_told_apart() -> None:
    shop = Shop()
    names = Names(shop)
    for _ in range(2):
        assert names.of(shop.cache.get).name == "cache.get"
        assert names.of(shop.cache.pop).name == "cache.pop"


def _kind(value: object) -> str:
    """Return an id without addresses: the workers of a parallel run compare ids."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@pytest.mark.parametrize(
    ("function_", "name"),
    [
        (function, "function"),
        (plain_function, "plain_function"),
        (Payments().charge, "Payments.charge"),
        (Payments.charge, "Payments.charge"),
        (Payments.of_class, "Payments.of_class"),
        (Payments.static, "Payments.static"),
        (Shop().close, "Shop.close"),
        (functools.partial(plain_function), "plain_function"),
        (functools.partial(functools.partial(Payments().charge, 1)), "Payments.charge"),
        (Sender(), "Sender"),
        (functools.partial(Sender(), "a"), "Sender"),
        (Unhashable(), "Unhashable"),
        (math.sqrt, "sqrt"),
        (Payments, "Payments"),
    ],
    ids=_kind,
)
def test_any_other_function_is_named_as_it_is_written(
    function_: Callable[..., Any], name: str
) -> None:
    names = Names(None)
    assert names.of(function_).name == name
    assert names.of(function_).name == name


def test_a_partial_of_a_gateways_method_is_named_after_the_gateway() -> None:
    shop = Shop()
    partial = functools.partial(shop.payments.charge, 5)
    assert Names(shop).of(partial).name == "payments.charge"


def test_a_function_in_a_function_is_named_without_what_is_around_it() -> None:
    def inner() -> None: ...

    class Local:
        def method(self) -> None: ...

    assert Names(None).of(inner).name == "inner"
    assert Names(None).of(Local().method).name == "Local.method"


def test_functions_of_one_name_in_functions_are_not_mistaken_for_one_another() -> None:
    def make(kind: type[Any]) -> Callable[..., Any]:
        if kind is int:

            def step() -> int:
                return 1

            return step

        async def other() -> str:
            return ""

        return other

    names = Names(None)
    assert names.of(make(int)).returns is int
    assert names.of(make(str)) == Callee(
        StepId("other", 0), is_named=True, is_async=True, returns=str
    )


@pytest.mark.parametrize(
    ("function_", "is_async", "returns"),
    [
        (Payments().charge, True, int),
        (Payments().refund, False, None),
        (function, True, None),
        (plain_function, False, int),
        (functools.partial(Payments().charge, 1), True, int),
        (Sender(), True, str),
        (functools.partial(Sender(), "a"), True, str),
        (Unhashable(), True, str),
        (math.sqrt, False, Any),
    ],
    ids=_kind,
)
def test_what_is_known_of_a_function_is_how_to_call_it_and_what_it_returns(
    function_: Callable[..., Any], is_async: bool, returns: object
) -> None:
    callee = Names(None).of(function_)
    assert (callee.is_async, callee.returns) == (is_async, returns)


def test_only_what_lives_as_long_as_the_receiver_is_remembered() -> None:
    shop = Shop()
    names = Names(shop)

    def inner() -> None: ...

    for passing in (inner, Payments().charge, functools.partial(function), Sender()):
        names.of(passing)
    assert names.known == {}
    for lasting in (function, shop.payments.charge, Payments.static):
        assert names.of(lasting) is names.of(lasting)
    assert len(names.known) == 3


# Steps, asked for of a runner that writes down what it is asked.


class Recorder:
    """A `Runner` that knows the answers beforehand."""

    def __init__(self, answers: dict[str, object] | None = None) -> None:
        self.answers = answers or {}
        """By step: what it returns or raises."""
        self.seconds: dict[str, float] = {}
        """By step: how long its call takes; others are known already."""
        self.performed: list[str] = []
        self.noted: list[tuple[str, object]] = []
        self._counts: dict[str, int] = {}

    def number(self, first: StepId) -> StepId:
        count = self._counts.get(first.name, 0)
        self._counts[first.name] = count + 1
        return StepId(first.name, count)

    def renumber(self, step: StepId, name: str) -> StepId:
        self._counts[step.name] -= 1
        return self.number(StepId(name, 0))

    def perform(self, step: Step[T]) -> Generator[Any, Any, T]:
        return self._perform(step).__await__()

    async def _perform(self, step: Step[T]) -> T:
        name = step.id.name
        await asyncio.sleep(self.seconds.get(name, 0))
        self.performed.append(name)
        answer: Any = self.answers.get(name, name)
        if isinstance(answer, BaseException):
            raise answer
        result: T = answer
        return result

    def start(self, step: Step[T]) -> Awaitable[T]:
        if step.id.name not in self.seconds:
            return step
        return asyncio.get_running_loop().create_task(self._perform(step))

    async def append_outcome(self, service: str, value: object) -> None:
        self.noted.append((service, value))

    def outcomes(self) -> tuple[RecordedOutcome, ...]:
        return (RecordedOutcome("a", "a.b", 0, OutcomeStatus.DONE, 1),)


def workflow_of(
    runner: Recorder, receiver: object = None, *, key: str = ""
) -> Workflow:
    return Workflow(runner, Names(receiver), WorkflowId("0-7"), key)


def step_of(
    runner: Recorder, name: str, function_: Callable[..., Any] = function
) -> Step[Any]:
    return workflow_of(runner).step(function_).named(name)


def test_a_step_knows_what_it_was_asked_for() -> None:
    shop = Shop()
    step = workflow_of(Recorder(), shop).step(shop.payments.charge, cents=5)
    assert step.id == StepId("payments.charge", 0)
    assert step.callee == Callee(
        StepId("payments.charge", 0), is_named=True, is_async=True, returns=int
    )
    assert (step.function, step.args, step.kwargs) == (
        shop.payments.charge,
        (),
        {"cents": 5},
    )
    assert step.service_called == "payments"
    assert (step.undo_function, step.retry_policy, step.timeout_s) == (None, None, None)


def test_steps_are_numbered_when_they_are_asked_for_not_when_they_are_awaited() -> None:
    workflow = workflow_of(Recorder())
    first, second = workflow.step(function), workflow.step(function)
    assert (first.id, second.id) == (StepId("function", 0), StepId("function", 1))


def test_each_refinement_gives_the_step_itself() -> None:
    shop = Shop()
    step = workflow_of(Recorder(), shop).step(shop.payments.charge)
    policy = Retry()
    assert step.undo(shop.payments.refund) is step
    assert step.named("bank.charge", key="o-1") is step
    assert step.retry(policy) is step
    assert step.timeout(2.5) is step
    assert step.id == StepId("bank.charge[o-1]", 0)
    assert step.undo_function == shop.payments.refund
    assert step.retry_policy is policy
    assert step.timeout_s == 2.5
    assert step.service_called == "bank"
    assert step.service_to_record == ""
    assert step.service("vault") is step
    assert step.service_called == step.service_to_record == "vault"


def test_the_service_may_be_said_before_the_name_or_after_it() -> None:
    workflow = workflow_of(Recorder())
    for step in (
        workflow.step(function).service("payments").named("bank.charge"),
        workflow.step(function).named("bank.charge").service("payments"),
    ):
        assert step.service_called == step.service_to_record == "payments"
    same = workflow.step(function).service("bank").named("bank.charge")
    assert (same.service_called, same.service_to_record) == ("bank", "")


REFINEMENTS: list[Callable[[Step[Any]], object]] = [
    lambda step: step.undo(Payments().refund),
    lambda step: step.named("a.b"),
    lambda step: step.retry(Retry()),
    lambda step: step.timeout(1),
    lambda step: step.service("a"),
]


@pytest.mark.parametrize("refine", REFINEMENTS)
def test_what_refines_a_step_comes_before_its_await(
    refine: Callable[[Step[Any]], object],
) -> None:
    async def main() -> None:
        step = workflow_of(Recorder()).step(function)
        await step
        with pytest.raises(RuntimeError, match="comes before its await"):
            refine(step)

    run(main())


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_out_is_more_than_nothing(seconds: float) -> None:
    with pytest.raises(ValueError, match="more than 0 s"):
        workflow_of(Recorder()).step(function).timeout(seconds)


def test_a_step_that_is_named_leaves_its_number_to_the_next() -> None:
    runner = Recorder()
    workflow = workflow_of(runner)
    assert workflow.step(function).named("a.b").id == StepId("a.b", 0)
    assert workflow.step(function).named("a.b", key="").id == StepId("a.b[]", 0)
    assert workflow.step(function).id == StepId("function", 0)


@pytest.mark.parametrize("name", ["", "a[b", "[", "a.b[c]"])
def test_a_name_that_could_be_taken_for_another_is_refused(name: str) -> None:
    step = workflow_of(Recorder()).step(function)
    with pytest.raises(ValueError, match="must be like service") as caught:
        step.named(name)
    assert repr(name) in str(caught.value)
    assert step.id == StepId("function", 0)


@pytest.mark.parametrize(
    "unnamed",
    [
        lambda: 1,
        functools.partial(lambda: 1),
        Shop().payments.unnamed,
        Payments.unnamed,
        Payments().unnamed,
    ],
)
def test_a_lambda_has_no_name_to_be_found_by_again(unnamed: Callable[..., Any]) -> None:
    with pytest.raises(CommandTypeError, match="a lambda can't be a step"):
        workflow_of(Recorder(), Shop()).step(unnamed)


def test_a_lambda_of_a_gateway_has_no_name_either() -> None:
    shop = Shop()
    unnamed: Any = shop.payments.unnamed
    with pytest.raises(CommandTypeError, match="a lambda can't be a step"):
        workflow_of(Recorder(), shop).step(unnamed)


def test_awaiting_a_step_performs_it() -> None:
    runner = Recorder({"a": 5})

    async def main() -> None:
        step = step_of(runner, "a")
        assert runner.performed == []
        assert await step == 5
        assert runner.performed == ["a"]

    run(main())


def test_the_workflow_hands_on_what_is_recorded_and_what_is_noted() -> None:
    runner = Recorder()
    workflow = workflow_of(runner, key="o-1")

    async def main() -> None:
        await workflow.append_outcome("a", {"b": 1})

    run(main())
    assert (workflow.id, workflow.key) == ("0-7", "o-1")
    assert workflow.outcomes == runner.outcomes()
    assert runner.noted == [("a", {"b": 1})]


# Gather.


def gathered(runner: Recorder, *names: str) -> Coroutine[Any, Any, tuple[Any, ...]]:
    workflow = workflow_of(runner)
    return workflow.gather(*(workflow.step(function).named(name) for name in names))


def test_gathered_steps_run_at_once_and_their_outcomes_come_in_the_order_asked() -> (
    None
):
    runner = Recorder()
    runner.seconds = {"a": 3, "b": 1, "c": 2}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        assert await gathered(runner, "a", "b", "known", "c") == (
            "a",
            "b",
            "known",
            "c",
        )
        assert loop.time() - began_s == pytest.approx(3, abs=0.01)

    run(main())
    assert runner.performed == ["b", "c", "a", "known"]


def test_nothing_gathered_is_nothing() -> None:
    assert run(gathered(Recorder())) == ()


def test_a_refusal_waits_for_those_beside_it() -> None:
    refusal = Refused("no")
    runner = Recorder({"a": refusal})
    runner.seconds = {"a": 1, "b": 5}

    async def main() -> None:
        with pytest.raises(Refused) as caught:
            await gathered(runner, "a", "b", "known")
        assert caught.value is refusal
        assert sorted(runner.performed) == ["a", "b", "known"]

    run(main())


def test_of_several_refusals_it_is_that_of_the_first_step() -> None:
    first, second = Refused("first"), Refused("second")
    runner = Recorder({"b": first, "c": second})
    runner.seconds = {"b": 5, "c": 1}

    async def main() -> None:
        with pytest.raises(Refused) as caught:
            await gathered(runner, "a", "b", "c")
        assert caught.value is first

    run(main())


@pytest.mark.parametrize(
    "decisive", [CommandDelayed("nobody knows"), ValueError("a bug"), Unwind()]
)
def test_what_is_no_refusal_decides_though_a_refusal_came_first(
    decisive: BaseException,
) -> None:
    runner = Recorder({"a": Refused("no"), "b": decisive, "c": Refused("no")})
    runner.seconds = {"a": 1, "b": 2}

    async def main() -> None:
        with pytest.raises(type(decisive)) as caught:
            await gathered(runner, "a", "b", "c")
        assert caught.value is decisive

    run(main())


def test_a_cancelled_gather_ends_at_once_and_leaves_the_calls_to_the_runner() -> None:
    runner = Recorder()
    runner.seconds = {"a": 5, "b": 5}

    async def main() -> None:
        workflow = workflow_of(runner)
        steps = [workflow.step(function).named(name) for name in ("b", "known")]
        task = asyncio.get_running_loop().create_task(workflow.gather(*steps))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert runner.performed == []

    run(main())
