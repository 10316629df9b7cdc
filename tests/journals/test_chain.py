"""Which batches count, whoever else wrote among them."""

import random

from hypothesis import given
from hypothesis import strategies as st

from coordinator.batch import Batch, encode_batch
from coordinator.journals.chain import Chain, Verdict
from coordinator.journals.handle import encode_claim
from coordinator.records import Resumed, encode_record


def batch(epoch: int, first: int, previous_crc: int, text: str = "x") -> Batch:
    record = encode_record(Resumed(0, text, 1))
    return encode_batch([record], epoch=epoch, first=first, previous_crc=previous_crc)


def test_a_chain_begins_with_nothing() -> None:
    chain = Chain()
    assert (chain.epoch, chain.end, chain.crc) == (0, 0, 0)
    claim = encode_claim(chain, owner="x", at=1)
    assert chain.take(claim) is Verdict.NEXT
    assert (chain.epoch, chain.end, chain.crc) == (1, 1, claim.crc)


def test_an_older_epoch_behind_a_newer_claim_is_stale_and_counts_for_nothing() -> None:
    chain = Chain()
    chain.take(encode_claim(chain, owner="old", at=1))
    late = batch(1, chain.end, chain.crc)
    chain.take(encode_claim(chain, owner="new", at=2))
    after = batch(2, chain.end, chain.crc)
    assert chain.take(late) is Verdict.STALE
    assert chain.take(after) is Verdict.NEXT


def test_a_claim_that_lost_the_race_is_unchained_and_its_epoch_does_not_count() -> None:
    chain = Chain()
    winner = encode_claim(chain, owner="winner", at=1)
    loser = encode_claim(chain, owner="loser", at=1)
    assert chain.take(winner) is Verdict.NEXT
    assert chain.take(loser) is Verdict.UNCHAINED
    assert chain.epoch == 1
    assert chain.take(batch(1, chain.end, chain.crc)) is Verdict.NEXT


def test_another_position_or_another_crc_is_unchained() -> None:
    chain = Chain(epoch=3, end=10, crc=7)
    assert chain.take(batch(3, 11, 7)) is Verdict.UNCHAINED
    assert chain.take(batch(3, 10, 8)) is Verdict.UNCHAINED
    assert chain.take(batch(4, 10, 7)) is Verdict.NEXT


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_an_acknowledged_batch_stays_whoever_claims_and_whatever_comes_late(
    seed: int, steps: int
) -> None:
    """Owners write one batch at a time, and notice when it did not land behind theirs.

    A log that everybody may append to, and that tells each writer where it landed.
    """
    chance = random.Random(seed)
    log: list[Batch] = []
    acknowledged: list[Batch] = []
    owners: list[tuple[Chain, int]] = []
    for number in range(steps):
        if not owners or chance.random() < 0.3:
            chain = Chain()
            seen = len(log)
            for entry in log:
                chain.take(entry)
            sent = encode_claim(chain, owner=f"{number}", at=1)
        else:
            chain, seen = owners.pop(chance.randrange(len(owners)))
            sent = batch(chain.epoch, chain.end, chain.crc, f"{number}")
        for _ in range(chance.choice([0, 0, 0, 1])):  # Somebody else was quicker.
            other = Chain()
            for entry in log:
                other.take(entry)
            log.append(encode_claim(other, owner="quick", at=1))
        log.append(sent)
        if len(log) - 1 == seen:
            acknowledged.append(sent)
            chain.take(sent)
            owners.append((chain, len(log)))
    reader = Chain()
    valid = [entry for entry in log if reader.take(entry) is Verdict.NEXT]
    assert [entry for entry in valid if entry in acknowledged] == acknowledged
