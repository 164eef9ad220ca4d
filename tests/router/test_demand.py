"""The forecast: rates by class, how soon they are right, and how many classes there can be."""

from __future__ import annotations

import numpy as np
import pytest

from router.demand import MOST_CLASSES, QUICK_S, SLOW_S, Demand, DemandKey
from router.request import NEVER, Request

KEY = DemandKey("f", -1, 0, 0)


def request(number: int, now: float, slo_s: float = 0.1, rows: tuple[int, ...] = (0,), **changes: object) -> Request:
    base = Request(number, "f", rows, now, now + slo_s, NEVER)
    return base._replace(**changes)  # type: ignore[arg-type]  # field types are the caller's business in a test


def steady(rate: float, until_s: float) -> Demand:
    """One row at a time, evenly spaced."""
    demand = Demand()
    for number in range(round(rate * until_s)):
        demand.observe(request(number, number / rate), 0, number / rate)
    return demand


@pytest.mark.parametrize("rate", [20.0, 300.0, 2000.0])
def test_the_rate_of_poisson_arrivals_is_found(rate: float) -> None:
    """Looked at often, over ten seconds after two to warm up, its mean is the rate."""
    rng = np.random.default_rng(1)
    at = np.cumsum(rng.exponential(1.0 / rate, int(12 * rate))).tolist()
    demand, seen = Demand(), []
    for number, now in enumerate(at):
        if now > 2.0:
            # Before the row is counted: arrivals see the time average (PASTA).
            seen += [known.rate_per_s for known in demand.classes(now)]
        demand.observe(request(number, now), 0, now)
    assert np.mean(seen) == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("until_s", [0.005, 0.02, 0.05, 0.2, 1.0, 5.0])
def test_the_rate_is_nearly_right_from_the_start(until_s: float) -> None:
    """As if half a quick window more had been seen, in which nothing came: never too much, and soon all of it."""
    (found,) = steady(1000.0, until_s).classes(until_s)
    assert (KEY, 0.1) == (found.key, found.slo_s)
    seen = until_s / (until_s + 0.5 * QUICK_S)
    assert 0.99 * seen * 1000.0 <= found.rate_per_s <= min(1.25 * seen, 1.01) * 1000.0


def test_a_first_request_is_no_flood() -> None:
    """Nothing is known but that it came: one row in half a quick window, and not one in a millisecond."""
    demand = Demand()
    demand.observe(request(1, 0.0), 0, 0.0)
    (found,) = demand.classes(0.0)
    assert found.rate_per_s == pytest.approx(1.0 / (0.5 * QUICK_S), rel=0.2)


def test_a_burst_is_noticed_by_one_window_and_forgotten_by_it_first() -> None:
    """A hundred rows at once after a quiet minute: both windows see them, the quick one for a moment."""
    demand = steady(1.0, 60.0)
    for number in range(100):
        demand.observe(request(100 + number, 60.0), 0, 60.0)
    (peak,), (after,) = demand.classes(60.0), demand.classes(60.0 + 10 * QUICK_S)
    assert peak.rate_per_s == pytest.approx(50.0 / QUICK_S + 50.0 / SLOW_S, rel=0.02)
    assert after.rate_per_s == pytest.approx((50.0 / SLOW_S + 0.5) * np.exp(-10 * QUICK_S / SLOW_S), rel=0.02)


def test_demand_that_ends_fades() -> None:
    """Twenty seconds later nothing is expected any more."""
    (found,) = steady(1000.0, 2.0).classes(22.0)
    assert found.rate_per_s < 0.1


def test_asking_changes_nothing() -> None:
    """The same demand, looked at in between or not, gives the same rates, and looking back is no harm."""
    asked, quiet = steady(100.0, 1.0), steady(100.0, 1.0)
    for step in range(50):
        asked.classes(1.0 + step / 100.0)
    assert asked.classes(1.5)[0].rate_per_s == pytest.approx(quiet.classes(1.5)[0].rate_per_s)
    assert asked.classes(1.4)[0].rate_per_s > 0.0


def test_rows_are_counted_by_what_they_cost() -> None:
    """A request of three size classes counts in three classes, each with its own rows."""
    demand = Demand()
    demand.observe(request(1, 0.0, rows=(0, 2, 0, 1, 0)), 1, 0.0)
    rates = {known.key.size_class: known.rate_per_s for known in demand.classes(0.01)}
    assert {0, 1, 2} == set(rates)
    assert rates[0] == pytest.approx(3 * rates[1])
    assert rates[2] == pytest.approx(rates[1])
    assert {DemandKey("f", -1, 1, size_class) for size_class in range(3)} == {k.key for k in demand.classes(0.01)}


def test_pins_and_families_are_classes_of_their_own() -> None:
    """They cost differently, or may be given other answers."""
    demand = Demand()
    demand.observe(request(1, 0.0), 0, 0.0)
    demand.observe(request(2, 0.0, pinned="large"), 2, 0.0)
    demand.observe(request(3, 0.0, family="g"), 0, 0.0)
    assert {KEY, DemandKey("f", 2, 2, 0), DemandKey("g", -1, 0, 0)} == {k.key for k in demand.classes(0.0)}


def test_slos_are_one_class_when_they_are_alike() -> None:
    """100 and 102 ms are one class, 100 and 200 ms are two."""
    demand = Demand()
    for number, slo_s in enumerate((0.1, 0.102, 0.2)):
        demand.observe(request(number, 0.0, slo_s), 0, 0.0)
    assert [0.1, 0.2] == pytest.approx([known.slo_s for known in demand.classes(0.0)])


@pytest.mark.parametrize("slo_s", [NEVER, 0.0, -1.0])
def test_work_without_a_deadline_to_meet_is_not_expected(slo_s: float) -> None:
    """It is served from spare capacity; it counts as arrived all the same."""
    demand = Demand()
    demand.observe(request(1, 0.0, rows=(0, 0))._replace(deadline_s=slo_s), 0, 0.0)
    assert ((), {"f": 2}) == (demand.classes(0.0), demand.arrived)


def test_there_are_only_so_many_classes_and_no_row_is_lost() -> None:
    """Callers that all ask for another SLO are counted together once there are too many."""
    demand = Demand()
    for number in range(3 * MOST_CLASSES):
        demand.observe(request(number, 0.0, slo_s=0.001 * 1.3**number), 0, 0.0)
    found = demand.classes(0.0)
    (one,) = steady(1.0, 1.0).classes(0.0)
    assert len(found) == MOST_CLASSES
    assert sum(known.rate_per_s for known in found) == pytest.approx(3 * MOST_CLASSES * one.rate_per_s)


def test_classes_that_have_run_dry_make_room() -> None:
    """A minute after the others have stopped, a new class is counted as itself."""
    demand = Demand()
    for number in range(MOST_CLASSES):
        demand.observe(request(number, 0.0, slo_s=0.001 * 1.3**number), 0, 0.0)
    demand.observe(request(999, 60.0, family="g"), 0, 60.0)
    assert ["g"] == [known.key.family for known in demand.classes(60.0)]


def test_too_many_kinds_of_one_family_are_not_counted_as_another_familys() -> None:
    """With no room left, a family without a class of its own is counted as arrived but not forecast."""
    demand = Demand()
    for number in range(MOST_CLASSES):
        demand.observe(request(number, 0.0, slo_s=0.001 * 1.3**number), 0, 0.0)
    before = demand.classes(0.0)
    demand.observe(request(999, 0.0, family="g"), 0, 0.0)
    assert (before, 1) == (demand.classes(0.0), demand.arrived["g"])
