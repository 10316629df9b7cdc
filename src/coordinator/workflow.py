"""What `exec` sees: the workflow and its steps.

    held = await workflow.step(shop.inventory.reserve, sku).undo(shop.inventory.release)

`Workflow` and `Step` hold what was asked for; `execution.Execution` does it.
"""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

import msgspec

from coordinator.errors import CommandTypeError, Refused
from coordinator.model import (
    OutcomeStatus,
    Retry,
    StepId,
    WorkflowId,
    service_of,
)
from coordinator.values import return_type, storable

__all__ = [
    "Callee",
    "Command",
    "Names",
    "RecordedOutcome",
    "Runner",
    "Step",
    "Workflow",
]

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
ReceiverT_contra = TypeVar("ReceiverT_contra", contravariant=True)
ResultT_co = TypeVar("ResultT_co", covariant=True)


class Command(Protocol[ReceiverT_contra, ResultT_co]):
    """A workflow: any dataclass, msgspec Struct or Pydantic model with an `exec`.

    It may define ``def key(self) -> str``: submitting an equal key again attaches to
    the workflow that exists. It may declare ``services = {"payments", ...}``: then only
    the suspension of one of these keeps it out.
    """

    async def exec(
        self, workflow: "Workflow", receiver: ReceiverT_contra, /
    ) -> ResultT_co:
        """Call the services through *workflow*, and return the result."""
        ...


class RecordedOutcome(msgspec.Struct, frozen=True):
    """One recorded outcome, as `Workflow.outcomes` shows it."""

    service: str
    step: str
    occurrence: int
    status: OutcomeStatus
    value: Any
    """Plain values: the outcome as stored, without its type."""


class Callee(msgspec.Struct, frozen=True):
    """What is known of a function before it is called."""

    first: StepId
    """That of the first step which calls it: ``service.operation``, 0."""
    is_named: bool
    """False for a lambda, whose name is that of every other one."""
    is_async: bool
    returns: Any
    """The declared type of what it returns; `Any` if none is declared."""

    @property
    def name(self) -> str:
        """``service.operation``."""
        return self.first.name


class Names:
    """Names the functions that steps call, and remembers what it found out.

    A bound method is named after its gateway: by its ``service_name``, or by the
    attribute of the receiver that it is, so that ``shop.payments.charge`` is
    ``payments.charge``. Any other function is named as it is written.
    """

    def __init__(self, receiver: object) -> None:
        self.known: dict[Callable[..., Any], Callee] = {}
        """What was found out of functions that live as long as the receiver, and that
        may be steps. A bound method is equal to another of the same function and the
        same object (not: an equal one), so it need not be the one that was kept."""
        self._results: dict[type[Any], Any] = {}
        # The objects are kept, so that no id is used a second time.
        self._gateways = list(_attributes(receiver))
        self._services = {id(value): name for name, value in reversed(self._gateways)}

    def of(self, function: Callable[..., Any]) -> Callee:
        """Return what is known of *function*.

        Raises:
            CommandTypeError: It can't be called.
        """
        try:
            callee = self.known.get(function)
        except TypeError:  # not hashable: a callable object that defines __eq__
            return self._find(function)
        if callee is None:
            callee = self._find(function)
            # Others would pile up.
            owner = getattr(function, "__self__", None)
            lasting = (
                "<locals>" not in getattr(function, "__qualname__", "<locals>")
                if owner is None
                else id(owner) in self._services
            )
            if lasting and callee.is_named:
                self.known[function] = callee
        return callee

    def result_type(self, command: Any) -> Any:
        """Return what `exec` of *command* declares; its class is a registered one."""
        try:
            return self._results[command.__class__]
        except KeyError:
            type_ = return_type(command.__class__.exec)
            self._results[command.__class__] = type_
            return type_

    def _find(self, function: Callable[..., Any]) -> Callee:
        if not callable(function):
            raise CommandTypeError(
                f"{function!r} can't be a step, it can't be called: pass the function "
                f"and its arguments, as in workflow.step(shop.charge, order)"
            )
        bare = function
        while isinstance(bare, functools.partial):
            bare = bare.func
        owner = getattr(bare, "__self__", None)
        qualified = getattr(bare, "__qualname__", type(bare).__qualname__)
        name = qualified.rpartition("<locals>.")[2]
        if owner is not None:
            service = getattr(owner, "service_name", None) or self._services.get(
                id(owner)
            )
            if service:
                name = f"{service}.{getattr(bare, '__name__', 'call')}"
        is_async = inspect.iscoroutinefunction(bare) or inspect.iscoroutinefunction(
            getattr(bare, "__call__", None)  # noqa: B004 -- its kind matters, not that it is
        )
        is_named = not name.endswith("<lambda>")
        return Callee(StepId(name, 0), is_named, is_async, return_type(function))


