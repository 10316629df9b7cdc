"""Pictures and tables: drawn from the JSON, and committed as they are drawn."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from bench.charts import (
    CHARTS,
    ECHO_CHARTS,
    WIDTH,
    Chart,
    between,
    draw,
    drawn,
    figures_table,
    measured,
    number,
    scale,
)
from bench.echo.figures import FIGURES as ECHO_FIGURES
from bench.figures import FIGURES
from bench.results import CMDSTREAM, CORE, Figure, Machine, Results, load
from bench.rounds import Spec

SVG = "{http://www.w3.org/2000/svg}"
MACHINE = Machine(python="3.11", kernel="6", cpu="x", cores=2)


def line(name: str, value: float, low: float, high: float) -> Figure:
    return Figure(
        name=name, value=value, min=low, max=high, unit="s", target="", holds=None
    )


ALL = Results(
    machine=MACHINE,
    figures=[
        line(row.figure, 10.0**index, 0.9 * 10.0**index, 1.5 * 10.0**index)
        for chart in (*CHARTS, *ECHO_CHARTS)
        for index, row in enumerate(chart.rows)
    ],
)


def committed(path: Path) -> Results:
    results = load(path)
    assert results is not None
    return results


def test_what_is_committed_is_what_the_committed_figures_draw() -> None:
    for path, text in drawn(committed(CORE), committed(CMDSTREAM)).items():
        assert path.read_text() == text, f"{path.name}: run `make bench-charts`"


@pytest.mark.parametrize(
    ("path", "specs", "charts"),
    [(CORE, FIGURES, CHARTS), (CMDSTREAM, ECHO_FIGURES, ECHO_CHARTS)],
    ids=["core", "cmdstream"],
)
def test_every_committed_figure_is_one_that_is_measured(
    path: Path, specs: Sequence[Spec], charts: Sequence[Chart]
) -> None:
    known = {spec.name for spec in specs}
    assert {figure.name for figure in committed(path).figures} <= known
    assert {row.figure for chart in charts for row in chart.rows} <= known


@pytest.mark.parametrize("chart", [*CHARTS, *ECHO_CHARTS], ids=lambda chart: chart.file)
def test_a_chart_has_a_bar_for_each_figure_within_its_width(chart: Chart) -> None:
    picture = ET.fromstring(draw(chart, ALL))
    bars = picture.findall(f"{SVG}rect")
    assert len(bars) == len(chart.rows)
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert widths == sorted(widths)
    # Ten times as much is as far to the right wherever it is.
    steps = [b - a for a, b in itertools.pairwise(widths)]
    assert all(math.isclose(step, steps[0], abs_tol=0.2) for step in steps)
    ends = [float(b.attrib["x"]) + float(b.attrib["width"]) for b in bars]
    assert max(ends) < WIDTH


@pytest.mark.parametrize("chart", [*CHARTS, *ECHO_CHARTS], ids=lambda chart: chart.file)
def test_a_chart_can_be_read_aloud_and_in_the_dark(chart: Chart) -> None:
    text = draw(chart, ALL)
    picture = ET.fromstring(text)
    labels = picture.attrib["aria-labelledby"].split()
    assert picture.attrib["role"] == "img"
    assert [one.attrib["id"] for one in picture if "id" in one.attrib] == labels
    told = picture.find(f"{SVG}desc")
    assert told is not None
    assert told.text is not None
    assert all(f"{row.label}, {row.how}: " in told.text for row in chart.rows)
    assert "prefers-color-scheme: dark" in text


def test_a_peer_that_was_left_out_has_no_bar() -> None:
    chart = CHARTS[0]
    kept = [one for one in ALL.figures if one.name != "restate_per_s"]
    picture = draw(chart, Results(machine=MACHINE, figures=kept))
    assert picture.count("<rect") == len(chart.rows) - 1
    assert "Restate" not in picture


def test_no_figures_at_all_make_an_empty_chart() -> None:
    assert draw(CHARTS[0], Results(machine=MACHINE)).count("<rect") == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(30.0, 5000.0)], (10.0, 10_000.0)),
        ([(2.0, 3.0)], (1.0, 10.0)),
        ([(1.0, 10.0)], (0.1, 10.0)),
        ([], (0.1, 10.0)),
    ],
)
def test_a_scale_holds_all_ranges_and_gives_each_bar_a_length(
    values: list[tuple[float, float]], expected: tuple[float, float]
) -> None:
    figures = [line("x", low, low, high) for low, high in values]
    assert scale(figures) == pytest.approx(expected)


def test_numbers_are_as_people_read_them() -> None:
    shown = [number(v) for v in (0.123456, 4.0, 37.91, 99.99, 4666.7, 123456.0)]
    assert shown == ["0.123", "4", "37.9", "100", "4,667", "123,456"]


def test_a_place_is_filled_and_filled_again() -> None:
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    once = between(text, "x", "new")
    assert once == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    assert between(once, "x", "new") == once
    assert between("a <!-- x -->old<!-- /x -->.", "x", "new") == (
        "a <!-- x -->new<!-- /x -->."
    )


@pytest.mark.parametrize("text", ["", "<!-- x -->\n<!-- /x -->\n" * 2])
def test_a_place_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="places for x"):
        between(text, "x", "new")


def test_the_table_names_what_was_left_out_and_why() -> None:
    table = figures_table(Results(machine=MACHINE, left_out={"b": "no npm"}))
    assert "b is left out: no npm." in table


def test_the_readme_says_only_what_was_measured() -> None:
    said = measured(Results(machine=MACHINE, figures=[line("p50_ms", 3.7, 3, 4)]))
    assert said.startswith("On 2 cores of a shared machine: 3.7 ms for one. ")
    assert Path(CORE).name == "core.json"
