"""The stage: what survives a process and what does not."""

import pytest
from tests.testing.sagas import PlaceOrder, Shop

from coordinator.model import format_workflow_id
from coordinator.testing.scene import Moment
from coordinator.testing.services import Services
from coordinator.testing.stage import Stage


def staged(dies_at: Moment | None = None) -> Stage:
    stage = Stage(
        Shop(),
        (PlaceOrder,),
        services=Services(),
        direct=lambda moment: "kill" if moment == dies_at else "",
    )
    stage.start()
    return stage


def test_a_workflow_has_the_same_id_also_if_it_was_not_written_at_first() -> None:
    stage = staged(Moment("before the command was written", 0))
    assert stage.submit(PlaceOrder()) == 1
    stage.close()
    assert [str(death) for death in stage.deaths] == ["before the command was written"]


def test_a_process_that_is_killed_holds_no_lock_and_leaves_no_task() -> None:
    stage = staged()
    position = stage.submit(PlaceOrder())
    for _ in range(3):
        stage.kill("by the test")
    stage.finish(60)
    assert stage.open == set()
    assert stage.life.number == 4
    assert stage.loop.problems == []
    with pytest.raises(Exception, match="no unfinished workflow"):
        stage.coordinator.workflow(format_workflow_id(0, position))
    stage.close()
    stage.close()


def test_who_changed_what_is_known_where_somebody_asks() -> None:
    stage = Stage(Shop(), (PlaceOrder,), services=Services())
    stage.look = lambda: {"held": str(stage.receiver.stock.held)}
    stage.start()
    stage.submit(PlaceOrder())
    stage.finish(60)
    stage.close()
    assert stage.changes == [("held", "stock.reserve")]


def test_each_moment_is_known_by_its_words_and_its_number() -> None:
    stage = staged()
    stage.services.fail("bank.charge", times=2)
    stage.submit(PlaceOrder())
    stage.finish(60)
    stage.close()
    assert [m for m in stage.moments if m.what == "before bank.charge was called"] == [
        Moment("before bank.charge was called", number) for number in range(3)
    ]
