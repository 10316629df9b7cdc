"""Bugs: each is one rule that is left out, and what that leads to."""

from dataclasses import dataclass

from tests.model.locked import LockedLog, LockRules
from tests.model.rules import Rules, Transport
from tests.model.shared import SharedLog

__all__ = ["BUGS", "Bug"]


@dataclass(frozen=True, kw_only=True)
class Bug:
    """One planted bug, in bounds that are enough to find it."""

    name: str
    model: SharedLog | LockedLog
    shows: str
    """How the violation begins."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"

    @property
    def kind(self) -> str:
        """The kind of log."""
        if isinstance(self.model, SharedLog):
            return self.model.transport.value
        return "exclusive lock"


LOST = "acknowledged, and read by nobody"
BEHIND = "an old owner's batch is valid behind a newer claim"
SAME_EPOCH = "two owners act under one epoch"
GAPS = "the positions of what is valid have gaps"
TWICE = "a batch is read twice"
NOT_WRITTEN = "said to be not written, and valid"
BEGINS = "the log begins at offset"
BY_CHECKPOINT = "by its checkpoint a reader finds"
GOES_BY = "A stands at position"
DAMAGE = "damage"


def _shared(
    name: str,
    rules: Rules,
    shows: str,
    *transports: Transport,
    writes: int = 1,
    saves: int = 0,
    resends: int = 0,
    fulls: int = 0,
) -> tuple[Bug, ...]:
    """Plant it on both kinds of shared log, or on those that are named."""
    return tuple(
        Bug(
            name=name,
            model=SharedLog(
                transport=transport,
                rules=rules,
                lives=1,
                writes=writes,
                saves=saves,
                resends=resends,
                fulls=fulls,
            ),
            shows=shows,
        )
        for transport in transports or (Transport.COMPARE, Transport.APPEND)
    )


def _locked(
    name: str, rules: LockRules, shows: str, *, saves: int = 0, fulls: int = 0
) -> Bug:
    return Bug(
        name=name, model=LockedLog(rules=rules, saves=saves, fulls=fulls), shows=shows
    )


_COMPARE, _APPEND = Transport.COMPARE, Transport.APPEND

BUGS: tuple[Bug, ...] = (
    # The claim.
    *_shared("the epoch is not raised", Rules(raises_epoch=False), SAME_EPOCH),
    *_shared(
        "the claim is not read up to",
        Rules(reads_to_own_claim=False),
        SAME_EPOCH,
        _APPEND,
    ),
    *_shared(
        "a claim that looks like mine is mine",
        Rules(claims_are_unique=False),
        SAME_EPOCH,
        _APPEND,
    ),
    *_shared(
        "a newer owner's checkpoint is not obeyed",
        Rules(obeys_newer_checkpoint=False),
        GOES_BY,
        saves=1,
    ),
    # The writer.
    *_shared(
        "acknowledged before the contiguity check",
        Rules(contiguous=False),
        LOST,
        _APPEND,
    ),
    *_shared(
        "two writes in flight, each for itself",
        Rules(in_flight=2, in_order=False),
        LOST,
        writes=2,
    ),
    *_shared(
        "looks between, with two writes in flight",
        Rules(in_flight=2, looks_between=True),
        LOST,
        _APPEND,
        writes=2,
    ),
    *_shared(
        "who was fenced goes on",
        Rules(dies_when_fenced=False),
        LOST,
        writes=2,
    ),
    *_shared(
        "a duplicate is taken for an acknowledgement",
        Rules(message_ids=True, takes_duplicates=True),
        LOST,
        _COMPARE,
    ),
    *_shared(
        "the last sequence is where mine would be, so it is mine",
        Rules(takes_refusal_for_ours=True),
        LOST,
        _COMPARE,
    ),
    *_shared(
        "tried again in the backend, and the second answer believed",
        Rules(resends=True, trusts_refusal_of_resent=True),
        NOT_WRITTEN,
        resends=1,
        fulls=1,
    ),
    # The reader.
    *_shared(
        "two claims of one epoch are both valid",
        Rules(compares_first=False, compares_crc=False),
        GAPS,
        _APPEND,
    ),
    *_shared(
        "no epoch filter, and crcs say nothing",
        Rules(compares_epoch=False, compares_crc=False, in_flight=2),
        BEHIND,
        writes=2,
    ),
    *_shared(
        "what was sent twice is read twice",
        Rules(compares_first=False, compares_crc=False, resends=True, idempotent=False),
        TWICE,
        _APPEND,
        resends=1,
    ),
    # Checkpoint and trim.
    *_shared(
        "the save in the log is not fenced",
        Rules(saves_in_log=True, fences_saves=False),
        BEGINS,
        saves=1,
    ),
    *_shared(
        "trimmed before the checkpoint in the log is acknowledged",
        Rules(saves_in_log=True, trims_behind_save=False),
        BEGINS,
        saves=1,
    ),
    *_shared(
        "the save beside the log is not fenced",
        Rules(fences_saves=False),
        BEGINS,
        saves=1,
    ),
    *_shared(
        "the checkpoint knows what is not durable",
        Rules(saves_what_is_acknowledged=False),
        BY_CHECKPOINT,
        saves=1,
    ),
    *_shared(
        "trimmed before the checkpoint beside the log is durable",
        Rules(trims_behind_save=False),
        BEGINS,
        saves=1,
    ),
    *_shared(
        "all other checkpoints are removed",
        Rules(removes_only_older=False),
        BEGINS,
        _APPEND,
        saves=1,
    ),
    *_shared(
        "a reader does not notice that its beginning is trimmed",
        Rules(notices_gap=False),
        SAME_EPOCH,
        saves=1,
    ),
    *_shared(
        "who recovers reads what is left, and takes it for all",
        Rules(saves_in_log=True, recovers_all=False),
        GOES_BY,
        saves=1,
    ),
    *_shared(
        "a reader begins by the oldest entry kept",
        Rules(begins_by_checkpoint=False),
        BY_CHECKPOINT,
        _APPEND,
        saves=1,
    ),
    # Files.
    _locked("no lock", LockRules(locks=False), DAMAGE),
    _locked(
        "the lock is given up while a write is under way",
        LockRules(closes_behind_writes=False),
        DAMAGE,
    ),
    _locked("acknowledged before it is synced", LockRules(syncs_writes=False), LOST),
    _locked(
        "the claim is not synced",
        LockRules(syncs_claim=False),
        BY_CHECKPOINT,
        saves=1,
    ),
    _locked(
        "what did not fit is left there",
        LockRules(cuts_what_did_not_fit=False),
        NOT_WRITTEN,
        fulls=1,
    ),
    _locked(
        "trimmed before the checkpoint is synced",
        LockRules(syncs_checkpoint=False),
        BEGINS,
        saves=1,
    ),
)
