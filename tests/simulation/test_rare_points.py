"""Rare points have names of their own, and seeds come to them."""

from collections import Counter

import pytest
from tests.simulation.rare import UNREACHED, _points_in, never_reached, points, table
from tests.simulation.run import simulate

from coordinator.rare import reached_by


def test_each_rare_point_has_a_name_of_its_own() -> None:
    names = [name for name, _ in points()]
    assert len(set(names)) == len(names) >= 40


def test_what_can_not_be_reached_is_there() -> None:
    assert set(UNREACHED) <= {name for name, _ in points()}


def test_a_name_is_a_literal() -> None:
    assert list(_points_in("x\nsometimes('one')")) == [("one", 2)]
    with pytest.raises(AssertionError, match="line 1: its name is no literal"):
        list(_points_in("sometimes(name)"))


def test_what_was_not_reached_is_told() -> None:
    assert "reins cut" in never_reached({})
    assert "reins cut" not in never_reached({"reins cut": 1})
    assert "group full by its size" not in never_reached({})


def test_the_table_has_the_rarest_first() -> None:
    counts = Counter({name: 1000 for name, _ in points()})
    counts["reins cut"] = 3
    lines = table(counts).splitlines()
    assert lines[2].startswith("| reins cut | 3 | `calls.py:")
    assert "1,000" in lines[3]


def test_seeds_come_to_rare_points() -> None:
    reached: list[str] = []
    with reached_by(reached.append):
        for seed in range(20):
            simulate(seed)
    assert {"torn tail cut", "outcome held", "probe"} <= set(reached)
