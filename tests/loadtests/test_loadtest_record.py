"""Results of load tests as they are kept: what is in them, what is not, and what two of them say of each other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from loadtests.harness.cargo import Message
from loadtests.harness.comparison import compare
from loadtests.harness.page.compared import render_comparison
from loadtests.harness.page.page import kept_together, render, shown_run
from loadtests.harness.page.scales import Scale, linear, milliseconds, nines, seconds_text, shares
from loadtests.harness.record import without_login, without_secrets
from loadtests.harness.subject import Member
from tests.loadtests.judged import answered, load, member, recorded, subject


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--header", "authorization: Bearer xyz", "--rate", "5"], ["--header", "authorization: ***", "--rate", "5"]),
        (["--header=x-key: xyz"], ["--header=x-key: ***"]),
        (["--header", "@keys"], ["--header", "@keys"]),
        (["http://me:xyz@host/path"], ["http://host/path"]),
        (["http://host:3000"], ["http://host:3000"]),
    ],
)
def test_no_secret_is_written_down(arguments: list[str], expected: list[str]) -> None:
    """Values of headers and passwords of addresses are left out of the command line that a record has."""
    assert expected == without_secrets(arguments)
    assert "host" in without_login("host")


def test_the_same_load_is_compared_pair_by_pair() -> None:
    """Runs of one seed sent the same requests; a slower gateway is surely slower, and nothing else is claimed."""
    of = subject()
    plan = of.draw(load(200.0, 10.0), 1)
    first, second = (recorded(of, [answered(of, plan, latency_s, seed=5)]) for latency_s in (0.010, 0.012))
    found = compare(first, second, (first["runs"][0], second["runs"][0]))
    verdicts = {row.name: row.verdict for row in found.rows}
    assert found.paired
    assert () == found.differences
    assert ("worse", "same") == (verdicts["latency, median"], verdicts["answered in time"])
    median = next(row for row in found.rows if row.name == "latency, median")
    assert pytest.approx(0.002, rel=0.1) == median.more.value
    assert median.more.low <= median.more.value <= median.more.high


def test_other_loads_are_compared_as_wholes_and_what_differs_is_named() -> None:
    """Another seed, more refusals, another variant pinned: all of that is said."""
    of = subject()
    first = recorded(of, [answered(of, of.draw(load(), 1), refused=0.02)])
    other = subject(member(slo_ms="30"))
    second = recorded(other, [answered(other, other.draw(load(), 2), refused=0.4, label="other")])
    found = compare(first, second, (first["runs"][0], second["runs"][0]))
    assert not found.paired
    assert "worse" == next(row.verdict for row in found.rows if row.name == "answered in time")
    assert ["load", "families"] == [name for name, _, _ in found.differences]
    page, _ = render_comparison((first, second), ("a.json", "b.json"))
    assert "They sent different requests" in page


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        (((90.0, 110.0), (180.0, 220.0)), "better"),
        (((180.0, 220.0), (90.0, 110.0)), "worse"),
        (((90.0, 110.0), (100.0, 120.0)), "same"),
        (((90.0, 110.0), (120.0, None)), "better"),
        (((90.0, None), (120.0, 130.0)), "same"),
    ],
)
def test_two_searches_are_compared_by_what_they_found(
    bounds: tuple[tuple[float, float | None], tuple[float, float | None]], verdict: str
) -> None:
    """Rates differ where their sure bounds do not overlap; latencies at different rates are no better or worse."""
    of, records = subject(), []
    for number, (low, high) in enumerate(bounds):
        details: dict[str, Any] = {"rate": low + number, "sure_low": low, "sure_high": high, "rates": []}
        record = recorded(of, [answered(of, of.draw(load(), 1), 0.01 * (1 + number))], "search", details)
        record["runs"][0]["rate_asked"] = details["rate"]
        records.append(record)
    found = compare(records[0], records[1], (records[0]["runs"][0], records[1]["runs"][0]))
    assert verdict == found.rows[0].verdict
    assert {"same", "different"} == {row.verdict for row in found.rows[1:]}


@pytest.mark.parametrize(
    ("part", "name", "value", "says"),
    [
        ("generator", "cores", 1, "generator's cores"),
        ("generator", "pinned_to", [1], "generator pinned to cores"),
        ("generator", "locust", "1.0", "generator's locust"),
        ("options", "wanted", {"attainment": 0.1}, "thresholds"),
        ("options", "own", {"repeats": 9}, "profile's options"),
        (None, "tenants", {"gold": 1.0}, "tenants"),
    ],
)
def test_whatever_is_recorded_and_differs_is_named(part: str | None, name: str, value: object, says: str) -> None:
    """Also what does not change a number by itself."""
    of = subject()
    one = recorded(of, [answered(of, of.draw(load(), 1))])
    other = {**one, **({part: {**one[part], name: value}} if part else {name: value})}
    assert [says] == [named for named, _, _ in compare(one, other, (one["runs"][0], other["runs"][0])).differences]


def test_other_rows_are_other_requests() -> None:
    """A run's digest has families, bodies and labels, not only where rows are from."""
    asked = (
        subject(),
        subject(member("other")),
        subject(with_stock(member(), messages=tuple(Message({}, b"%d" % row) for row in range(8)))),
        subject(with_stock(member(), label=np.zeros(8, np.int64))),
    )
    assert 4 == len({answered(of, of.draw(load(), 1)).digest() for of in asked})


