"""Figures: summed up, merged, kept."""

from pathlib import Path

import pytest
from bench.results import (
    Figure,
    Machine,
    Results,
    encode,
    figure,
    load,
    merge,
    significant,
    table,
)

HERE = Machine(python="3.11", kernel="6", cpu="x", cores=2)
THERE = Machine(python="3.12", kernel="6", cpu="x", cores=2)


def line(name: str, value: float = 1.0, commit: str = "old") -> Figure:
    return Figure(
        name=name,
        value=value,
        min=value,
        max=value,
        unit="s",
        target="",
        holds=None,
        commit=commit,
    )


def test_a_figure_is_the_median_of_its_rounds_with_their_range() -> None:
    found = figure("x", [3.0, 1.0, 9.0], "s")
    assert (found.value, found.min, found.max, found.rounds) == (3.0, 1.0, 9.0, 3)
    assert (found.target, found.holds) == ("", None)


@pytest.mark.parametrize(
    ("value", "at_most", "at_least", "target", "holds"),
    [
        (1.0, 1.0, None, "<= 1", True),
        (1.1, 1.0, None, "<= 1", False),
        (55.0, None, 55.0, ">= 55", True),
        (54.9, None, 55.0, ">= 55", False),
    ],
)
def test_a_target_holds_at_its_very_value(
    value: float,
    at_most: float | None,
    at_least: float | None,
    target: str,
    holds: bool,
) -> None:
    found = figure("x", [value], "s", at_most=at_most, at_least=at_least)
    assert (found.target, found.holds) == (target, holds)


def test_what_was_measured_anew_replaces_the_old_and_the_rest_stays() -> None:
    old = Results(machine=HERE, figures=[line("a"), line("b")], peers={"p": "1"})
    new = Results(machine=HERE, figures=[line("b", 2.0, "new")], peers={"q": "2"})
    merged = merge(old, new, ["a", "b"])
    assert [(f.name, f.value, f.commit) for f in merged.figures] == [
        ("a", 1.0, "old"),
        ("b", 2.0, "new"),
    ]
    assert merged.peers == {"p": "1", "q": "2"}


def test_figures_of_another_machine_do_not_stand_beside_the_new() -> None:
    old = Results(machine=THERE, figures=[line("a")], left_out={"c": "why"})
    merged = merge(old, Results(machine=HERE, figures=[line("b")]), ["a", "b", "c"])
    assert [f.name for f in merged.figures] == ["b"]
    assert merged.left_out == {}


def test_a_figure_that_nothing_measures_any_more_goes() -> None:
    old = Results(machine=HERE, figures=[line("gone"), line("a")])
    merged = merge(old, Results(machine=HERE), ["a"])
    assert [f.name for f in merged.figures] == ["a"]


def test_a_figure_that_can_not_be_had_any_more_is_not_shown_as_if_it_could() -> None:
    old = Results(machine=HERE, figures=[line("a")])
    new = Results(machine=HERE, left_out={"a": "no npm"})
    merged = merge(old, new, ["a"])
    assert (merged.figures, merged.left_out) == ([], {"a": "no npm"})
    again = merge(merged, Results(machine=HERE, figures=[line("a")]), ["a"])
    assert ([f.name for f in again.figures], again.left_out) == (["a"], {})


def test_results_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "core.json"
    assert load(path) is None
    results = Results(machine=HERE, figures=[line("a", 0.123456)])
    path.write_bytes(encode(results))
    assert load(path) == Results(machine=HERE, figures=[line("a", 0.1235)])


def test_four_digits_are_kept_of_large_and_small() -> None:
    assert [significant(v) for v in (4666.67, 0.0123456, 0.0)] == [4667.0, 0.01235, 0.0]


def test_the_table_says_what_was_missed_and_what_was_left_out() -> None:
    missed = figure("a", [2.0], "s", at_most=1)
    text = table(Results(machine=HERE, figures=[missed], left_out={"b": "no npm"}))
    assert "MISSED" in text
    assert "left out: no npm" in text
