"""What fits into an answer to `List`, and what is asked for."""

import msgspec

from coordinator.api import admin_messages
from coordinator.api.admin_messages import List, listed
from coordinator.runs import WorkflowInfo


def info(
    number: int, status: str = "stuck", key: str = "", reason: str = ""
) -> WorkflowInfo:
    return WorkflowInfo(
        id=f"0-{number}",
        type="Order",
        key=key,
        status=status,
        accepted_at=number,
        outcomes=0,
        attempts=0,
        reason=reason,
        due_s=None,
    )


def ids(found: admin_messages.Workflows) -> list[str]:
    return [item.id for item in found.items]


def test_a_list_has_the_first_line_of_each_reason() -> None:
    found = listed([info(1, reason="\n" + "x" * 20_000 + "\nsecond")], List())
    (item,) = found.items
    assert len(item.reason) == admin_messages.REASON_LENGTH_MAX
    assert item.reason.endswith("x\u2026")
    (short,) = listed([info(1, reason="no stock\nat line 7")], List()).items
    assert short.reason == "no stock"


def test_a_list_has_those_that_fit_and_counts_them_all() -> None:
    crowd = [info(number, key="k" * 20_000) for number in range(1000)]
    found = listed(crowd, List())
    assert found.total == 1000
    assert 100 < len(found.items) < 1000
    assert len(msgspec.json.encode(found)) < 16 * 1024 * 1024
    assert len(listed(crowd, List(limit=3)).items) == 3


def test_a_list_has_the_oldest_first() -> None:
    assert ids(listed([info(3), info(1), info(2)], List(limit=2))) == ["0-1", "0-2"]


def test_a_status_of_two_words_is_found_by_each() -> None:
    crowd = [info(1, "aborting, delayed"), info(2, "delayed"), info(3, "stuck")]
    assert ids(listed(crowd, List(statuses=["delayed"]))) == ["0-1", "0-2"]
    assert ids(listed(crowd, List(statuses=["aborting", "stuck"]))) == ["0-1", "0-3"]
    assert ids(listed(crowd, List(type="Parcel"))) == []