def with_stock(of: Member, **changes: Any) -> Member:
    return dataclasses.replace(of, stock=dataclasses.replace(of.stock, **changes))


def test_without_labels_nothing_is_drawn_of_what_was_correct() -> None:
    """Rather than a line at 0 %."""
    of = subject(member(labelled=False))
    one = recorded(of, [answered(of, of.draw(load(), 1))])
    page, _ = render_comparison((one, one), ("a.json", "b.json"))
    assert "Answered in time" in page
    assert "Correct in time" not in page


def test_a_comparison_with_itself_finds_nothing() -> None:
    """Every difference is zero, and none is called one."""
    of = subject()
    one = recorded(of, [answered(of, of.draw(load(), 1))])
    found = compare(one, one, (one["runs"][0], one["runs"][0]))
    assert {("same", 0.0)} == {(row.verdict, row.more.value) for row in found.rows}


def test_a_page_escapes_names_and_stamps_what_is_invalid() -> None:
    """Nothing that a gateway or a user has named becomes markup."""
    of = subject(member("<script>"))
    page = render(recorded(of, [answered(of, of.draw(load(), 1), lag_s=0.002)]))
    assert "<b>INVALID</b>" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "a line &lt;b&gt;of&lt;/b&gt; its own" in page
    assert "http-equiv" in page


def test_a_search_shows_a_valid_run_of_its_answer() -> None:
    """Of all trials, the last one at the rate that was found that is valid; where none is, the page says so."""
    of = subject()
    runs = [answered(of, of.draw(load(), seed), label=f"{seed}") for seed in range(3)]
    values = recorded(of, runs, "search", {"rate": 100.0})
    values["runs"][2]["rate_asked"] = 200.0
    assert "1" == shown_run(values)["label"]
    assert "2" == shown_run({**values, "details": {}})["label"]
    assert "NO VALID RUN TO SHOW" not in render(values)
    values["runs"][1]["score"]["valid"] = False
    assert "0" == shown_run(values)["label"]
    values["runs"][0]["score"]["valid"] = False
    assert "1" == shown_run(values)["label"]
    assert "NO VALID RUN TO SHOW" in render(values)


@pytest.mark.parametrize(
    ("scale", "inside"),
    [(linear(0.0, 42.0), 42.0), (linear(0.0, 0.0), 0.0), (milliseconds([0.0012, 0.9]), 0.9), (milliseconds([]), 1e-3)],
)
def test_scales_hold_what_is_drawn(scale: Scale, inside: float) -> None:
    """Values lie between both ends, marks too, in order."""
    assert scale.low <= inside <= scale.high
    marks = [value for value, _ in scale.marks]
    assert marks == sorted(marks)
    assert all(0.0 <= scale.share(mark) <= 1.0 for mark in marks)


def test_scales_of_shares_and_percentiles() -> None:
    """Shares begin where something is to be seen; each nine takes as much room as the one before."""
    assert [0.99, 0.9, 0.0] == [shares(low).low for low in (0.995, 0.91, 0.2)]
    scale = nines(0.001)
    places = [scale.share(rest) for rest in (0.1, 0.01, 0.001)]
    assert pytest.approx(places[1] - places[0]) == places[2] - places[1]
    assert ["50 %", "90 %", "99 %", "99.9 %"] == [text for _, text in scale.marks]
    assert ["2 s", "5 ms", "200 µs"] == [seconds_text(seconds) for seconds in (2.0, 0.005, 0.0002)]
    assert "99.5\u00a0% in 3\u00a0ms" == kept_together("99.5 % in 3 ms")
    assert math.isclose(1.0, scale.share(0.0001))