def _attributes(receiver: object) -> Iterator[tuple[str, object]]:
    """Yield the attributes of *receiver*: its own, its class's, then the bases'."""
    yield from getattr(receiver, "__dict__", {}).items()
    for class_ in type(receiver).__mro__:
        for name, value in vars(class_).items():
            if inspect.ismemberdescriptor(value):  # a slot, or a field of a Struct
                if hasattr(receiver, name):
                    yield name, getattr(receiver, name)
            elif not name.startswith("__"):
                yield name, value


class Runner(Protocol):
    """What a `Workflow` needs of whoever runs it."""

    def number(self, first: StepId) -> StepId:
        """Return the identity of the next step of the name of *first*."""
        ...

    def renumber(self, step: StepId, name: str) -> StepId:
        """Give a step that was just numbered another name."""
        ...

    def perform(self, step: "Step[T]") -> Generator[Any, Any, T]:
        """Replay, call or unwind *step*, for whoever awaits it."""
        ...

    def start(self, step: "Step[T]") -> Awaitable[T]:
        """Ask for *step* now; what is returned is to be awaited for its outcome."""
        ...

    async def append_outcome(self, service: str, value: object) -> None:
        """Record *value*."""
        ...

    def outcomes(self) -> tuple[RecordedOutcome, ...]:
        """Return what is recorded, in order."""
        ...


class Step(msgspec.Struct, Generic[T], eq=False):
    """A step that was asked for; awaiting it gives its outcome.

    The refinements return the step itself.

    Raises:
        RuntimeError: A refinement comes after the await, when it can't count any more.
    """

    _runner: Runner
    callee: Callee
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    id: StepId
    undo_function: Callable[..., Any] | None = None
    retry_policy: Retry | None = None
    timeout_s: float | None = None
    service_name: str = ""
    """As given; see `service`."""
    _asked: bool = False

    def undo(
        self, function: Callable[[T], Awaitable[object]] | Callable[[T], object]
    ) -> "Step[T]":
        """Call *function* with the step's outcome if the workflow turns back."""
        self._refine()
        self.undo_function = function
        return self

    def named(self, name: str, *, key: str | None = None) -> "Step[T]":
        """Name the step; *key* tells steps of one name that run at once apart.

        Raises:
            ValueError: The name is empty or contains ``[``, which marks the key; or it
                has a character that can't be stored.
        """
        self._refine()
        if not name or "[" in name:
            raise ValueError(
                f"a step's name must be like service.operation, got {name!r}"
            )
        full = name if key is None else f"{name}[{key}]"
        if storable(full) != full:
            raise ValueError(
                f"a step's name must be text that can be stored, got {full!r}: it has "
                f"a lone surrogate"
            )
        self.id = self._runner.renumber(self.id, full)
        return self

    def retry(self, policy: Retry) -> "Step[T]":
        """Try again after *policy* instead of the coordinator's own."""
        self._refine()
        self.retry_policy = policy
        return self

    def timeout(self, seconds: float) -> "Step[T]":
        """Give an attempt up after *seconds*: nobody knows then, so it is repeated.

        Raises:
            ValueError: *seconds* is not more than 0.
        """
        self._refine()
        if not seconds > 0:
            raise ValueError(f"a step needs a time-out of more than 0 s, got {seconds}")
        self.timeout_s = seconds
        return self

    def service(self, name: str) -> "Step[T]":
        """Say which service the step calls, where its name does not."""
        self._refine()
        self.service_name = name
        return self

    def _refine(self) -> None:
        if self._asked:
            raise RuntimeError(
                f"step {self.id} is under way: what refines it comes before its await"
            )

    @property
    def service_called(self) -> str:
        """The service that the step calls."""
        return self.service_name or service_of(self.id.name)

    @property
    def service_to_record(self) -> str:
        """That service, or "" where the step's name says it."""
        service = self.service_name
        return service if service and service != service_of(self.id.name) else ""

    def __await__(self) -> Generator[Any, Any, T]:
        """Return what the service returned, now or in an earlier run.

        Raises:
            Refused: The service did not do it.
            CommandDelayed: Nobody knows. This run of `exec` is over; it runs again.
        """
        self._asked = True
        return self._runner.perform(self)


