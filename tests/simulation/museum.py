"""Bugs that others have shipped: each is planted, or it is said why it can't be.

What `Bug.museum` names is planted; the rest is here, and a bug of our own making that
no seed could show.
"""

from dataclasses import dataclass

__all__ = ["MUSEUM", "NOT_PLANTED", "Guard"]

MUSEUM = (
    "dbos #710",
    "dbos #716",
    "dbos #742",
    "dbos #804",
    "dbos #805",
    "dbos #546",
    "restate #5196",
    "restate #4839",
    "dtm #306",
    "dtm #272",
    "seata #5077",
    "seata #2861",
    "etcd #14370",
    "etcd #17780",
    "etcd #18089",
    "etcd #20418",
    "NATS 2.12.1",
    "Kafka, KIP-890",
    "bpo-42130",
    "CPython 3.12.1 streams",
    "ours: torn tail cut, not synced",
)


@dataclass(frozen=True)
class Guard:
    """Why a bug can't be planted in the simulation, and what keeps watch instead."""

    reason: str
    file: str
    test: str


NOT_PLANTED = {
    "etcd #20418": Guard(
        "stale reads after a pause: there is no lease that could pass meanwhile; the "
        "folder's lock lives as long as its process, and is looked at before anything "
        "is acknowledged (`make torture ONLY=freeze` stops real processes)",
        "tests/journals/test_fence.py",
        "test_nothing_is_acknowledged_once_the_lock_is_gone",
    ),
    "bpo-42130": Guard(
        "a cancel lost by `wait_for`: no code of ours calls it (a lint rule), and a "
        "cancel only wakes `exec`, whose next step asks what was decided; commands "
        "that catch every cancel (`Deaf`, `Stubborn`) are among the shapes",
        "tests/engine/test_odd_code.py",
        "test_a_loop_that_catches_everything_is_run_no_further",
    ),
    "CPython 3.12.1 streams": Guard(
        "a cancelled handler of a connection raises where nobody catches it: sockets "
        "are not simulated, and the server has protocols, not handlers of streams",
        "tests/cmdstream/test_tasks.py",
        "test_closing_the_server_cancels_the_tasks_and_waits_for_them",
    ),
    "a try is never given back": Guard(
        "nobody is kept waiting for good: it takes two services that are blocked at a "
        "time, tries are forgotten with the process, and in the last one, where all "
        "has to end, no service is blocked",
        "tests/test_admission.py",
        "test_a_try_that_is_over_is_free_for_another",
    ),
}
