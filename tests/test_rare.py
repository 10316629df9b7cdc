"""Rare points are free when nobody looks, and counted when somebody does."""

from coordinator.rare import reached_by, sometimes


def test_nobody_is_told_of_a_rare_point_unless_he_asks() -> None:
    first: list[str] = []
    second: list[str] = []
    sometimes("before")
    with reached_by(first.append):
        sometimes("one")
        with reached_by(second.append):
            sometimes("two")
        sometimes("three")
    sometimes("after")
    assert first == ["one", "three"]
    assert second == ["two"]