class Workflow:
    """The running workflow, as `exec` sees it."""

    __slots__ = ("_known", "_names", "_runner", "id", "key")

    def __init__(self, runner: Runner, names: Names, id_: WorkflowId, key: str) -> None:
        self._runner = runner
        self._names = names
        self._known = names.known
        self.id = id_
        """``partition-position``: the same in every run, never used twice."""
        self.key = key
        """The command's own key; empty if it has none."""

    @overload
    def step(
        self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Step[T]: ...
    @overload
    def step(
        self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Step[T]: ...
    def step(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Step[Any]:
        """Ask for a step: one call of a service, whose outcome is recorded.

        The step's name and how many of that name were asked for before identify it for
        ever; `exec` may otherwise do what it likes from run to run.

        Args:
            fn: ``async def``, or plain ``def``, which runs in a thread.
            args: For *fn*. They are not recorded.
            kwargs: For *fn*.

        Raises:
            CommandTypeError: *fn* is a lambda, which has no name, or it can't be
                called: ``step(f, x)`` is meant, not ``step(f(x))``.
        """
        runner = self._runner
        try:
            callee = self._known[fn]
        except (KeyError, TypeError):  # TypeError: it is not hashable
            callee = self._names.of(fn)
            if not callee.is_named:
                raise CommandTypeError(
                    "a lambda can't be a step, its name would be that of every other "
                    "one; write a function, or pass the arguments to step()"
                ) from None
        return Step(runner, callee, fn, args, kwargs, runner.number(callee.first))

    @overload
    async def gather(self, a: Step[A], b: Step[B], /) -> tuple[A, B]: ...
    @overload
    async def gather(self, a: Step[A], b: Step[B], c: Step[C], /) -> tuple[A, B, C]: ...
    @overload
    async def gather(
        self, a: Step[A], b: Step[B], c: Step[C], d: Step[D], /
    ) -> tuple[A, B, C, D]: ...
    @overload
    async def gather(self, *steps: Step[T]) -> tuple[T, ...]: ...
    async def gather(self, *steps: Step[Any]) -> tuple[Any, ...]:
        """Perform *steps* at the same time, and return all their outcomes.

        Waits for every one of them, also when one is refused: none is left in flight.

        Raises:
            Refused: One or more were refused; the first in the order of *steps*.
            CommandDelayed: Of one or more nobody knows.
        """
        waiting = [self._runner.start(step) for step in steps]
        results: list[Any] = []
        errors: list[BaseException] = []
        for outcome in waiting:
            try:
                results.append(await outcome)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 -- raised below
                errors.append(error)
        if errors:
            # What is no refusal decides how the run ends, so it goes first.
            errors.sort(key=lambda error: isinstance(error, Refused))
            raise errors[0]
        return tuple(results)

    @property
    def outcomes(self) -> tuple[RecordedOutcome, ...]:
        """What is recorded of this workflow, in order."""
        return self._runner.outcomes()

    async def append_outcome(self, service: str, value: object) -> None:
        """Record *value* as an outcome of *service*; durable on return.

        The primitive below `step`: it always appends, so a re-run has to look at
        `outcomes` first. Nothing undoes it.

        Raises:
            EncodeError: *value* can't be stored.
        """
        await self._runner.append_outcome(service, value)
