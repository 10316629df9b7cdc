"""What clients and operators were told: nothing that is not durable, nothing twice."""

from collections.abc import Callable
from typing import Any

import msgspec
from tests.simulation.durable import DurableWorkflow
from tests.simulation.effects import ENDS
from tests.simulation.history import Event

from coordinator.records import Accepted

__all__ = ["Told", "order_of"]


class Told:
    """Follows what people are told.

    Args:
        find: Returns a workflow by its id, as far as it is durable.
        violated: Called with the kind of a violation, and what is wrong.
    """

    def __init__(
        self,
        find: Callable[[str], DurableWorkflow | None],
        violated: Callable[[str, str], None],
    ) -> None:
        self._find = find
        self._violated = violated
        self._is_healed = False
        self._is_closed = False
        self._results: dict[str, tuple[str, Any]] = {}

    def submit_acked(self, event: Event) -> None:
        """A client was told the id of its order."""
        order, id_ = event.fields["order"], event.fields["workflow"]
        workflow = self._find(id_)
        if workflow is None:
            self._violated(
                "unaccepted",
                f"order {order} was acknowledged as workflow {id_}, which is not "
                f"durable in the journal",
            )
        elif order_of(workflow.accepted) != order:
            self._violated(
                "ghost",
                f"order {order} was acknowledged as workflow {id_}, which holds "
                f"{order_of(workflow.accepted)}",
            )

    def operator_done(self, event: Event) -> None:
        """An operator was told that it is done."""
        workflow = self._find(event.fields["workflow"])
        if workflow is None or event.fields["what"] != "cancel":
            return
        if not (workflow.cancelled or workflow.finished):
            self._violated(
                "early", f"{workflow.id} is cancelled, and that is not durable"
            )

    def healed(self, event: Event) -> None:
        """Nothing goes wrong any more."""
        self._is_healed = True

    def begin(self) -> None:
        """Another process begins."""
        self._is_closed = False

    def close(self) -> None:
        """The coordinator was closed."""
        self._is_closed = True

    def clients_left(self, event: Event) -> None:
        """So many clients wait at the end of a life."""
        waiting = event.fields["waiting"]
        if waiting and self._is_healed:
            self._violated(
                "unfinished", f"{waiting} clients wait, and all that there is has ended"
            )
        elif waiting and self._is_closed:
            self._violated(
                "unfinished", f"{waiting} clients wait, and the coordinator was closed"
            )

    def result_seen(self, event: Event) -> None:
        """A client was told how it ended."""
        id_, status = event.fields["workflow"], event.fields["status"]
        workflow = self._find(id_)
        if workflow is None:
            self._violated(
                "unaccepted", f"a client got a result of {id_}, not accepted"
            )
            return
        if status == "stuck":
            return  # No end; and a person may have resumed it since.
        finished = workflow.finished
        if finished is None:
            self._violated(
                "early",
                f"a client was told that workflow {id_} is {status}, and that is not "
                f"durable",
            )
            return
        seen = (status, event.fields["value"])
        if ENDS[finished.status] != status:
            self._violated(
                "changed",
                f"a client was told that workflow {id_} is {status}, the journal says "
                f"{ENDS[finished.status]}",
            )
        known = self._results.setdefault(id_, seen)
        if known != seen:
            self._violated(
                "changed",
                f"the result of workflow {id_} was {known} and is {seen} now",
            )
        if status == "completed":
            value = msgspec.msgpack.decode(finished.value)
            if value != event.fields["value"]:
                self._violated(
                    "changed",
                    f"a client got {event.fields['value']} from workflow {id_}, the "
                    f"journal says {value}",
                )


def order_of(accepted: Accepted) -> str:
    """Return which order a stored command names."""
    return str(msgspec.msgpack.decode(accepted.payload)["order"])
