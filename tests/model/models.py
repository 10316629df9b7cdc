"""What is explored: the protocol on each kind of log, within bounds.

The small bounds are part of every test run; the large ones are `make model`.
"""

from dataclasses import replace

from tests.model.explorer import Result, explore
from tests.model.locked import LockedLog, LockedState
from tests.model.rules import Rules, Transport
from tests.model.shared import SharedLog
from tests.model.state import State

__all__ = ["LARGE", "SMALL", "explored"]

_BOTH = (Transport.COMPARE, Transport.APPEND)

_PLAIN = Rules()
_IN_LOG = Rules(saves_in_log=True)
_IN_LOG_LOOKS_BETWEEN = Rules(saves_in_log=True, looks_between=True)
_LOOKS_BETWEEN = Rules(looks_between=True)
_TWO_IN_FLIGHT = Rules(in_flight=2)
_RESENDS = Rules(resends=True)
_RESENDS_PLAINLY = Rules(resends=True, idempotent=False)
_CLAIMS_ANYHOW = Rules(claims_expect=False)
_MESSAGE_IDS = Rules(message_ids=True)


def _small(log: Transport) -> dict[str, SharedLog]:
    one = SharedLog(transport=log, rules=_PLAIN, lives=1)
    return {
        "two batches": replace(one, writes=2),
        "no space": replace(one, writes=2, fulls=1),
        "looks between": replace(one, rules=_LOOKS_BETWEEN, writes=2),
        "two in flight, in order": replace(one, rules=_TWO_IN_FLIGHT, writes=2),
        "resends, no space": replace(one, rules=_RESENDS, resends=1, fulls=1),
        "resends, not idempotent": replace(one, rules=_RESENDS_PLAINLY, resends=2),
        "checkpoint in the log": replace(one, rules=_IN_LOG, saves=1),
        "checkpoint in the log, looks between": replace(
            one, rules=_IN_LOG_LOOKS_BETWEEN, saves=1
        ),
        "checkpoint beside the log": replace(one, saves=1),
    }


def _large(log: Transport) -> dict[str, SharedLog]:
    one = SharedLog(transport=log, rules=_PLAIN, lives=1)
    return {
        "two lives": replace(one, lives=2),
        "three owners": replace(one, owners=3),
        "two batches, resends, no space": replace(
            one, rules=_RESENDS, writes=2, resends=1, fulls=1
        ),
        "three batches, looks between, no space": replace(
            one, rules=_LOOKS_BETWEEN, writes=3, fulls=1
        ),
        "three batches, two in flight, no space": replace(
            one, rules=_TWO_IN_FLIGHT, writes=3, fulls=1
        ),
        "two batches, two checkpoints in the log": replace(
            one, rules=_IN_LOG_LOOKS_BETWEEN, writes=2, saves=2
        ),
        "two batches, checkpoint beside the log": replace(one, writes=2, saves=1),
        "two checkpoints beside the log": replace(one, saves=2),
    }


SMALL: dict[str, SharedLog | LockedLog] = {
    **{
        f"{log.value}: {name}": model
        for log in _BOTH
        for name, model in _small(log).items()
    },
    "compare-and-append: claims anyhow": SharedLog(
        transport=Transport.COMPARE, rules=_CLAIMS_ANYHOW, lives=1, writes=2
    ),
    "compare-and-append: message ids": SharedLog(
        transport=Transport.COMPARE, rules=_MESSAGE_IDS, lives=1, writes=2
    ),
    "exclusive lock: no space, power cut": LockedLog(fulls=1),
    "exclusive lock: checkpoint, power cut": LockedLog(lives=1, saves=1, fulls=1),
}

LARGE: dict[str, SharedLog | LockedLog] = {
    **{
        f"{log.value}: {name}": model
        for log in _BOTH
        for name, model in _large(log).items()
    },
    "compare-and-append: claims anyhow, two lives": SharedLog(
        transport=Transport.COMPARE, rules=_CLAIMS_ANYHOW, lives=2
    ),
    "exclusive lock: checkpoint, two lives, power cut": LockedLog(saves=1),
    "exclusive lock: three owners, two batches": LockedLog(
        owners=3, lives=1, writes=2, fulls=1
    ),
}


def explored(model: SharedLog | LockedLog) -> Result[State] | Result[LockedState]:
    """Explore a model of either kind."""
    match model:
        case SharedLog():
            return explore(model)
        case LockedLog():
            return explore(model)
