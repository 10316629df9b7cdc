"""Rounds: what is measured, how often, in which order."""

from pathlib import Path

from bench.peers import LeftOutError
from bench.rounds import Round, Spec, in_turn, measure


def quiet(_: str) -> None:
    pass


def one(round_: Round) -> float:
    return float(round_.number)


def two(round_: Round) -> float:
    return 10.0 * round_.number


def absent(_: Round) -> float:
    raise LeftOutError("not here")


def same(value: float) -> float:
    return value


def total(first: float, second: float) -> float:
    return first + second


def test_every_other_round_goes_the_other_way_round() -> None:
    needs = [(one, two), (two, absent)]
    assert in_turn(needs, 0) == [one, two, absent]
    assert in_turn(needs, 1) == [absent, two, one]


def test_a_figure_is_made_of_the_measurements_of_one_round(tmp_path: Path) -> None:
    spec = Spec(name="x", unit="s", needs=(one, two), value=total)
    (found,), left_out = measure([spec], 3, tmp_path, 1.0, quiet)
    assert (found.min, found.value, found.max) == (0.0, 11.0, 22.0)
    assert left_out == {}


def test_what_takes_long_is_measured_less_often(tmp_path: Path) -> None:
    specs = [
        Spec(name="x", unit="s", needs=(one,), value=same),
        Spec(name="y", unit="s", needs=(one,), value=same, rounds_max=2),
    ]
    found, _ = measure(specs, 3, tmp_path, 1.0, quiet)
    assert [line.rounds for line in found] == [3, 2]


def test_a_peer_that_is_not_here_is_left_out_with_its_reason(tmp_path: Path) -> None:
    specs = [
        Spec(name="x", unit="s", needs=(one, absent), value=total),
        Spec(name="y", unit="s", needs=(one,), value=same),
    ]
    found, left_out = measure(specs, 2, tmp_path, 1.0, quiet)
    assert [line.name for line in found] == ["y"]
    assert left_out == {"x": "not here"}
