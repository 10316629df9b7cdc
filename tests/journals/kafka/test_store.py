"""Claims, writes, checkpoints and trims, whatever others put in between."""

import functools
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.journals.kafka.fake import (
    IDENTITY,
    PLACE,
    FakeTopic,
    encoded,
    next_batch,
    opened,
    write,
)

from coordinator.batch import Batch, encode_batch
from coordinator.errors import (
    FencedError,
    JournalBrokenError,
    JournalDamagedError,
    JournalError,
    JournalFormatError,
    JournalLockedError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.journals.handle import encode_claim
from coordinator.journals.kafka import store as store_module
from coordinator.journals.kafka.messages import Identity, encode_founding
from coordinator.journals.kafka.store import CLAIMS_MAX, Store
from coordinator.model import Position
from coordinator.records import Claimed, Resumed

LOST = UncertainError("nobody knows")


def texts(batches: Iterable[Batch]) -> list[str]:
    return [
        record.by
        for batch in batches
        for _, record in batch.records()
        if isinstance(record, Resumed)
    ]


def owners(batches: Iterable[Batch]) -> list[tuple[int, str]]:
    return [
        (record.epoch, record.owner)
        for batch in batches
        for _, record in batch.records()
        if isinstance(record, Claimed)
    ]


def everything(topic: FakeTopic) -> list[str]:
    return texts(opened(topic).read(0))


def save(store: Store, low: int, data: bytes) -> None:
    for _ in store.save(Position(low), data):
        pass


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHUNK_SIZE", 4)


class TestClaim:
    def test_the_old_owner_is_fenced_by_the_claim_and_told_whose_it_is(self) -> None:
        topic = FakeTopic()
        old = opened(topic, "old")
        write(old, "before")
        new = opened(topic, "new")
        write(new, "behind")
        with pytest.raises(
            FencedError,
            match="new claimed partition 0 of topic orders "
            "under epoch 2, at offset 2; ours is 1",
        ):
            write(old, "void")
        assert everything(topic) == ["before", "behind"]

    def test_who_was_fenced_sends_nothing_more(self) -> None:
        topic = FakeTopic()
        old = opened(topic)
        opened(topic)
        with pytest.raises(FencedError):
            write(old, "void")
        sent = len(topic.messages)
        with pytest.raises(UncertainError):
            write(old, "void")
        with pytest.raises(JournalBrokenError):
            save(old, 0, b"x")
        assert len(topic.messages) == sent

    def test_a_batch_that_was_under_way_comes_first_and_the_claim_is_made_anew(
        self,
    ) -> None:
        topic = FakeTopic()
        old = opened(topic, "old")
        new = Store(topic, PLACE)
        topic.before = [lambda: write(old, "just in time")]
        new.open("new", 1)
        write(new, "behind")
        assert texts(opened(topic).read(0)) == ["just in time", "behind"]
        # The first claim was void, and would have stopped the old owner all the same.
        with pytest.raises(FencedError, match="new claimed"):
            write(old, "void")

    def test_of_two_that_claim_at_once_the_first_in_the_log_has_it(self) -> None:
        topic = FakeTopic()
        one, other = Store(topic, PLACE), Store(topic, PLACE)
        topic.before = [lambda: other.open("other", 1)]
        one.open("one", 1)
        assert owners(one.read(0)) == [(1, "other"), (2, "one")]
        with pytest.raises(FencedError):
            write(other, "void")
        write(one, "valid")

    def test_equal_claims_are_told_apart_by_where_they_lie(self) -> None:
        topic = FakeTopic()
        claim = encoded(
            encode_claim(Store(topic, PLACE)._scan().fold().chain, owner="twin", at=1)
        )
        topic.before = [lambda: topic.put(claim)]
        store = Store(topic, PLACE)
        assert store.open("twin", 1).epoch == 2

    def test_who_is_always_second_gives_up_and_names_the_first(self) -> None:
        topic = FakeTopic()
        topic.before = [
            step
            for _ in range(CLAIMS_MAX)
            for step in (lambda: opened(topic, "quicker"), lambda: None)
        ]
        with pytest.raises(JournalLockedError, match="in use by others, the last"):
            opened(topic, "slow")

    def test_a_claim_nobody_knows_of_is_an_error_and_void_when_it_turns_up(
        self,
    ) -> None:
        topic = FakeTopic()
        old = opened(topic, "old")
        topic.failures = [(LOST, False)]
        with pytest.raises(JournalBrokenError, match="can't claim partition 0"):
            opened(topic, "new")
        write(old, "goes on")
        topic.put(topic.unheard.pop())
        with pytest.raises(FencedError, match="new claimed"):
            write(old, "durable, and not acknowledged")
        assert everything(topic) == ["goes on", "durable, and not acknowledged"]

    def test_a_batch_in_doubt_counts_if_it_lies_before_the_next_claim(self) -> None:
        topic = FakeTopic()
        topic.failures = []
        store = opened(topic)
        topic.failures = [(LOST, True)]
        with pytest.raises(UncertainError):
            write(store, "landed")
        assert everything(topic) == ["landed"]

    def test_and_is_void_behind_it(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        topic.failures = [(LOST, False)]
        with pytest.raises(UncertainError):
            write(store, "late")
        again = opened(topic)
        topic.put(topic.unheard.pop())
        write(again, "valid")
        assert everything(topic) == ["valid"]

    def test_a_partition_that_was_made_anew_is_noticed(self) -> None:
        topic = FakeTopic()
        write(opened(topic), "x")
        topic.before = [topic.messages.clear]
        with pytest.raises(JournalBrokenError, match="went back"):
            opened(topic)

    def test_it_is_read_again_if_it_is_trimmed_meanwhile(self) -> None:
        topic = FakeTopic()
        old = opened(topic)
        write(old, "1")
        save(old, 2, b"saved")
        topic.reading = [lambda: old.trim(2)]
        new = opened(topic)
        assert texts(new.read(0)) == []
        assert new.load_checkpoint() == b"saved"

    def test_also_behind_its_claim(self) -> None:
        topic = FakeTopic()
        old = opened(topic)

        def on_it_goes() -> None:
            write(old, "1")
            save(old, 2, b"saved")
            old.trim(2)

        topic.before = [on_it_goes]
        new = opened(topic, "new")
        assert owners(new.read(0)) == [(2, "new")]
        assert new.load_checkpoint() == b"saved"

    def test_what_is_trimmed_all_the_time_is_not_opened(self) -> None:
        topic = FakeTopic()
        write(opened(topic), "1")

        def trim() -> None:
            topic.put(b"stranger")
            topic.start = len(topic.messages) - 1

        topic.reading = [trim] * CLAIMS_MAX
        with pytest.raises(JournalUnavailableError, match="quicker than it is read"):
            opened(topic)


class TestBetween:
    def test_strangers_are_passed_over_and_told_once(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        topic.put(b"hello?")
        topic.put(encoded(next_batch(store, "x"), Identity(b"o" * 16, 0, 1)))
        topic.put(encoded(next_batch(store, "x"), Identity(IDENTITY.journal_id, 1, 2)))
        write(store, "valid")
        told = store.tell()
        assert "someone else writes to partition 0 of topic orders: 3 of" in told
        assert "at offset 1: it was not written by a coordinator" in told
        assert store.tell() == ""
        again = opened(topic)
        assert texts(again.read(0)) == ["valid"]
        assert again.tell() == told

    def test_so_are_markers_that_nobody_sees(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        topic.put(b"")
        write(store, "valid")
        assert store.tell() == ""

    def test_stragglers_of_older_owners_leave_it_ours(self) -> None:
        topic = FakeTopic()
        old = opened(topic)
        stale = encoded(next_batch(old, "stale"))
        store = opened(topic)
        topic.put(stale)
        topic.put(encode_founding(Identity(b"o" * 16, 0, 1)))
        write(store, "valid")
        topic.put(
            encoded(next_batch(store, "x"))
        )  # as if sent twice: it does not chain
        topic.messages[-1] = topic.messages[-2]
        write(store, "on it goes")
        assert everything(topic) == ["valid", "on it goes"]

    def test_a_newer_format_is_a_newer_owner(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        newer = bytearray(encoded(next_batch(store, "x")))
        newer[4] = 2
        topic.put(bytes(newer))
        with pytest.raises(FencedError, match="a newer version writes to partition 0"):
            write(store, "void")
        with pytest.raises(JournalFormatError, match="offset 1 of partition 0"):
            opened(topic)

    def test_a_checkpoint_of_a_newer_owner_fences_too(self) -> None:
        topic = FakeTopic()
        old = opened(topic)
        new = opened(topic)
        save(new, 2, b"newer")
        del topic.messages[1]  # its claim
        with pytest.raises(FencedError, match="somebody claimed"):
            write(old, "void")

    def test_one_that_makes_no_sense_is_never_passed(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        topic.put(encoded(next_batch(store, "x"))[:-1])
        with pytest.raises(JournalBrokenError, match="is damaged at offset 1"):
            write(store, "void")

    def test_a_newer_owner_whose_records_are_of_no_known_kind_fences(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        unknown = encode_batch([b"\xc1"], epoch=2, first=1, previous_crc=0)
        topic.put(encoded(unknown))
        with pytest.raises(FencedError, match="somebody claimed"):
            write(store, "void")

    @pytest.mark.parametrize("lost", [1, 2])
    def test_a_log_that_went_back_is_broken(self, lost: int) -> None:
        topic = FakeTopic()
        store = opened(topic)
        write(store, "1")
        write(store, "2")
        del topic.messages[-lost:]
        with pytest.raises(JournalBrokenError, match="what was acknowledged is gone"):
            write(store, "3")

    def test_what_is_not_where_it_should_be_is_in_doubt(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        batch = next_batch(store, "x")
        topic.put(b"stranger")

        def replace() -> None:
            topic.messages[-1] = b"stranger"

        topic.reading = [replace]
        with pytest.raises(UncertainError, match="does not hold at offset 2"):
            store.append(batch)

    def test_what_is_trimmed_under_our_hands_is_broken(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        topic.put(b"stranger")

        def trim() -> None:
            topic.start = 2

        topic.reading = [trim]
        with pytest.raises(JournalBrokenError, match="was trimmed while it was read"):
            write(store, "x")
        for call in (lambda: list(store.read(0)), lambda: everything(topic)):
            with pytest.raises(JournalError):
                call()


@pytest.mark.usefixtures("small_chunks")
class TestCheckpoint:
    def test_batches_get_in_between_its_chunks(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        steps = store.save(Position(1), b"0123456789")
        for text in "ab":
            next(steps)
            write(store, text)
        assert store.load_checkpoint() is None
        assert [*steps] == [None]
        for one in (store, opened(topic)):
            assert one.load_checkpoint() == b"0123456789"
            assert texts(one.read(0)) == ([] if one is store else ["a", "b"])

    def test_one_that_was_left_stores_nothing(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        save(store, 0, b"the old one")
        next(store.save(Position(0), b"the new one"))
        for one in (store, opened(topic)):
            assert one.load_checkpoint() == b"the old one"

    def test_that_of_a_paused_owner_is_fenced_at_the_next_chunk(self) -> None:
        topic = FakeTopic()
        old = opened(topic)
        write(old, "1")
        steps = old.save(Position(2), b"0123456789")
        next(steps)
        new = opened(topic, "new")
        save(new, 1, b"of the new one")
        with pytest.raises(FencedError, match="new claimed"):
            next(steps)
        old.trim(2)
        assert topic.start == 0
        assert opened(topic).load_checkpoint() == b"of the new one"

    def test_a_commit_behind_a_newer_claim_does_no_harm(self) -> None:
        topic = FakeTopic()
        old = opened(topic)
        write(old, "1")
        topic.before = [functools.partial(opened, topic)]
        with pytest.raises(FencedError):
            save(old, 2, b"")
        old.trim(2)
        assert topic.start == 0
        store = opened(topic)
        assert store.load_checkpoint() == b""
        assert store._mine().chain.end == 4
        save(store, 1, b"newer")
        assert opened(topic).load_checkpoint() == b"newer"

    def test_one_that_may_have_landed_is_broken_and_the_old_or_the_new(self) -> None:
        for lands in (False, True):
            topic = FakeTopic()
            store = opened(topic)
            save(store, 0, b"old")
            topic.failures = [(LOST, lands)]
            with pytest.raises(JournalBrokenError, match="is stored: nobody knows"):
                save(store, 0, b"")
            assert opened(topic).load_checkpoint() == (b"" if lands else b"old")

    def test_damage_is_seen(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        save(store, 0, b"01234567")
        del topic.messages[2]
        with pytest.raises(JournalDamagedError, match="found are 4 with"):
            opened(topic).load_checkpoint()

    def test_a_chunk_that_came_twice_counts_once(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        steps = store.save(Position(0), b"01234567")
        next(steps)
        topic.put(topic.messages[-1])
        assert [*steps] == [None]
        assert opened(topic).load_checkpoint() == b"01234567"

    def test_one_that_is_gone_is_told(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        save(store, 0, b"01234567")
        topic.start = 3
        with pytest.raises(JournalBrokenError, match="was trimmed while it was read"):
            store.load_checkpoint()
        with pytest.raises(JournalBrokenError, match="was trimmed while it was read"):
            list(store.read(0))


class TestTrim:
    def test_it_keeps_what_the_stored_checkpoint_needs(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        for n in range(10):
            write(store, str(n))
        store.trim(11)
        assert topic.start == 0
        save(store, 5, b"saved")
        store.trim(4)
        assert topic.start == 0
        store.trim(5)
        assert topic.start == 5
        assert texts(opened(topic).read(0)) == list("456789")

    def test_a_void_batch_may_be_the_first_that_is_left(self) -> None:
        topic = FakeTopic()
        old = opened(topic)
        stale = encoded(next_batch(old, "stale"))
        store = opened(topic)
        topic.put(stale)
        save(store, 2, b"")
        write(store, "valid")
        store.trim(2)
        assert topic.start == topic.messages.index(stale)
        assert everything(topic) == ["valid"]

    def test_chunks_with_batches_between_them_are_kept(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        steps = store.save(Position(1), b"x")
        next(steps)
        write(store, "behind")
        assert [*steps] == []
        store.trim(1)
        assert topic.start == 1
        again = opened(topic)
        assert again.load_checkpoint() == b"x"
        assert texts(again.read(0)) == ["behind"]

    def test_what_a_broker_refuses_is_told(self) -> None:
        topic = FakeTopic()
        store = opened(topic)
        save(store, 1, b"")
        topic.deletion = JournalUnavailableError("no right")
        with pytest.raises(JournalUnavailableError):
            store.trim(1)

    def test_a_trim_that_comes_late_takes_nothing_from_the_newer_owner(self) -> None:
        topic = FakeTopic()
        old = opened(topic)
        write(old, "1")
        save(old, 2, b"of the old")
        new = opened(topic)
        write(new, "2")
        save(new, 2, b"of the new")
        old.trim(2)
        found = opened(topic)
        assert found.load_checkpoint() == b"of the new"
        assert texts(found.read(0)) == ["2"]
        new.trim(2)
        assert texts(opened(topic).read(0)) == ["2"]


def test_closing_lets_go_of_the_topic() -> None:
    topic = FakeTopic()
    opened(topic).close()
    assert topic.closed


class Race:
    """Owners that come and go over one partition, and what was told of each write."""

    def __init__(self) -> None:
        self.topic = FakeTopic()
        self.stores: list[Store] = []
        self.sent = 0
        self.acknowledged: list[str] = []

    def step(self, what: str, which: int) -> None:
        if what == "open" or not self.stores:
            self.stores.append(opened(self.topic, f"owner {len(self.stores)}"))
            return
        store = self.stores[which % len(self.stores)]
        with suppress(JournalError):
            self._do(what, store)

    def _do(self, what: str, store: Store) -> None:
        topic = self.topic
        match what:
            case "write":
                self._write(store)
            case "lost":
                topic.failures = [(LOST, False)]
                try:
                    self._write(store)
                finally:
                    topic.failures = []
            case "lands":
                if topic.unheard:
                    topic.put(topic.unheard.pop(0))
            case "overtaken":
                topic.before = [lambda: self.stores.append(opened(topic))]
                try:
                    self._write(store)
                finally:
                    topic.before = []
            case "save":
                end = store._mine().chain.end
                save(store, end, b"%d" % len(self.acknowledged))
            case "trim":
                store.trim(store._mine().chain.end)
            case _:
                topic.put(b"stranger")

    def _write(self, store: Store) -> None:
        self.sent += 1
        text = str(self.sent)
        write(store, text)
        self.acknowledged.append(text)


STEPS = st.sampled_from(
    ["open", "write", "write", "lost", "lands", "overtaken", "save", "trim", "stranger"]
)


@given(st.lists(st.tuples(STEPS, st.integers(0, 7)), max_size=40))
@settings(max_examples=300)
def test_whatever_happens_what_was_acknowledged_is_there_in_order(
    steps: list[tuple[str, int]],
) -> None:
    race = Race()
    for what, which in steps:
        race.step(what, which)
    last = opened(race.topic)
    checkpoint = last.load_checkpoint()
    found = texts(last.read(0))
    known = 0 if checkpoint is None else int(checkpoint)
    # Each acknowledged one is in the checkpoint or in the log, in order.
    rest = race.acknowledged[known:]
    assert [text for text in found if text in rest] == rest
    assert len(set(found)) == len(found)
    again = opened(race.topic)
    assert texts(again.read(0)) == found
    assert again.load_checkpoint() == checkpoint
